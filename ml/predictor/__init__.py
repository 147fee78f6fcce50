from ml.predictor.answers import Extraction, Heard, Interval, Picture, PicturedObject, Recognition, Word
from ml.predictor.bundle import GoldenRequest, models_digest, read_goldens, verify_bundle, write_bundle
from ml.predictor.inference import Predictor, Separated

__all__ = [
    "Extraction",
    "GoldenRequest",
    "Heard",
    "Interval",
    "Picture",
    "PicturedObject",
    "Predictor",
    "Recognition",
    "Separated",
    "Word",
    "models_digest",
    "read_goldens",
    "verify_bundle",
    "write_bundle",
]
