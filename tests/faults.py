"""Faults of pictures and recordings, injected into real encoded items: what the checks have to find.

Every fault is a function of an item and a generator; the same seed gives the same faults. `python tests/faults.py`
prints how many of each kind the checks find in a source (`tests/test_faults.py` asserts it).
"""

from __future__ import annotations

import dataclasses
import io
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import resample_poly

from data_checks.expectations import SUITES, tables, validation
from data_checks.facts import measure_shards
from ml import media
from ml.config import Paths, project_root
from ml.sources.shards import Item, Listing, write_shards

Rng = np.random.Generator


@dataclass(frozen=True)
class Fault:
    """One kind of fault. certain: every instance has to be found, not nearly all. beside: the faulty item stands beside
    the one it was made of, which is then as suspect; else it takes its place."""

    name: str
    inject: Callable[[Item, Rng], Item]
    certain: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Spoilt:
    """items: with the faults among them. kinds: id of a faulty item → kind. pairs: its id → id of its original."""

    items: list[Item]
    kinds: dict[str, str]
    pairs: dict[str, str]


def spoil(items: Sequence[Item], faults: Iterable[Fault], instances: int, seed: int) -> Spoilt:
    """Inject so many instances of each fault, each into another item; ids of faulty items say what they are."""
    order = np.random.default_rng(seed).permutation(len(items))
    faulty: dict[int, list[Item]] = {}
    kinds, pairs = {}, {}
    places = iter(order.tolist())
    for kind, fault in enumerate(faults):
        for number in range(instances):
            place = next(places)
            original = items[place]
            name = f"{fault.name}-{number:02d}"
            bad = fault.inject(original, np.random.default_rng([seed, kind, number]))
            kinds[name] = fault.name
            if fault.beside:
                pairs[name] = original.id
            faulty[place] = [*([original] if fault.beside else []), dataclasses.replace(bad, id=name)]
    mixed = [item for place, own in enumerate(items) for item in faulty.get(place, [own])]
    return Spoilt(mixed, kinds, pairs)


def _bytes(change: Callable[[bytes, Rng], bytes]) -> Callable[[Item, Rng], Item]:
    return lambda item, rng: dataclasses.replace(item, content=change(item.content, rng))


def _pixels(change: Callable[[np.ndarray, Rng], np.ndarray]) -> Callable[[Item, Rng], Item]:
    """Of a change of the grey levels or colours, float (h, w, c) from 0 to 255."""

    def inject(content: bytes, rng: Rng) -> bytes:
        changed = change(media.decode_picture(content).astype(float), rng)
        return media.encode_png(np.clip(np.rint(changed), 0, 255).astype(np.uint8))

    return _bytes(inject)


def _wave(change: Callable[[np.ndarray, int, Rng], np.ndarray]) -> Callable[[Item, Rng], Item]:
    """Of a change of the samples, float64 (samples,), that keeps the rate; what lies beyond full scale is clipped."""

    def inject(content: bytes, rng: Rng) -> bytes:
        waveform, rate_hz = media.decode_recording(content)
        return media.encode_wav(change(waveform.astype(np.float64), rate_hz, rng), rate_hz)

    return _bytes(inject)


# Either modality


def _empty(_: bytes, __: Rng) -> bytes:
    return b""


def _cut_off(content: bytes, rng: Rng) -> bytes:
    return content[: int(len(content) * rng.uniform(0.1, 0.95))]


def _last_bytes_missing(content: bytes, rng: Rng) -> bytes:
    return content[: -int(rng.integers(2, 12))]


def _text(_: bytes, rng: Rng) -> bytes:
    return f"This is not what its name says, number {rng.integers(10**6)}.\n".encode()


def _same(content: bytes, _: Rng) -> bytes:
    return content


def _joined(content: bytes, rng: Rng) -> bytes:
    return content + rng.bytes(int(rng.integers(100, 2000)))


