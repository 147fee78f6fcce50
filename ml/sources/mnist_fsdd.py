"""MNIST and the Free Spoken Digit Dataset, from their publishers or a mirror, verified by their content's digest."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ml.config import UserError
from ml.media import encode_png
from ml.sources.downloads import Published, obtain
from ml.sources.shards import Item, Listing

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_PARTS = {"train": "train", "test": "t10k"}
MNIST_ROWS = 70_000

FSDD_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
FSDD_URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{FSDD_COMMIT}.zip"
FSDD_SHA256 = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"
FSDD_ROWS = 3000
FSDD_TEST_INDICES = range(5)


def pictures(mirror: str | None, root: Path) -> Listing:
    """MNIST's 70,000 pictures of 28 x 28 pixels as PNG, with the publisher's training and test sets."""
    files = {name: obtain(_mnist(name), mirror, root) for name in MNIST_MD5}
    return Listing(_digits(files), MNIST_ROWS, "CC BY-SA 3.0")


def recordings(mirror: str | None, root: Path) -> Listing:
    """FSDD's 3,000 recordings untouched; the official test set is index 0 to 4; `group` is the speaker."""
    name = f"fsdd/free-spoken-digit-dataset-{FSDD_COMMIT}.zip"
    archive = obtain(Published(name, FSDD_URL, FSDD_SHA256, _fsdd_digest), mirror, root)
    return Listing(_spoken(archive), FSDD_ROWS, "CC BY-SA 4.0")


def _mnist(name: str) -> Published:
    return Published(f"mnist/{name}.gz", f"{MNIST_URL}/{name}.gz", MNIST_MD5[name], _mnist_digest)


def _mnist_digest(file: Path) -> str:
    with gzip.open(file) as content:
        return hashlib.file_digest(content, "md5").hexdigest()  # type: ignore[arg-type]


def _digits(files: dict[str, Path]) -> Iterator[Item]:
    for split, part in MNIST_PARTS.items():
        pixels = read_idx(files[f"{part}-images-idx3-ubyte"])
        labels = read_idx(files[f"{part}-labels-idx1-ubyte"])
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            yield Item(f"{split}-{number:05d}", encode_png(image), str(label), split)


def read_idx(file: Path) -> np.ndarray:
    """The uint8 array of a gzipped IDX file. Raises UserError where it is not one."""
    content = gzip.decompress(file.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise UserError(f"{file}: starts with {content[:3].hex()}, expected an IDX file of bytes (000008)")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _wavs(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    found = [
        entry for entry in archive.infolist() if "/recordings/" in entry.filename and entry.filename[-4:] == ".wav"
    ]
    return sorted(found, key=lambda entry: Path(entry.filename).name)


def _fsdd_digest(file: Path) -> str:
    """SHA-256 over the lines `sha256sum` prints for the recordings in order of their names."""
    lines = hashlib.sha256()
    with zipfile.ZipFile(file) as archive:
        for entry in _wavs(archive):
            digest = hashlib.sha256(archive.read(entry)).hexdigest()
            lines.update(f"{digest}  {Path(entry.filename).name}\n".encode())
    return lines.hexdigest()


def _spoken(file: Path) -> Iterator[Item]:
    with zipfile.ZipFile(file) as archive:
        for entry in _wavs(archive):
            name = Path(entry.filename).stem
            digit, speaker, index = name.split("_")
            split = "test" if int(index) in FSDD_TEST_INDICES else "train"
            yield Item(name, archive.read(entry), digit, split, speaker)
