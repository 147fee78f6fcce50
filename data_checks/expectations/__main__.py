"""`python -m data_checks.expectations validate SOURCE MODALITY` and `… prepared SOURCE MODALITY [--folder FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_checks.expectations.validation import validate_prepared, validate_raw
from ml.config import MODALITIES, SOURCES, Paths, UserError, load_settings, project_root
from ml.files import one_line_faults


def main(arguments: list[str]) -> int:
    """Exit code 0 where the data was judged and, if prepared, holds; 1 with one line where not; 2 for wrong usage."""
    asked = _parser().parse_args(arguments)
    paths = Paths(project_root(), asked.source)
    with one_line_faults():
        if asked.what == "validate":
            verdict = validate_raw(paths, asked.modality, load_settings(paths.root).checks.max_quarantine_share)
        else:
            folder = asked.folder or paths.prepared(asked.modality)
            verdict = validate_prepared(paths, asked.modality, folder)
            if not verdict.passed:
                raise UserError(f"{folder}: prepared {asked.modality} {verdict.summary()}")
    print(f"{asked.source} {asked.modality} {verdict.summary()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_checks.expectations", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    for what, about in (("validate", "judge the facts of the raw data"), ("prepared", "judge a prepared data set")):
        kind = kinds.add_parser(what, help=about)
        kind.add_argument("source", choices=SOURCES)
        kind.add_argument("modality", choices=MODALITIES)
        if what == "prepared":
            kind.add_argument("--folder", type=Path, help="where the set lies (default: its place under data/)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
