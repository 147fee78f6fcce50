"""The columns of the facts tables."""

from __future__ import annotations

import pyarrow as pa

KEYS = [("id", pa.string()), ("label", pa.string()), ("source", pa.string()), ("split", pa.string())]
KEYS += [("group", pa.string()), ("shard", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string())]
KEYS += [("decodable", pa.bool_()), ("error", pa.string()), ("content_sha256", pa.string())]
TEXTS = {"images": ("format", "mode"), "audio": ("format", "subtype")}
WHOLE = {
    "images": ("width_px", "height_px", "channels", "bytes_after_end"),
    "audio": ("sample_rate_hz", "channels", "bytes_after_end"),
}
REAL = {
    "images": (
        "aspect",
        "brightness",
        "contrast",
        "blur",
        "sharpness",
        "information_bits",
        "dark_share",
        "bright_share",
    ),
    "audio": (
        "duration_s",
        "peak_db",
        "clipping_share",
        "silence_share",
        "dc_offset",
        "loudness_db",
        "snr_db",
        "bandwidth_hz",
        "flatness_db",
        "channel_balance_db",
        "channel_correlation",
    ),
}


def facts_schema(modality: str) -> pa.Schema:
    """Columns of the facts table of a modality; every measured column is null where the item cannot be decoded."""
    columns = [(name, pa.string()) for name in TEXTS[modality]]
    columns += [(name, pa.int64()) for name in WHOLE[modality]] + [(name, pa.float64()) for name in REAL[modality]]
    return pa.schema([*KEYS, *columns, ("signature", pa.binary())])
