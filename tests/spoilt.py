"""Requests that cannot be served: files of thirty kinds that are no use, and good requests changed at random."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import soundfile
import tones
from PIL import Image
from served import form

from ml import media


def bad_files(seed: int = 0) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Thirty kinds of files that cannot be used, ten of each."""
    draw = random.Random(seed)
    picture, recording = tones.png("down"), tones.wav("down")
    flac, ogg = _encoded("FLAC"), _encoded("OGG")
    jpeg, gif = _drawn("JPEG"), _drawn("GIF")
    kinds: dict[str, Callable[[], dict[str, bytes]]] = {
        "an empty picture": lambda: {"image": b"", "audio": recording},
        "an empty recording": lambda: {"image": picture, "audio": b""},
        "noise as a picture": lambda: {"image": draw.randbytes(500), "audio": recording},
        "noise as a recording": lambda: {"image": picture, "audio": draw.randbytes(500)},
        "text as a picture": lambda: {"image": b"seven " * 9, "audio": recording},
        "text as a recording": lambda: {"image": picture, "audio": b"seven " * 9},
        "the two exchanged": lambda: {"image": recording, "audio": picture},
        "a PNG cut short": lambda: {"image": picture[: draw.randrange(8, 200)], "audio": recording},
        "a JPEG cut short": lambda: {"image": jpeg[: draw.randrange(4, len(jpeg) // 2)], "audio": recording},
        "a GIF cut short": lambda: {"image": gif[: draw.randrange(4, 20)], "audio": recording},
        "a WAV cut short": lambda: {"image": picture, "audio": recording[: draw.randrange(12, 9000)]},
        "a FLAC cut short": lambda: {"image": picture, "audio": flac[: draw.randrange(4, len(flac) // 2)]},
        "an OGG cut short": lambda: {"image": picture, "audio": ogg[: draw.randrange(4, 300)]},
        "a PNG's head alone": lambda: {"image": picture[:33], "audio": recording},
        "a WAV's head alone": lambda: {"image": picture, "audio": recording[:44]},
        "a WAV of no samples": lambda: {"image": picture, "audio": media.encode_wav(np.zeros(0, np.float32), 8000)},
        "a WAV of NaN": lambda: {"image": picture, "audio": _floats(np.nan)},
        "a WAV of infinities": lambda: {"image": picture, "audio": _floats(np.inf)},
        "a recording of 61 s": lambda: {"image": picture, "audio": _encoded("FLAC", 61)},
        "a recording of an hour": lambda: {"image": picture, "audio": _encoded("FLAC", 3600, rate_hz=1000)},
        "26 megapixels": lambda: {"image": _black(6500, 4000), "audio": recording},
        "100 megapixels": lambda: {"image": _black(10000, 10000), "audio": recording},
        "a PNG that claims 4 gigapixels": lambda: {"image": _claims(65535, 65535), "audio": recording},
        "a PNG of zero width": lambda: {"image": _claims(0, 9), "audio": recording},
        "a PDF": lambda: {"image": b"%PDF-1.7\n" + draw.randbytes(99), "audio": recording},
        "a ZIP": lambda: {"image": picture, "audio": b"PK\x03\x04" + draw.randbytes(99)},
        "an SVG": lambda: {"image": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "audio": recording},
        "a URL": lambda: {"image": b"http://127.0.0.1:1/x.png", "audio": b"file:///etc/passwd"},
        "zeros": lambda: {"image": bytes(draw.randrange(1, 9999)), "audio": bytes(9999)},
        "a PNG spoilt in the middle": lambda: {"image": _spoilt(_drawn("PNG"), draw), "audio": recording[:-1]},
    }
    assert len(kinds) == 30
    for name, make in kinds.items():
        for _ in range(10):
            yield name, make()


def _encoded(kind: str, seconds: float = 2.0, rate_hz: int = 8000) -> bytes:
    file = io.BytesIO()
    wave = np.resize(tones.recording("down"), int(seconds * rate_hz))
    soundfile.write(file, wave, rate_hz, format=kind)
    return file.getvalue()


def _floats(value: float) -> bytes:
    return media.encode_wav(np.full(800, value, np.float32), 8000, "FLOAT")


def _drawn(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def _black(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def _claims(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""
    picture = tones.png("down")
    head = b"IHDR" + struct.pack(">II", width, height) + picture[24:29]
    return picture[:12] + head + struct.pack(">I", zlib.crc32(head)) + picture[33:]


def _spoilt(file: bytes, draw: random.Random) -> bytes:
    at = len(file) // 2
    return file[:at] + draw.randbytes(40) + file[at + 40 :]


def mutated(draw: random.Random) -> tuple[str, bytes, str]:
    """A path, body and content type that began as a good request and were then changed at random."""
    path = draw.choice(["/extract", "/classify_image", "/recognize_speech", "/feedback"])
    body, kind = form(image=tones.png("down"), audio=tones.wav("down", seconds=0.6))
    if path == "/feedback":
        correction = {"request_id": "0" * 32, "pictured": "down", "heard": None, "consent": True}
        body, kind = json.dumps(correction).encode(), "application/json"
    spoilt = bytearray(body)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(spoilt)) if draw.random() < 0.5 else draw.randrange(min(200, len(spoilt)))
        match draw.randrange(5):
            case 0:
                spoilt[at] = draw.randrange(256)
            case 1:
                del spoilt[at : at + draw.randint(1, 40)]
            case 2:
                spoilt[at:at] = draw.randbytes(draw.randint(1, 40))
            case 3:
                spoilt[at:at] = spoilt[at : at + draw.randint(1, 200)]
            case 4:
                spoilt[at : at + 4] = draw.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\r\n\r\n", b"null", b'":{"'])
        if len(spoilt) < 2:
            break
    if draw.random() < 0.1:
        kind = draw.choice(["", "multipart/form-data", kind[:-1], "application/json", "multipart/form-data; boundary="])
    return path, bytes(spoilt), kind
