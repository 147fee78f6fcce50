"""Damage inside a JPEG (ITU T.81), which has no check sums and whose decoders show half a picture without a word.

What is told here: markers where none may be, a missing end, and a stream of codes that ends before its picture does or
goes on after it. Codes that were changed and still add up to the whole picture cannot be told from others.
"""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np

START, END, SCAN = 0xD8, 0xD9, 0xDA
BETWEEN_SCANS = {0xC4, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, lines, comments, applications
AFTER_CODES = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a marker that ends the codes: no stuffed byte, no restart
MORE_CODES = b"\x5a\xa5" * 16
LAST_CODES = 8
OTHER_CODES = (0x00, 0x55, 0xAA, 0x33, 0xCC, 0x0F)


class Stream(NamedTuple):
    """damage: in one line, or None. codes_from, codes_to: the last scan's codes. end: where the file should end."""

    damage: str | None
    codes_from: int = 0
    codes_to: int = 0
    end: int = 0


def jpeg_stream(content: bytes) -> Stream:
    """The structure of a JPEG from marker to marker; nothing is decoded."""
    at, codes = 2, (0, 0)
    while at + 2 <= len(content):
        kind = content[at + 1]
        if content[at] != 0xFF or (codes[1] == at and kind not in {END, SCAN, *BETWEEN_SCANS}):
            return Stream(f"damaged: no part of a JPEG begins like its byte {at}")
        if kind == END:
            return Stream(None, *codes, at + 2) if codes[1] else Stream("damaged: a JPEG that holds no picture")
        if kind == 0xFF:  # one more byte of filling
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == SCAN:
            marker = AFTER_CODES.search(content, at)
            codes = (at, marker.start() if marker else len(content))
            at = codes[1]
    return Stream("cut short: a JPEG without its end")


def jpeg_codes_damage(content: bytes, stream: Stream) -> str | None:
    """Whether the codes of a JPEG that can be decoded add up to just its picture; in one line, or None.

    More codes must change nothing, and other last codes must change something: two or three more decodings.
    """
    shown = _decoded(content)
    head, tail = content[: stream.codes_to], content[stream.codes_to :]
    if not _same(shown, _decoded(head + MORE_CODES + tail)):
        return "damaged: its codes end before its picture does"
    last = min(LAST_CODES, stream.codes_to - stream.codes_from)
    for code in OTHER_CODES:
        if not _same(shown, _decoded(head[: len(head) - last] + bytes([code]) * last + tail)):
            return None
    return "damaged: its codes go on after its picture has ended"


def _same(shown: np.ndarray | None, other: np.ndarray | None) -> bool:
    return shown is not None and other is not None and np.array_equal(shown, other)


def _decoded(content: bytes) -> np.ndarray | None:
    """What Pillow shows, or None where it refuses."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture)
    except OSError:
        return None
