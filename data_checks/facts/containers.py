"""What a file's own structure says of damage that decoders pass over in silence: check sums, ends, contradictions.

PNG (ISO 15948), JPEG (ITU T.81) and WAV (Microsoft and IBM 1991) are read here as far as that takes; other formats are
left to their decoders. Nothing that a header declares is allocated.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from data_checks.facts.jpeg import jpeg_codes_damage, jpeg_stream

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
SEVERAL_PICTURES = b"MPF\0"  # cameras put a preview behind the picture, and say so
BITS_PER_SAMPLE = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,), 0xFFFE: (8, 16, 24, 32, 64)}  # by format tag


class Structure(NamedTuple):
    """damage: what is wrong, in one line, or None. bytes_after_end: what follows the end that the format knows."""

    damage: str | None = None
    bytes_after_end: int = 0


def picture_structure(content: bytes) -> Structure:
    """The structure of an encoded picture that can be decoded; nothing is said of formats other than PNG and JPEG."""
    if content[:8] == PNG:
        return _png(content)
    if content[:2] == JPEG:
        return _jpeg(content)
    return Structure()


def recording_structure(content: bytes) -> Structure:
    """The structure of an encoded recording; nothing is said of formats other than WAV."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return Structure()
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        if kind == b"fmt " and (damage := _contradiction(content, at + 8, size)):
            return Structure(damage)
        if kind == b"data":
            return _end_of_wave(content, at + 8 + size)
        at += 8 + size + size % 2
    return Structure("damaged: a WAV without its data")


def _jpeg(content: bytes) -> Structure:
    stream = jpeg_stream(content)
    if damage := stream.damage or jpeg_codes_damage(content, stream):
        return Structure(damage)
    several = SEVERAL_PICTURES in content[: stream.codes_from]
    return Structure(None, 0 if several else len(content) - stream.end)


def _png(content: bytes) -> Structure:
    at = len(PNG)
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        end = at + 12 + size
        if end > len(content):
            break
        kind = content[at + 4 : at + 8]
        if zlib.crc32(content[at + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            return Structure(f"damaged: the check sum of its part {kind.decode('ascii', 'replace')!r} is wrong")
        if kind == b"IEND":
            return Structure(None, len(content) - end)
        at = end
    return Structure("cut short: a PNG without its end")


def _contradiction(content: bytes, at: int, size: int) -> str | None:
    """What in the format chunk at `at` contradicts itself: rates, sizes and widths are told twice in it."""
    if size < 16 or at + 16 > len(content):
        return "damaged: its format is cut short"
    tag, channels, rate_hz, bytes_per_s, frame_bytes, bits = struct.unpack_from("<HHIIHH", content, at)
    if tag not in BITS_PER_SAMPLE:  # compressed: the fields mean other things
        return None
    whole = bits in BITS_PER_SAMPLE[tag] or (tag in (1, 0xFFFE) and 0 < bits <= 32)
    if not whole or frame_bytes != channels * -(-bits // 8) or bytes_per_s != rate_hz * frame_bytes:
        return (
            f"damaged: its header contradicts itself: {channels} channels of {bits} bits at {rate_hz} Hz, "
            f"{frame_bytes} bytes a frame, {bytes_per_s} bytes a second"
        )
    return None


def _end_of_wave(content: bytes, sound_end: int) -> Structure:
    """Whether the length that the RIFF header tells agrees with the file and its parts; the sound ends at sound_end."""
    (declared,) = struct.unpack_from("<I", content, 4)
    end = declared + 8
    odd = sound_end % 2  # a byte of padding follows, which some leave out or do not count
    if end > len(content) + odd:
        told = f"its header declares {end} bytes, {len(content)} are there"
        unfinished = ", as a program leaves it that was stopped; save it anew" if sound_end > len(content) else ""
        return Structure(f"damaged: {told}{unfinished}")
    at = sound_end + odd
    while at + 8 <= end:
        at += 8 + (size := struct.unpack_from("<4xI", content, at)[0]) + size % 2
    if at > end + odd:
        return Structure(f"damaged: its header declares {end} bytes, its parts end at {at}")
    return Structure(None, max(len(content) - end, 0))
