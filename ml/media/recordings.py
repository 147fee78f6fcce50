"""The one place where recordings are decoded, encoded and resampled."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import gcd, inf
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from ml.config import UserError
from ml.media.inputs import bytes_of, reason_of

FORMATS = "WAV, FLAC, OGG or MP3"
BLOCK_SAMPLES = 1 << 16  # of all channels together
CANCELLED = 1e-4  # of the power of the channels: what their mean has left where one is the other upside down
HIGHEST_RATE_HZ = 384_000  # a header may declare any number, and the resampling filter grows with it
MOST_STEPS = 50_000  # of two rates without what they share: a filter for so many is made in 0.2 s
KAISER: Any = ("kaiser", 5.0)  # a pair is allowed; the type that scipy declares is too narrow
UNKNOWN_FORMAT = 1  # of libsndfile's codes
WAVE_HEAD_BYTES = 44
WAVE_UNKNOWN_BYTES = 0x7FFFF000  # writers that do not know the length declare this or more
MOST_CHUNKS = 10_000  # that are looked at
NEVER_TOLD = (8).to_bytes(4, "little")  # the length of a RIFF before its writer has ended it
UNSAID_SIZE = 2**32 - 1  # of an RF64's sound; its ds64 chunk has it
CHUNKED = {  # by what a file begins with: the byte order, and the chunk that holds the sound
    (b"RIFF", b"WAVE"): ("<", b"data"),
    (b"RF64", b"WAVE"): ("<", b"data"),
    (b"FORM", b"AIFF"): (">", b"SSND"),
    (b"FORM", b"AIFC"): (">", b"SSND"),
}


def decode_recording(
    source: bytes | Path, max_s: float | None = None, name: str = "recording", heard: bool = False
) -> tuple[np.ndarray, int]:
    """Decode any recording libsndfile reads to the mean of its channels.

    Returns float32 (samples,), full scale at 1, and its rate in Hz.
    Raises UserError naming `name` where it cannot be decoded, is empty, longer than `max_s`, not finite, or cut short,
    which WAV, AIFF, CAF, FLAC, MP3 and Ogg Vorbis show; of other formats what is there is taken for the whole.
    heard: it is to be listened to, so that channels which cancel each other are refused as well.
    """
    content = bytes_of(source, name)
    if (stored := stored_recording(content)) is not None and (
        max_s is None or len(stored[0]) <= int(max_s * stored[1])
    ):
        return stored
    blocks: list[np.ndarray] = []
    samples = 0
    with _opened(io.BytesIO(content), name) as recording:
        rate_hz = recording.samplerate
        limit = inf if max_s is None else int(max_s * rate_hz)
        for block in _mono_blocks(recording, name, heard):
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
            yield from _mono_blocks(recording, self.name, heard=True)

    @contextmanager
    def _opened(self) -> Iterator[soundfile.SoundFile]:
        try:
            stream = self.file.open("rb", buffering=0)
        except OSError as fault:
            raise UserError(f"{self.name}: cannot be read: {fault.strerror}") from None
        with stream, _opened(stream, self.name) as recording:
            yield recording


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


def stored_recording(content: bytes) -> tuple[np.ndarray, int] | None:
    """Samples, float32 (samples,), and rate in Hz of a whole WAV as `encode_wav` writes 16 bits; None for all else."""
    if len(content) <= WAVE_HEAD_BYTES or content[8:16] != b"WAVEfmt " or content[36:40] != b"data":
        return None
    if content[:8] != struct.pack("<4sI", b"RIFF", len(content) - 8):
        return None
    size, code, channels, rate_hz, _, width, bits = struct.unpack_from("<IHHIIHH", content, 16)
    (sound_bytes,) = struct.unpack_from("<I", content, 40)
    if (size, code, channels, width, bits) != (16, 1, 1, 2, 16):
        return None
    if sound_bytes != len(content) - WAVE_HEAD_BYTES or sound_bytes % 2:
        return None
    if not rate_hz or not _is_common(rate_hz):
        return None
    return np.frombuffer(content, "<i2", offset=WAVE_HEAD_BYTES).astype(np.float32) / np.float32(32768), rate_hz


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round float samples, full scale at 1, to int16; what lies beyond full scale is clipped."""
    return np.clip(np.rint(np.asarray(waveform, np.float64) * 32768), -32768, 32767).astype(np.int16)


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample float (samples,) by a polyphase filter, computed in float64.

    Returns float32 (ceil(samples * to_hz / from_hz),). Raises UserError where high rates share next to no factor.
    """
    if from_hz == to_hz:
        return np.asarray(waveform, np.float32)
    up, down = to_hz // gcd(from_hz, to_hz), from_hz // gcd(from_hz, to_hz)
    if max(up, down) > MOST_STEPS:
        raise UserError(f"recording: {max(from_hz, to_hz)} Hz, expected a common sample rate")
    from scipy.signal import resample_poly  # a second to import, and most who decode never resample

    return resample_poly(np.asarray(waveform, np.float64), up, down, window=_lowpass(max(up, down))).astype(np.float32)


def resampling_step(from_hz: int, to_hz: int) -> tuple[int, int]:
    """How a recording may be resampled in parts: cut it at multiples of the first number of samples, and give every
    part the second number of samples of what lies around it, which is how far the filter reaches."""
    up, down = to_hz // gcd(from_hz, to_hz), from_hz // gcd(from_hz, to_hz)
    return down, 10 * max(up, down) // up + 1


@contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    _require_whole_wave(stream, name)
    # a file goes by its descriptor: what is raised in a callback, such as a signal's exception, would be lost
    handle = stream if isinstance(stream, io.BytesIO) else stream.fileno()
    try:
        recording = soundfile.SoundFile(handle, closefd=False)
    except Exception as fault:  # soundfile raises its own types and, on damaged input, others
        empty, unknown = not stream.seek(0, io.SEEK_END), getattr(fault, "code", None) == UNKNOWN_FORMAT
        reason = reason_of(fault, empty, unknown, FORMATS)
        raise UserError(f"{name}: cannot be decoded as a recording: {reason}") from fault
    with recording:
        if not _is_common(rate_hz := recording.samplerate):
            raise UserError(f"{name}: {rate_hz} Hz, expected a common sample rate of at most {HIGHEST_RATE_HZ} Hz")
        yield recording


def _is_common(rate_hz: int) -> bool:
    """Whether a recording's rate can be brought to a model's without a filter of megabytes."""
    return rate_hz <= MOST_STEPS or (rate_hz <= HIGHEST_RATE_HZ and rate_hz % 100 == 0)


def _mono_blocks(recording: soundfile.SoundFile, name: str, heard: bool) -> Iterator[np.ndarray]:
    """The mean of the channels, float32 (samples,), checked."""
    samples, of_channels, of_mean = 0, 0.0, 0.0  # the latter two are powers
    while len(channels := _next_block(recording, name)):
        samples += len(channels)
        block = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
        if not np.isfinite(block).all():
            raise UserError(f"{name}: holds samples that are not finite numbers")
        if heard and channels.shape[1] > 1:
            of_channels += float(np.square(channels, dtype=np.float64).mean(axis=1).sum())
            of_mean += float(np.square(block, dtype=np.float64).sum())
        yield block
    if of_mean < CANCELLED * of_channels:
        raise UserError(f"{name}: its channels cancel each other, one is the other upside down; expected one of them")
    if samples < recording.frames:
        raise UserError(f"{name}: cut short: {recording.frames} samples declared, {samples} there")
    if not samples:
        raise UserError(f"{name}: holds no sound, expected at least one sample")


def _next_block(recording: soundfile.SoundFile, name: str) -> np.ndarray:
    """float32 (samples, channels)."""
    try:
        block = recording.read(1 + BLOCK_SAMPLES // recording.channels, dtype="float32", always_2d=True)
    except Exception as fault:  # as above
        raise UserError(f"{name}: cannot be decoded as a recording: {reason_of(fault)}") from fault
    return block


def _require_whole_wave(stream: BinaryIO, name: str) -> None:
    """Refuse a WAV, RF64 or AIFF that declares more bytes of sound than there are, or was never told how many it has;
    libsndfile reads what is there, or what is declared, without a word."""
    head, length = stream.read(12), stream.seek(0, io.SEEK_END)
    order, chunk = CHUNKED.get((head[:4], head[8:]), ("", b""))
    begin, sound = _sound_of(stream, order, chunk, length) if order else (0, None)
    if sound is not None and not (sound == 0 and head[4:8] == NEVER_TOLD):  # libsndfile reads its own unfinished files
        there = length - begin
        if there < sound:
            raise UserError(f"{name}: cut short: {sound} bytes of sound declared, {there} there")
        if (there > 2 * sound or length > UNSAID_SIZE) and _goes_on(stream, begin + sound, sound):
            raise UserError(
                f"{name}: its header declares {sound} bytes of sound, {there} are there; expected it saved anew"
            )
    stream.seek(0)


def _sound_of(stream: BinaryIO, order: str, chunk: bytes, length: int) -> tuple[int, int | None]:
    """Where the sound begins and its bytes as declared; None where nothing or no number is declared."""
    at, long_size = 12, 0
    for _ in range(MOST_CHUNKS):
        if at + 8 > length:
            break
        stream.seek(at)
        kind, size = struct.unpack(f"{order}4sI", stream.read(8))
        if kind == b"ds64" and length - at >= 24:
            (long_size,) = struct.unpack("<8xQ", stream.read(16))
        if kind == chunk:
            size = long_size if size == UNSAID_SIZE and long_size else size
            return at + 8, size if long_size or size < WAVE_UNKNOWN_BYTES else None
        at += 8 + size + size % 2
    return 0, None


def _goes_on(stream: BinaryIO, end: int, sound: int) -> bool:
    """Whether what follows the declared sound looks like more of it: neither a chunk, padded or not, nor zeros."""
    stream.seek(end)
    after = stream.read(5)
    heads = [after[pad : pad + 4] for pad in range(1 + sound % 2)]
    chunks = [head.isascii() and head.decode("ascii").isprintable() for head in heads]
    return len(after) >= 4 and not any(chunks) and (sound == 0 or any(after[:4]))


@lru_cache(maxsize=2)  # for a rate of many thousands that share no factor it has megabytes
def _lowpass(factor: int) -> np.ndarray:
    """scipy.signal.resample_poly's own default filter, designed once per pair of rates."""
    from scipy.signal import firwin

    return np.asarray(firwin(20 * factor + 1, 1 / factor, window=KAISER))
