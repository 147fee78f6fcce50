"""What a person gave to be decoded: its bytes, and why they cannot be."""

from __future__ import annotations

import re
from pathlib import Path

from ml.config import UserError

MOST_BYTES = 512 * 2**20  # of a file that is read whole


def bytes_of(source: bytes | Path, name: str) -> bytes:
    """The bytes themselves, or those of a file; UserError naming `name` where it cannot be read or is
    larger than MOST_BYTES."""
    if isinstance(source, bytes):
        return source
    try:
        if (size := Path(source).stat().st_size) > MOST_BYTES:
            raise UserError(f"{name}: {size / 2**20:,.0f} MiB; expected at most {MOST_BYTES / 2**20:g}")
        return Path(source).read_bytes()
    except OSError as fault:
        raise UserError(f"{name}: cannot be read: {fault.strerror}") from None


def reason_of(fault: Exception, empty: bool = False, unknown: bool = False, expected: str = "") -> str:
    """Why something cannot be decoded, for one line to a person: empty, unknown to the decoder, or what it said."""
    if empty or unknown:
        return f"{'it is empty' if empty else 'its format is not known'}; expected {expected}"
    said = re.sub(
        r"<\S+ (object at 0x[0-9a-f]+|name='.*?')>", "it", " ".join(str(getattr(fault, "error_string", fault)).split())
    )
    return said or type(fault).__name__
