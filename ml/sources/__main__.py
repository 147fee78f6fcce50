"""`python -m ml.sources SOURCE MODALITY`: write the raw shards of one modality."""

from __future__ import annotations

import sys

from ml.config import MODALITIES, SOURCES, Paths, Settings, UserError, load_settings, project_root
from ml.files import one_line_faults
from ml.sources.shards import Listing, write_shards


def listing_of(source: str, modality: str, settings: Settings, paths: Paths) -> Listing:
    """What a source holds of one modality. Raises UserError where it cannot be had."""
    match source, modality:
        case "starter", "images":
            from ml.sources import starter

            return starter.pictures()
        case "starter", "audio":
            from ml.sources import starter

            return starter.recordings()
        case "mnist-fsdd", "images":
            from ml.sources import mnist_fsdd

            return mnist_fsdd.pictures(settings.data.mirror, paths.root)
        case "mnist-fsdd", "audio":
            from ml.sources import mnist_fsdd

            return mnist_fsdd.recordings(settings.data.mirror, paths.root)
        case "folder", "images" | "audio":
            from ml.sources import folder

            return folder.listing(settings.data.folder, modality, paths.root, settings.data.group_pattern)
    known = f"{'|'.join(SOURCES)} {'|'.join(MODALITIES)}"
    raise UserError(f"ml.sources {source} {modality}: expected `python -m ml.sources {known}`")


def main(source: str = "", modality: str = "") -> None:
    root = project_root()
    settings, paths = load_settings(root), Paths(root, source)
    listing = listing_of(source, modality, settings, paths)
    write_shards(paths.raw(modality), source, listing, settings.data.shard_rows)


if __name__ == "__main__":
    with one_line_faults():
        main(*sys.argv[1:])