def _other_label(item: Item, _: Rng) -> Item:
    return dataclasses.replace(item, label={"0": "1"}.get(item.label, "0"))


# Pictures


def _flipped_bytes(content: bytes, rng: Rng) -> bytes:
    """One to eight bytes in the middle half changed."""
    spoilt = bytearray(content)
    for place in rng.choice(len(content) // 2, int(rng.integers(1, 9)), replace=False):
        spoilt[len(content) // 4 + place] ^= int(rng.integers(1, 256))
    return bytes(spoilt)


def _encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, form, **options)
    return stream.getvalue()


def _jpeg_cut_off(content: bytes, rng: Rng) -> bytes:
    jpeg = _encoded(media.decode_picture(content), "JPEG", quality=90)
    return jpeg[: int(len(jpeg) * rng.uniform(0.3, 0.98))]


def _jpeg_overwritten(content: bytes, rng: Rng) -> bytes:
    """Half or more of its codes replaced by other bytes, as when blocks of a disk are lost."""
    jpeg = _encoded(media.decode_picture(content), "JPEG", quality=90)
    scan = jpeg.rindex(b"\xff\xda")
    start = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    codes = len(jpeg) - 2 - start
    lost = int(codes * rng.uniform(0.5, 0.8))
    at = start + int(rng.integers(codes - lost))
    return jpeg[:at] + rng.bytes(lost) + jpeg[at + lost :]


def _encoded_otherwise(content: bytes, rng: Rng) -> bytes:
    form = ("BMP", "TIFF", "PNG", "GIF")[rng.integers(4)]
    return _encoded(media.decode_picture(content), form)


def _resized(content: bytes, rng: Rng) -> bytes:
    pixels = media.decode_picture(content)
    height, width = (round(side * rng.uniform(1.4, 2.5)) for _ in range(1) for side in pixels.shape[:2])
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    larger = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return media.encode_png(larger.reshape(height, width, -1))


def _jpeg_50(content: bytes, _: Rng) -> bytes:
    return _encoded(media.decode_picture(content), "JPEG", quality=50)


def _blank(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return np.full_like(pixels, rng.integers(256))


def _dark(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return pixels * rng.uniform(0.03, 0.12)


def _overexposed(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return pixels * rng.uniform(1.5, 3) + rng.uniform(130, 170)


def _pale(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return pixels * rng.uniform(0.08, 0.2) + rng.uniform(40, 150)


def _blurred(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return gaussian_filter(pixels, (*[rng.uniform(0.1, 0.16) * min(pixels.shape[:2])] * 2, 0))


def _noise(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    if rng.random() < 0.5:
        return rng.uniform(0, 256, pixels.shape)
    return rng.normal(rng.uniform(90, 160), rng.uniform(30, 60), pixels.shape)


def _four_pixels(pixels: np.ndarray, _: Rng) -> np.ndarray:
    height, width = pixels.shape[:2]
    return pixels[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]


def _stretched(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return np.repeat(pixels, rng.integers(6, 13), axis=int(rng.integers(2)))


def bomb(rng: Rng) -> bytes:
    """A small PNG, every check sum right, that unpacks to gigabytes."""
    side = int(rng.integers(30_000, 60_000))
    body = zlib.compress(bytes(100_000))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )


PICTURES = (
    Fault("empty_file", _bytes(_empty), certain=True),
    Fault("cut_off", _bytes(_cut_off), certain=True),
    Fault("last_bytes_missing", _bytes(_last_bytes_missing), certain=True),
    Fault("jpeg_cut_off", _bytes(_jpeg_cut_off), certain=True),
    Fault("jpeg_overwritten", _bytes(_jpeg_overwritten)),
    Fault("flipped_bytes", _bytes(_flipped_bytes), certain=True),
    Fault("text_named_png", _bytes(_text), certain=True),
    Fault("decompression_bomb", _bytes(lambda _, rng: bomb(rng)), certain=True),
    Fault("joined_files", _bytes(_joined), certain=True),
    Fault("exact_copy", _bytes(_same), certain=True, beside=True),
    Fault("encoded_otherwise", _bytes(_encoded_otherwise), certain=True, beside=True),
    Fault("two_labels", _other_label, beside=True),
    Fault("near_copy_resized", _bytes(_resized), beside=True),
    Fault("near_copy_jpeg_50", _bytes(_jpeg_50), beside=True),
    Fault("blank", _pixels(_blank)),
    Fault("too_dark", _pixels(_dark)),
    Fault("overexposed", _pixels(_overexposed)),
    Fault("low_contrast", _pixels(_pale)),
    Fault("blurred", _pixels(_blurred)),
    Fault("noise_only", _pixels(_noise)),
    Fault("four_pixels", _pixels(_four_pixels)),
    Fault("extreme_aspect", _pixels(_stretched)),
)


# Recordings


def _with_rate(content: bytes, rate_hz: int) -> bytes:
    waveform, _ = media.decode_recording(content)
    return media.encode_wav(waveform, rate_hz)


def _doubled_rate_in_header(content: bytes, _: Rng) -> bytes:
    return _with_rate(content, 2 * media.decode_recording(content)[1])


def _halved_rate_in_header(content: bytes, _: Rng) -> bytes:
    """Twice the samples a second that the header tells: slow and low when played."""
    waveform, rate_hz = media.decode_recording(content)
    return media.encode_wav(_kept_within(resample_poly(waveform.astype(float), 2, 1)), rate_hz)


def _other_rate(content: bytes, rng: Rng) -> bytes:
    waveform, rate_hz = media.decode_recording(content)
    other_hz = int(rng.choice([hz for hz in (11_025, 16_000, 22_050, 44_100) if hz != rate_hz]))
    return media.encode_wav(_kept_within(media.resample(waveform, rate_hz, other_hz)), other_hz)


def _kept_within(waveform: np.ndarray) -> np.ndarray:
    """Turned down where it would clip."""
    return waveform / max(float(np.abs(waveform).max()) * 1.001, 1.0)


def _upsampled(waveform: np.ndarray, _: int, __: Rng) -> np.ndarray:
    """As if recorded at half the rate."""
    half = resample_poly(waveform, 1, 2)
    return _kept_within(resample_poly(half, 2, 1)[: len(waveform)])


def _declares_4_gb(content: bytes, rng: Rng) -> bytes:
    """RIFF and data chunk that promise four gigabytes."""
    size = int(rng.choice([0xFFFFFFFF, 0xFFFFFFF0, 0xFFFF0000, 0xFFFFFFDB]))
    at = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", size) + content[8:at] + struct.pack("<I", size) + content[at + 4 :]


def _damaged_header(content: bytes, rng: Rng) -> bytes:
    """Four to twelve bytes of the first 44 changed."""
    spoilt = bytearray(content)
    for place in rng.choice(44, int(rng.integers(4, 13)), replace=False):
        spoilt[place] ^= int(rng.integers(1, 256))
    return bytes(spoilt)


def _not_finite(content: bytes, rng: Rng) -> bytes:
    waveform, rate_hz = media.decode_recording(content)
    spoilt = waveform.copy()
    spoilt[rng.integers(len(spoilt))] = rng.choice([np.nan, np.inf])
    return media.encode_wav(spoilt, rate_hz, "FLOAT")


def _clipped(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    limit = np.abs(waveform).max() * rng.uniform(0.15, 0.35)
    return np.clip(waveform, -limit, limit)


def _silence(waveform: np.ndarray, _: int, __: Rng) -> np.ndarray:
    return np.zeros_like(waveform)


def _level(waveform: np.ndarray, level_db: float) -> np.ndarray:
    return waveform / np.sqrt(np.mean(waveform**2)) * 10 ** (level_db / 20)


def _near_silence(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    return rng.normal(0, 1e-4, len(waveform))  # -80 dB


def _too_quiet(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    return _level(waveform, rng.uniform(-68, -63))


def _too_loud(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    return waveform / np.abs(waveform).max() * 10 ** (rng.uniform(8, 20) / 20)


def _offset(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    return _kept_within(waveform + rng.choice([-1, 1]) * rng.uniform(0.08, 0.3))


def _noisy(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    noise = rng.normal(0, np.sqrt(np.mean(waveform**2)), len(waveform))  # 0 dB
    return _kept_within(waveform + noise)


def _ten_ms(waveform: np.ndarray, rate_hz: int, rng: Rng) -> np.ndarray:
    start = rng.integers(len(waveform) // 2)
    return waveform[start : start + rate_hz // 100]


def _two_minutes(waveform: np.ndarray, rate_hz: int, _: Rng) -> np.ndarray:
    return np.tile(waveform, -(-120 * rate_hz // len(waveform)))[: 120 * rate_hz]


def _file(waveform: np.ndarray, rate_hz: int, form: str = "WAV") -> bytes:
    """Encoded by libsndfile: (samples,) or (samples, channels)."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate_hz, format=form)
    return stream.getvalue()


def _dead_channel(content: bytes, rng: Rng) -> bytes:
    waveform, rate_hz = media.decode_recording(content)
    dead = rng.choice([0, 1 / 32768]) * rng.choice([-1, 0, 1], len(waveform))
    channels = (waveform, dead) if rng.random() < 0.5 else (dead, waveform)
    return _file(np.stack(channels, axis=1), rate_hz)


def _inverted_channel(content: bytes, rng: Rng) -> bytes:
    waveform, rate_hz = media.decode_recording(content)
    return _file(np.stack([waveform, -rng.uniform(0.7, 1) * waveform], axis=1), rate_hz)


def _six_db(waveform: np.ndarray, _: int, rng: Rng) -> np.ndarray:
    louder = np.abs(waveform).max() < 0.5 and rng.random() < 0.5
    return waveform * (2 if louder else 0.5)


def _shifted(waveform: np.ndarray, rate_hz: int, rng: Rng) -> np.ndarray:
    """50 ms later; what comes before is silence."""
    return np.concatenate([np.zeros(rate_hz // 20), waveform, np.zeros(rng.integers(rate_hz // 20))])


def _through(form: str) -> Callable[[bytes, Rng], bytes]:
    def inject(content: bytes, _: Rng) -> bytes:
        waveform, rate_hz = media.decode_recording(content)
        return _file(waveform, rate_hz, form)

    return inject


RECORDINGS = (
    Fault("empty_file", _bytes(_empty), certain=True),
    Fault("cut_off", _bytes(_cut_off), certain=True),
    Fault("last_bytes_missing", _bytes(_last_bytes_missing), certain=True),
    Fault("text_named_wav", _bytes(_text), certain=True),
    Fault("declares_4_gb", _bytes(_declares_4_gb), certain=True),
    Fault("damaged_header", _bytes(_damaged_header), certain=True),
    Fault("joined_files", _bytes(_joined), certain=True),
    Fault("not_finite", _bytes(_not_finite), certain=True),
    Fault("header_rate_doubled", _bytes(_doubled_rate_in_header), certain=True),
    Fault("header_rate_halved", _bytes(_halved_rate_in_header), certain=True),
    Fault("other_rate", _bytes(_other_rate), certain=True),
    Fault("exact_copy", _bytes(_same), certain=True, beside=True),
    Fault("two_labels", _other_label, beside=True),
    Fault("near_copy_6_db", _wave(_six_db), beside=True),
    Fault("near_copy_shifted_50_ms", _wave(_shifted), beside=True),
    Fault("near_copy_mp3", _bytes(_through("MP3")), beside=True),
    Fault("near_copy_ogg", _bytes(_through("OGG")), beside=True),
    Fault("upsampled", _wave(_upsampled)),
    Fault("clipped", _wave(_clipped)),
    Fault("digital_silence", _wave(_silence)),
    Fault("near_silence", _wave(_near_silence)),
    Fault("dc_offset", _wave(_offset)),
    Fault("noise_0_db", _wave(_noisy)),
    Fault("too_quiet", _wave(_too_quiet)),
    Fault("too_loud", _wave(_too_loud)),
    Fault("dead_channel", _bytes(_dead_channel)),
    Fault("inverted_channel", _bytes(_inverted_channel)),
    Fault("ten_ms", _wave(_ten_ms)),
    Fault("two_minutes", _wave(_two_minutes)),
)
FAULTS = {"images": PICTURES, "audio": RECORDINGS}


# What the checks find


def findings(root: Path, modality: str, items: Sequence[Item]) -> dict[str, set[str]]:
    """What the checks say of each item that they flag at all, error or warning: id → names of expectations.

    The whole way: shards, facts, Great Expectations; under `root`.
    """
    paths = Paths(root, "folder")
    write_shards(paths.raw(modality), paths.source, Listing(items, len(items), "for tests"), len(items))
    measure_shards(paths.raw(modality), modality, paths.facts(modality))
    table = tables.items_table(paths, modality)
    by_item = [expectation for expectation in SUITES[modality] if expectation.row_level]
    with validation._Project(paths, modality) as project:
        judged = project.judge("items", by_item, table, 1.0)
    said: dict[str, set[str]] = {}
    for name, one in judged.items():
        if "could not be judged" in one.result.reason:
            raise AssertionError(one.result.reason)
        for row in one.failing.tolist():
            said.setdefault(items[row].id, set()).add(name)
    return said


@dataclass(frozen=True)
class Score:
    """found: kind → how many of its instances were flagged. missed: their ids. clean_flagged: share of clean items.

    A copy is found where it or its original is flagged. by_clean: which expectations flagged clean items, how often.
    """

    found: dict[str, int]
    missed: list[str]
    clean_flagged: float
    by_clean: Counter[str]


def score(spoilt: Spoilt, said: dict[str, set[str]]) -> Score:
    found = dict.fromkeys(spoilt.kinds.values(), 0)
    missed = [name for name in spoilt.kinds if not {name, spoilt.pairs.get(name, name)} & said.keys()]
    for name in spoilt.kinds.keys() - set(missed):
        found[spoilt.kinds[name]] += 1
    touched = spoilt.kinds.keys() | set(spoilt.pairs.values())
    clean = [item.id for item in spoilt.items if item.id not in touched]
    flagged = [name for name in clean if name in said]
    by_clean = Counter(expectation for name in flagged for expectation in said[name])
    return Score(found, sorted(missed), len(flagged) / len(clean), by_clean)


def items_of(folder: Path) -> list[Item]:
    """The items of the raw shards in a folder."""
    columns = ["id", "bytes", "label", "split", "group"]
    return [
        Item(row["id"], row["bytes"], row["label"], row["split"], row["group"])
        for shard in sorted(folder.glob("*.parquet"))
        for row in pq.read_table(shard, columns=columns).to_pylist()
    ]


def main(arguments: Sequence[str]) -> int:
    """`python tests/faults.py [SOURCE [SEED]]`: the table of what is found of twenty instances of every kind."""
    source, seed = (*arguments, *("starter", "0")[len(arguments) :])
    for modality, faults in FAULTS.items():
        spoilt = spoil(items_of(Paths(project_root(), source).raw(modality)), faults, 20, int(seed))
        with tempfile.TemporaryDirectory() as folder:
            result = score(spoilt, findings(Path(folder), modality, spoilt.items))
        print(f"| {source} {modality} | found of 20 |\n|---|---|")
        for kind, found in result.found.items():
            print(f"| {kind.replace('_', ' ')} | {found} |")
        print(f"clean items flagged: {100 * result.clean_flagged:.2f} %, {dict(result.by_clean)}")
        print(f"missed: {', '.join(result.missed) or 'none'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
