"""The one place where pictures and recordings are decoded, encoded, resized and resampled."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import gcd, inf
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from PIL import Image, ImageOps, UnidentifiedImageError

from ml.config import UserError

STORED_BLOCK_BYTES = 65535
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_PIXELS_AT = 48  # where one stored block is enough
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
BLOCK_SAMPLES = 1 << 16  # of all channels together
HIGHEST_RATE_HZ = 384_000  # a header may declare any number, and the resampling filter grows with it
KAISER: Any = ("kaiser", 5.0)  # a pair is allowed; the type that scipy declares is too narrow
WIDEST_SQUARE = 4096  # that pictures are padded to; what is longer is shrunk before
PICTURES, RECORDINGS = "PNG, JPEG, GIF, WebP, BMP or TIFF", "WAV, FLAC, OGG or MP3"
UNKNOWN_FORMAT = 1  # of libsndfile's codes
BOMB_MEGAPIXELS = 178  # Pillow opens no more; its limit stays, since of an ICO it unpacks what is inside to open it
WAVE_HEAD_BYTES = 44
WAVE_UNKNOWN_BYTES = 0x7FFFF000  # writers that do not know the length declare this or more

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are checked here


def decode_picture(source: bytes | Path, max_megapixels: float = 25, name: str = "picture") -> np.ndarray:
    """Decode any picture Pillow reads, turned upright as EXIF says, first frame only.

    Transparency is laid on black; on white where what is opaque is dark, as ink is.
    Returns uint8 (height, width, channels), channels 1 for grey and 3 for RGB; 16-bit grey is scaled down.
    Raises UserError naming `name` where it cannot be decoded or has more than `max_megapixels`.
    """
    content = _bytes_of(source, name)
    if (stored := stored_picture(content, max_megapixels)) is not None:
        return stored
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > max_megapixels * 1e6:
                size = f"{picture.width} x {picture.height}"
                raise UserError(f"{name}: {size} pixels, expected at most {max_megapixels:g} megapixels")
            ImageOps.exif_transpose(picture, in_place=True)
            return _as_grey_or_rgb(picture, name)
    except UserError:
        raise
    except Image.DecompressionBombError as fault:
        most = min(max_megapixels, BOMB_MEGAPIXELS)
        raise UserError(f"{name}: over {BOMB_MEGAPIXELS} megapixels, expected at most {most:g} megapixels") from fault
    except Exception as fault:  # Pillow's decoders raise almost any type on damaged input
        reason = _reason(fault, not content, isinstance(fault, UnidentifiedImageError), PICTURES)
        raise UserError(f"{name}: cannot be decoded as a picture: {reason}") from fault


def decode_recording(
    source: bytes | Path, max_s: float | None = None, name: str = "recording"
) -> tuple[np.ndarray, int]:
    """Decode any recording libsndfile reads to the mean of its channels.

    Returns float32 (samples,), full scale at 1, and its rate in Hz.
    Raises UserError naming `name` where it cannot be decoded, is empty, cut short, longer than `max_s`, or not finite.
    """
    content = _bytes_of(source, name)
    if (stored := stored_recording(content)) is not None and (
        max_s is None or len(stored[0]) <= int(max_s * stored[1])
    ):
        return stored
    blocks: list[np.ndarray] = []
    samples = 0
    with _opened(io.BytesIO(content), name) as recording:
        rate_hz = recording.samplerate
        limit = inf if max_s is None else int(max_s * rate_hz)
        for block in _mono_blocks(recording, name):
            blocks.append(block)
            samples += len(block)
            if samples > limit:  # a small file may unpack to hours
                raise UserError(f"{name}: longer than the {max_s:g} s that are allowed")
    return np.concatenate(blocks), rate_hz


class RecordingFile:
    """A recording on disk in blocks of float32 (samples,), the mean of its channels; going through it reads it anew.

    rate_hz and samples are what the file declares. Raises UserError as `decode_recording`, and for what only reading
    shows (cut short, not finite) when that place is reached.
    """

    def __init__(self, file: Path, name: str | None = None):
        self.file, self.name = Path(file), name or str(file)
        with self._opened() as recording:
            self.rate_hz, self.samples = recording.samplerate, recording.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        with self._opened() as recording:
            yield from _mono_blocks(recording, self.name)

    @contextmanager
    def _opened(self) -> Iterator[soundfile.SoundFile]:
        try:
            stream = self.file.open("rb")
        except OSError as fault:
            raise UserError(f"{self.name}: cannot be read: {fault.strerror}") from None
        with stream, _opened(stream, self.name) as recording:
            yield recording


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


def stored_picture(content: bytes, max_megapixels: float = 25) -> np.ndarray | None:
    """The pixels, uint8 (height, width, 1 or 3), of a whole PNG as `encode_png` writes it; None for anything else.

    Six times faster than Pillow for small pictures, whose time goes into opening them.
    """
    if content[:16] != PNG_START or content[-12:] != PNG_END or len(content) < 57:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    body_bytes = len(content) - 57  # signature, IHDR and IEND, and the frame of one IDAT
    length, idat = struct.unpack_from(">I4s", content, 33)
    if kind not in ([8, 0, 0, 0, 0], [8, 2, 0, 0, 0]) or idat != b"IDAT" or length != body_bytes:
        return None
    if not 0 < width * height <= max_megapixels * 1e6 or not _sums_agree(content, 41 + length):
        return None
    channels = 3 if kind[1] else 1
    row_bytes = 1 + width * channels
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(content[41 : 41 + length], height * row_bytes + 1)
    except zlib.error:
        return None
    if len(rows) != height * row_bytes or not unpacker.eof or unpacker.unused_data:
        return None
    filtered = np.frombuffer(rows, np.uint8).reshape(height, row_bytes)
    if filtered[:, 0].any():
        return None
    return np.ascontiguousarray(filtered[:, 1:]).reshape(height, width, channels)


def stored_pictures(contents: Sequence[bytes], max_megapixels: float = 25) -> np.ndarray | None:
    """The pixels, uint8 (n, height, width, 1 or 3), of PNGs of one size as `encode_png` writes small ones; else None.

    What `stored_picture` finds of each, five times faster: all of the frame that does not depend on the pixels is
    compared with the first one's, and the pixels are cut out of all of them at once.
    """
    if not contents or (pixels := stored_picture(contents[0], max_megapixels)) is None:
        return None
    height, width, channels = pixels.shape
    row_bytes = 1 + width * channels
    start, end = PNG_PIXELS_AT, PNG_PIXELS_AT + height * row_bytes
    head, size = contents[0][:start], len(contents[0])
    if size != end + 8 + len(PNG_END) or head[-5:] != struct.pack("<BHH", 1, end - start, (end - start) ^ 0xFFFF):
        return None  # several blocks, or deflated
    for content in contents:
        if len(content) != size or content[:start] != head or not content.endswith(PNG_END):
            return None
        sums = struct.pack(">I", zlib.adler32(memoryview(content)[start:end]))
        sums += struct.pack(">I", zlib.crc32(sums, zlib.crc32(memoryview(content)[37:end])))
        if content[end : end + 8] != sums:
            return None
    rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, size)[:, start:end].reshape(-1, height, row_bytes)
    return None if rows[..., 0].any() else rows[..., 1:].reshape(-1, height, width, channels)


def stored_recording(content: bytes) -> tuple[np.ndarray, int] | None:
    """Samples, float32 (samples,), and rate in Hz of a whole WAV as `encode_wav` writes 16 bits; None for all else."""
    if len(content) <= 44 or content[8:16] != b"WAVEfmt " or content[36:40] != b"data":
        return None
    if content[:8] != struct.pack("<4sI", b"RIFF", len(content) - 8):
        return None
    size, code, channels, rate_hz, _, width, bits = struct.unpack_from("<IHHIIHH", content, 16)
    (sound_bytes,) = struct.unpack_from("<I", content, 40)
    if (size, code, channels, width, bits, sound_bytes) != (16, 1, 1, 2, 16, len(content) - 44) or sound_bytes % 2:
        return None
    if not 0 < rate_hz <= HIGHEST_RATE_HZ:
        return None
    return np.frombuffer(content, "<i2", offset=44).astype(np.float32) / np.float32(32768), rate_hz


def _sums_agree(content: bytes, idat_end: int) -> bool:
    """Whether the check sums of IHDR and of an IDAT that ends there are right."""
    header, body = (struct.unpack_from(">I", content, at)[0] for at in (29, idat_end))
    return header == zlib.crc32(content[12:29]) and body == zlib.crc32(content[37:idat_end])


def encode_wav(waveform: np.ndarray, rate_hz: int, subtype: str = "PCM_16") -> bytes:
    """Encode float (samples,), full scale at 1, as a mono WAV of subtype PCM_16 (clipped) or FLOAT."""
    return wav_header(len(waveform), rate_hz, subtype) + wav_samples(waveform, subtype)


def wav_header(samples: int, rate_hz: int, subtype: str) -> bytes:
    """What stands before the samples of a mono WAV; above 4 GB it is an RF64 (EBU Tech 3306)."""
    code, width = {"PCM_16": (1, 2), "FLOAT": (3, 4)}[subtype]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, 1, rate_hz, rate_hz * width, width, 8 * width)
    size = samples * width
    whole = 4 + len(form) + 8 + size
    if whole < 2**32:
        return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, whole + 36, size, samples, 0)
    unknown = 2**32 - 1
    return struct.pack("<4sI4s", b"RF64", unknown, b"WAVE") + sizes + form + struct.pack("<4sI", b"data", unknown)


def wav_samples(waveform: np.ndarray, subtype: str) -> bytes:
    """Float (samples,) as the samples of a WAV of that subtype."""
    return (to_int16(waveform).astype("<i2") if subtype == "PCM_16" else np.asarray(waveform, "<f4")).tobytes()


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


def resampling_step(from_hz: int, to_hz: int) -> tuple[int, int]:
    """How a recording may be resampled in parts: cut it at multiples of the first number of samples, and give every
    part the second number of samples of what lies around it, which is how far the filter reaches."""
    up, down = to_hz // gcd(from_hz, to_hz), from_hz // gcd(from_hz, to_hz)
    return down, 10 * max(up, down) // up + 1


def shrunk(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Pixels uint8 (h, w, c) whose longer side is at most `longest`, areas averaged; smaller ones as they are."""
    height, width, channels = pixels.shape
    if max(height, width) <= longest:
        return pixels
    size = [max(1, round(edge * longest / max(height, width))) for edge in (width, height)]
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(size, Image.Resampling.BOX)
    return np.asarray(picture).reshape(size[1], size[0], channels)


