"""The one place where pictures and recordings are decoded, encoded, resized and resampled."""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageOps

from ml.config import UserError

STORED_BLOCK_BYTES = 65535
BLOCK_FRAMES = 1 << 16
KAISER: Any = ("kaiser", 5.0)  # a pair is allowed; the type that scipy declares is too narrow
WAVE_UNKNOWN_BYTES = 0x7FFFF000  # writers that do not know the length declare this or more


def decode_picture(source: bytes | Path, max_megapixels: float = 25, name: str = "picture") -> np.ndarray:
    """Decode any picture Pillow reads, turned upright as EXIF says, transparency laid on black, first frame only.

    Returns uint8 (height, width, channels), channels 1 for grey and 3 for RGB; 16-bit grey is scaled down.
    Raises UserError naming `name` where it cannot be decoded or has more than `max_megapixels`.
    """
    try:
        with Image.open(io.BytesIO(_bytes_of(source, name))) as picture:
            if picture.width * picture.height > max_megapixels * 1e6:
                size = f"{picture.width} x {picture.height}"
                raise UserError(f"{name}: {size} pixels, expected at most {max_megapixels:g} megapixels")
            upright = ImageOps.exif_transpose(picture)
            return _as_grey_or_rgb(upright, name)
    except UserError:
        raise
    except Exception as fault:  # Pillow's decoders raise almost any type on damaged input
        raise UserError(f"{name}: cannot be decoded as a picture: {_reason(fault)}") from fault


def decode_recording(
    source: bytes | Path, max_s: float | None = None, name: str = "recording"
) -> tuple[np.ndarray, int]:
    """Decode any recording libsndfile reads to the mean of its channels.

    Returns float32 (samples,), full scale at 1, and its rate in Hz.
    Raises UserError naming `name` where it cannot be decoded, is empty, cut short, longer than `max_s`, or not finite.
    """
    content = _bytes_of(source, name)
    _require_whole_wave(content, name)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as recording:
            rate_hz, declared = recording.samplerate, recording.frames
            limit = None if max_s is None else int(max_s * rate_hz)
            waveform = _read_mono(recording, limit)
    except Exception as fault:  # soundfile raises its own types and, on damaged input, others
        raise UserError(f"{name}: cannot be decoded as a recording: {_reason(fault)}") from fault
    if limit is not None and len(waveform) > limit:
        raise UserError(f"{name}: longer than the {max_s:g} s that are allowed")
    if len(waveform) < declared:
        raise UserError(f"{name}: cut short: {declared} samples declared, {len(waveform)} there")
    if len(waveform) == 0:
        raise UserError(f"{name}: holds no sound, expected at least one sample")
    if not np.isfinite(waveform).all():
        raise UserError(f"{name}: holds samples that are not finite numbers")
    return waveform, rate_hz


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (height, width) or (height, width, 1 or 3) as PNG, the same bytes on every machine.

    Stored, not deflated, because deflate's output differs between builds of zlib (PNG 1.2; RFC 1950 and 1951).
    """
    grey_or_rgb = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = grey_or_rgb.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a leading 0 in each row: no filter
    rows[:, 1:] = grey_or_rgb.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def encode_wav(waveform: np.ndarray, rate_hz: int, subtype: str = "PCM_16") -> bytes:
    """Encode float (samples,), full scale at 1, as a mono WAV of subtype PCM_16 (clipped) or FLOAT."""
    match subtype:
        case "PCM_16":
            code, width, body = 1, 2, to_int16(waveform).astype("<i2").tobytes()
        case "FLOAT":
            code, width, body = 3, 4, np.asarray(waveform).astype("<f4").tobytes()
        case _:
            raise ValueError(f"subtype {subtype!r}: expected PCM_16 or FLOAT")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, 1, rate_hz, rate_hz * width, width, 8 * width)
    data = struct.pack("<4sI", b"data", len(body)) + body
    return struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE") + form + data


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round float samples, full scale at 1, to int16; what lies beyond full scale is clipped."""
    return np.clip(np.rint(np.asarray(waveform, np.float64) * 32768), -32768, 32767).astype(np.int16)


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample float (samples,) by a polyphase filter, computed in float64.

    Returns float32 (ceil(samples * to_hz / from_hz),).
    """
    if from_hz == to_hz:
        return np.asarray(waveform, np.float32)
    from scipy.signal import resample_poly  # a second to import, and most who decode never resample

    up, down = to_hz // gcd(from_hz, to_hz), from_hz // gcd(from_hz, to_hz)
    return resample_poly(np.asarray(waveform, np.float64), up, down, window=_lowpass(max(up, down))).astype(np.float32)


def resize_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pad uint8 (h, w, c) to a square with its border's median colour, then resize to (side, side, c).

    Shrinking averages areas; enlarging interpolates bilinearly.
    """
    height, width, channels = pixels.shape
    full = max(height, width)
    if (height, width) == (side, side):
        return pixels
    if height != width:
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        square = np.empty((full, full, channels), np.uint8)
        square[:] = np.median(border, axis=0).astype(np.uint8)
        top, left = (full - height) // 2, (full - width) // 2
        square[top : top + height, left : left + width] = pixels
        pixels = square
    method = Image.Resampling.BOX if full > side else Image.Resampling.BILINEAR
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(picture.resize((side, side), method)).reshape(side, side, channels)


