"""`python -m ml.datasets prepare|publish SOURCE MODALITY`: write the prepared set beside its place; put it there."""

from __future__ import annotations

import json
import sys

from ml.config import MODALITIES, SOURCES, Paths, UserError, load_settings, project_root
from ml.datasets.prepare import prepare, publish_prepared
from ml.files import one_line_faults


def main(arguments: list[str]) -> None:
    known = f"{'|'.join(SOURCES)} {'|'.join(MODALITIES)}"
    if len(arguments) != 3 or arguments[1] not in SOURCES or arguments[2] not in MODALITIES:
        raise UserError(f"ml.datasets {' '.join(arguments)}: expected prepare|publish {known}")
    action, source, modality = arguments
    root = project_root()
    paths = Paths(root, source)
    match action:
        case "prepare":
            folder = prepare(paths, modality, load_settings(root).data)
            print(f"{source} {modality} split {json.loads((folder / 'meta.json').read_text())['split_about']}")
        case "publish":
            publish_prepared(paths, modality)
        case _:
            raise UserError(f"ml.datasets {action}: expected prepare|publish {known}")


if __name__ == "__main__":
    with one_line_faults():
        main(sys.argv[1:])
