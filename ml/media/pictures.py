"""The one place where pictures are decoded, encoded and resized."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ml.config import UserError
from ml.media.inputs import bytes_of, reason_of

FORMATS = "PNG, JPEG, GIF, WebP, BMP or TIFF"
STORED_BLOCK_BYTES = 65535
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_PIXELS_AT = 48  # where one stored block is enough
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
WIDEST_SQUARE = 4096  # that pictures are padded to; what is longer is shrunk before
BOMB_MEGAPIXELS = 178  # Pillow opens no more; its limit stays, since of an ICO it unpacks what is inside to open it


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are checked here
warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # such a picture is taken as it lies


def decode_picture(source: bytes | Path, max_megapixels: float = 25, name: str = "picture") -> np.ndarray:
    """Decode any picture Pillow reads but EPS, which is a program; turned upright as EXIF says, first frame only.

    Transparency is laid on black; on white where what is opaque is dark, as ink is.
    Returns uint8 (height, width, channels), channels 1 for grey and 3 for RGB; 16-bit grey is scaled down.
    Raises UserError naming `name` where it cannot be decoded or has more than `max_megapixels`.
    """
    content = bytes_of(source, name)
    if (stored := stored_picture(content, max_megapixels)) is not None:
        return stored
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > max_megapixels * 1e6:
                size = f"{picture.width} x {picture.height}"
                raise UserError(f"{name}: {size} pixels, expected at most {max_megapixels:g} megapixels")
            if picture.format == "EPS":
                raise UserError(f"{name}: EPS is a program, not a picture; expected {FORMATS}")
            with contextlib.suppress(SyntaxError):  # an EXIF block that is none says nothing of how it was held
                ImageOps.exif_transpose(picture, in_place=True)
            return _as_grey_or_rgb(picture, name)
    except UserError:
        raise
    except Image.DecompressionBombError as fault:
        most = min(max_megapixels, BOMB_MEGAPIXELS)
        raise UserError(f"{name}: over {BOMB_MEGAPIXELS} megapixels, expected at most {most:g} megapixels") from fault
    except Exception as fault:  # Pillow's decoders raise almost any type on damaged input
        reason = reason_of(fault, not content, isinstance(fault, UnidentifiedImageError), FORMATS)
        raise UserError(f"{name}: cannot be decoded as a picture: {reason}") from fault


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


def grey(pixels: np.ndarray) -> np.ndarray:
    """The luminance (h, w, 1) of RGB pixels uint8 (h, w, 3) by ITU-R BT.601."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


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


def _sums_agree(content: bytes, idat_end: int) -> bool:
    """Whether the check sums of IHDR and of an IDAT that ends there are right."""
    header, body = (struct.unpack_from(">I", content, at)[0] for at in (29, idat_end))
    return header == zlib.crc32(content[12:29]) and body == zlib.crc32(content[37:idat_end])


def _stored(body: bytes) -> bytes:
    """A zlib stream of stored blocks."""
    starts = range(0, max(len(body), 1), STORED_BLOCK_BYTES)
    blocks = [body[at : at + STORED_BLOCK_BYTES] for at in starts]
    framed = b"".join(
        struct.pack("<BHH", at == starts[-1], len(block), len(block) ^ 0xFFFF) + block
        for at, block in zip(starts, blocks, strict=True)
    )
    return b"\x78\x01" + framed + struct.pack(">I", zlib.adler32(body))