def _bytes_of(source: bytes | Path, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as fault:
        raise UserError(f"{name}: cannot be read: {fault.strerror}") from None


def _as_grey_or_rgb(picture: Image.Image, name: str) -> np.ndarray:
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return _sixteen_bit(np.asarray(picture), name)
    if picture.mode == "F":
        raise UserError(f"{name}: holds floating-point pixels, expected 8 or 16 bits")
    if picture.has_transparency_data:
        transparent = picture.convert("RGBA")
        black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
        grey = picture.mode in ("LA", "La", "L", "1")
        picture = Image.alpha_composite(black, transparent).convert("L" if grey else "RGB")
    pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    return np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels)


def _sixteen_bit(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(f"{name}: holds grey values from {pixels.min()} to {pixels.max()}, expected 0 to 65535")
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)[..., None]


def _read_mono(recording: soundfile.SoundFile, limit: int | None) -> np.ndarray:
    """Mean of the channels, read by blocks, so that a small file that unpacks to hours stops just past `limit`."""
    blocks: list[np.ndarray] = []
    samples = 0
    while limit is None or samples <= limit:
        block = recording.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        samples += len(block)
        blocks.append(block.mean(axis=1))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _require_whole_wave(content: bytes, name: str) -> None:
    """Refuse a WAV whose data chunk declares more bytes than there are; libsndfile reads the rest without a word."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        there = len(content) - at - 8
        if kind == b"data" and there < size < WAVE_UNKNOWN_BYTES:
            raise UserError(f"{name}: cut short: {size} bytes of sound declared, {there} there")
        at += 8 + size + size % 2


def _stored(body: bytes) -> bytes:
    """A zlib stream of stored blocks."""
    starts = range(0, max(len(body), 1), STORED_BLOCK_BYTES)
    blocks = [body[at : at + STORED_BLOCK_BYTES] for at in starts]
    framed = b"".join(
        struct.pack("<BHH", at == starts[-1], len(block), len(block) ^ 0xFFFF) + block
        for at, block in zip(starts, blocks, strict=True)
    )
    return b"\x78\x01" + framed + struct.pack(">I", zlib.adler32(body))


@lru_cache(maxsize=16)
def _lowpass(factor: int) -> np.ndarray:
    """scipy.signal.resample_poly's own default filter, designed once per pair of rates."""
    from scipy.signal import firwin

    return np.asarray(firwin(20 * factor + 1, 1 / factor, window=KAISER))


def _reason(fault: Exception) -> str:
    said = re.sub(r"<\S+ object at 0x[0-9a-f]+>", "it", " ".join(str(fault).split()))
    return said or type(fault).__name__