def resize_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pad uint8 (h, w, c) to a square with its border's median colour, then resize to (side, side, c).

    Shrinking averages areas; enlarging interpolates bilinearly.
    """
    pixels = shrunk(pixels, WIDEST_SQUARE)
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
        grey = picture.mode in ("LA", "La", "L", "1")
        picture = _laid_on_ground(picture.convert("RGBA")).convert("L" if grey else "RGB")
    wanted = "L" if picture.mode in ("1", "L") else "RGB"
    pixels = np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    return np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels)


def _laid_on_ground(transparent: Image.Image) -> Image.Image:
    """RGBA without transparency: on black, or on white where the mean of the pixels, weighted by alpha, is dark."""
    on_black = Image.alpha_composite(Image.new("RGBA", transparent.size, "black"), transparent)
    light, opaque = (np.asarray(part).mean() for part in (on_black.convert("L"), transparent.getchannel("A")))
    if 255 * light >= 128 * opaque:
        return on_black
    return Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)


def _sixteen_bit(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(f"{name}: holds grey values from {pixels.min()} to {pixels.max()}, expected 0 to 65535")
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)[..., None]


@contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    _require_whole_wave(stream, name)
    try:
        recording = soundfile.SoundFile(stream)
    except Exception as fault:  # soundfile raises its own types and, on damaged input, others
        empty, unknown = not stream.seek(0, io.SEEK_END), getattr(fault, "code", None) == UNKNOWN_FORMAT
        reason = _reason(fault, empty, unknown, RECORDINGS)
        raise UserError(f"{name}: cannot be decoded as a recording: {reason}") from fault
    with recording:
        if recording.samplerate > HIGHEST_RATE_HZ:
            raise UserError(f"{name}: {recording.samplerate} Hz, expected at most {HIGHEST_RATE_HZ} Hz")
        yield recording


def _mono_blocks(recording: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """The mean of the channels, float32 (samples,), checked."""
    samples = 0
    while len(block := _next_block(recording, name)):
        samples += len(block)
        if not np.isfinite(block).all():
            raise UserError(f"{name}: holds samples that are not finite numbers")
        yield block
    if samples < recording.frames:
        raise UserError(f"{name}: cut short: {recording.frames} samples declared, {samples} there")
    if not samples:
        raise UserError(f"{name}: holds no sound, expected at least one sample")


def _next_block(recording: soundfile.SoundFile, name: str) -> np.ndarray:
    try:
        block = recording.read(1 + BLOCK_SAMPLES // recording.channels, dtype="float32", always_2d=True)
    except Exception as fault:  # as above
        raise UserError(f"{name}: cannot be decoded as a recording: {_reason(fault)}") from fault
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _require_whole_wave(stream: BinaryIO, name: str) -> None:
    """Refuse a WAV whose data chunk declares more bytes than there are; libsndfile reads the rest without a word."""
    head, length = stream.read(12), stream.seek(0, io.SEEK_END)
    at = 12 if head[:4] == b"RIFF" and head[8:] == b"WAVE" else length
    while at + 8 <= length:
        stream.seek(at)
        kind, size = struct.unpack("<4sI", stream.read(8))
        there = length - at - 8
        if kind == b"data" and there < size < WAVE_UNKNOWN_BYTES:
            raise UserError(f"{name}: cut short: {size} bytes of sound declared, {there} there")
        at += 8 + size + size % 2
    stream.seek(0)


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


def _reason(fault: Exception, empty: bool = False, unknown: bool = False, expected: str = "") -> str:
    if empty or unknown:
        return f"{'it is empty' if empty else 'its format is not known'}; expected {expected}"
    said = re.sub(r"<\S+ (object at 0x[0-9a-f]+|name='.*?')>", "it", " ".join(str(fault).split()))
    return said or type(fault).__name__
