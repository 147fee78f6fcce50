from ml.predictor.answers import Extraction, Finding, Heard, Interval, Picture, PicturedObject, Recognition, Word
from ml.predictor.bundle import GoldenRequest, models_digest, read_goldens, verify_bundle, write_bundle
from ml.predictor.inference import Predictor
from ml.predictor.separating import Separated

__all__ = [
    "Extraction",
    "Finding",
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
