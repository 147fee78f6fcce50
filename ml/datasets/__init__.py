"""Decoded, split and packed datasets: raw shards in, memory-mapped integers out (`python -m ml.datasets`)."""

from __future__ import annotations

from ml.datasets.sets import (
    ImageSet,
    SpeechSet,
    extra_voices,
    joined,
    load_images,
    load_speech,
    near_copies,
    raw_digest,
)

__all__ = [
    "ImageSet",
    "SpeechSet",
    "extra_voices",
    "joined",
    "load_images",
    "load_speech",
    "near_copies",
    "raw_digest",
]
