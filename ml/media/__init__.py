"""Pictures and recordings: the one place where they are decoded, encoded, resized and resampled."""

from ml.media.pictures import decode_picture, encode_png, grey, resize_square, shrunk, stored_picture, stored_pictures
from ml.media.recordings import (
    RecordingFile,
    decode_recording,
    encode_wav,
    resample,
    resampling_step,
    stored_recording,
    to_int16,
    wav_header,
    wav_samples,
)

__all__ = [
    "RecordingFile",
    "decode_picture",
    "decode_recording",
    "encode_png",
    "encode_wav",
    "grey",
    "resample",
    "resampling_step",
    "resize_square",
    "shrunk",
    "stored_picture",
    "stored_pictures",
    "stored_recording",
    "to_int16",
    "wav_header",
    "wav_samples",
]
