"""`python -m data_checks.facts SOURCE MODALITY`: measure the raw shards of a source."""

from __future__ import annotations

import sys

from data_checks.facts.shards import measure_shards
from ml.config import MODALITIES, SOURCES, Paths, project_root
from ml.files import one_line_faults
from ml.sources.shards import added_shards


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in SOURCES or arguments[1] not in MODALITIES:
        print(f"usage: python -m data_checks.facts {{{','.join(SOURCES)}}} {{{','.join(MODALITIES)}}}", file=sys.stderr)
        return 2
    source, modality = arguments
    paths = Paths(project_root(), source)
    with one_line_faults():
        added = added_shards(paths, modality)
        rows = measure_shards(paths.raw(modality), modality, paths.facts(modality), added)
    print(f"{rows} {modality} measured")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
