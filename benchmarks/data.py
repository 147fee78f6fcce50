"""From stored items to arrays a model can learn from: our shards beside a usual Dataset + DataLoader over files.

The same items, sizes and rates; the files lie in the page cache, and the loader's workers run already. The usual loop
decodes with Pillow and soundfile; a second one decodes as we do, which tells the decoders' share from the rest.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ml import datasets, media
from ml.config import Paths, UserError
from ml.datasets.prepare import BATCH_BYTES, BATCH_ROWS, pack_pictures, pack_recordings
from ml.sources.shards import Item, Listing, item_batches, write_shards

ITEMS, ROUNDS, LOADER_BATCH, LOADER_WORKERS = 20_000, 5, 128, 2
ORIENTATION = 0x0112  # EXIF


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, items a second, ratio to ours), each the median of ROUNDS alternating rounds and their spread."""
    images, speech = datasets.load_images(paths), datasets.load_speech(paths)
    side, channels, rate_hz = images.pixels.shape[1], images.pixels.shape[3], speech.sample_rate_hz
    with tempfile.TemporaryDirectory(prefix="seehear-") as scratch:
        stored = _Stored(Path(scratch), paths, "images", images.ids)
        _require_plain_pictures(stored.files)
        packed = partial(pack_pictures, side=side, channels=channels, about="bench")
        decoders = {"Pillow": _by_pillow, "our decoder": media.decode_picture}
        loaders = {
            name: DataLoader(_Files(stored.files, partial(_picture, decode, side, channels)), **USUAL)
            for name, decode in decoders.items()
        }
        yield from _rows("pictures", stored, packed, loaders)
        stored = _Stored(Path(scratch), paths, "audio", speech.ids)
        _require_plain_recordings(stored.files)
        packed = partial(pack_recordings, rate_hz=rate_hz, about="bench")
        decoders = {"soundfile": _by_soundfile, "our decoder": media.decode_recording}
        loaders = {
            name: DataLoader(_Files(stored.files, partial(_recording, decode, rate_hz)), **USUAL, collate_fn=list)
            for name, decode in decoders.items()
        }
        yield from _rows("sounds", stored, packed, loaders)


USUAL = {"batch_size": LOADER_BATCH, "num_workers": LOADER_WORKERS, "persistent_workers": True}


class _Stored:
    """Up to ITEMS accepted items of one modality, in shards as the project keeps them and one by one in files."""

    def __init__(self, scratch: Path, paths: Paths, modality: str, accepted: np.ndarray):
        self.paths, self.modality = Paths(scratch, paths.source), modality
        wanted = set(accepted[:ITEMS].tolist())
        rows = (
            row for _, batch in item_batches(paths, modality, ("id", "bytes", "label")) for row in batch.to_pylist()
        )
        items = [Item(row["id"], row["bytes"], row["label"]) for row in rows if row["id"] in wanted]
        write_shards(self.paths.raw(modality), paths.source, Listing(items, len(items), ""), len(items))
        self.files = [scratch / modality / str(number) for number in range(len(items))]
        self.files[0].parent.mkdir()
        for file, item in zip(self.files, items, strict=True):
            file.write_bytes(item.content)

    def batches(self) -> Iterator:
        for _, batch in item_batches(self.paths, self.modality, ("id", "bytes"), BATCH_ROWS, BATCH_BYTES):
            yield batch


def _require_plain_pictures(files: list[Path]) -> None:
    """Raises UserError where the usual loop would not make of a picture what we make of it."""
    for file in files:
        with Image.open(file) as picture:
            if picture.mode not in ("L", "RGB") or picture.getexif().get(ORIENTATION, 1) != 1:
                raise UserError(f"bench: a picture of mode {picture.mode}; expected grey or RGB, 8 bits, not turned")


def _require_plain_recordings(files: list[Path]) -> None:
    for file in files:
        if (kind := soundfile.info(file).subtype) in ("FLOAT", "DOUBLE"):
            raise UserError(f"bench: a recording of {kind} samples, which may go beyond full scale; expected integers")


class _Files(Dataset):
    def __init__(self, files: list[Path], transform: Callable[[Path], torch.Tensor]):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(self.files[row])


def _by_pillow(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _by_soundfile(file: Path) -> tuple[np.ndarray, int]:
    waveform, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    return waveform.mean(1), rate_hz


def _picture(decode: Callable[[Path], np.ndarray], side: int, channels: int, file: Path) -> torch.Tensor:
    pixels = media.resize_square(decode(file), side)
    return torch.from_numpy(np.repeat(pixels, channels // pixels.shape[2], axis=2))


def _recording(decode: Callable[[Path], tuple[np.ndarray, int]], rate_hz: int, file: Path) -> torch.Tensor:
    waveform, own_hz = decode(file)
    return torch.from_numpy(media.to_int16(media.resample(waveform, own_hz, rate_hz)))


def _rows(
    what: str, stored: _Stored, pack: Callable[..., object], loaders: dict[str, DataLoader]
) -> Iterator[tuple[str, str, str]]:
    place, items = stored.paths.root / f"{what}.npy", len(stored.files)
    ways: dict[str, Callable[[], object]] = {
        f"{what}, shards to a packed set (ours)": lambda: pack(place, stored.batches(), items),
        **{f"{what}, Dataset + DataLoader, {name}": partial(list, loader) for name, loader in loaders.items()},
    }
    taken_s = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):  # the first round only warms up
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken_s[name].append(time.perf_counter() - start)
    for loader in loaders.values():
        _require_equal(np.load(place), torch.cat([torch.as_tensor(part) for batch in loader for part in batch]).numpy())
    ours = statistics.median(next(iter(taken_s.values())))
    for name, taken in taken_s.items():
        rates = [items / one for one in taken]
        figure = f"{statistics.median(rates):.0f} ± {statistics.stdev(rates):.0f} items/s"
        yield name, figure, f"ours is {statistics.median(taken) / ours:.2f}x"


def _require_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    """What is compared has to be the same work."""
    if not np.array_equal(ours.ravel(), theirs.ravel()):
        raise UserError("bench: the packed set and the loader's batches differ, so their times cannot be compared")
