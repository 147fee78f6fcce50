"""`make bench`: our speed beside a peer's, measured in the same run and printed as a ratio.

`python -m benchmarks [data|growth|training|serving|drift|bodies …]`. All but growth need what `make run` leaves behind:
prepared data; serving a champion and its Bento, bodies (of the extractor) the candidates. drift and bodies run only
where they are named, for they take long, drift needs SEEHEAR_SOURCE=mnist-fsdd; so do
`python -m benchmarks recognition` (CNN, RNN and LSTM compared), `python -m benchmarks extraction` (FSDD-Scenes) and
`python -m benchmarks pictures` (MNIST over seeds), which take words of their own (`--help`).
"""

import sys

from ml.config import UserError, load_paths
from ml.files import one_line_faults

BY_DEFAULT = ("data", "growth", "training", "serving")
PARTS = (*BY_DEFAULT, "bodies", "drift")


def main(asked: list[str]) -> None:
    match asked[:1]:
        case ["recognition"]:
            from benchmarks.recognition.__main__ import main as compare_recognisers

            return compare_recognisers(asked[1:])
        case ["extraction"]:
            from benchmarks.extraction import main as measure_scenes

            return measure_scenes(asked[1:])
        case ["pictures"]:
            from benchmarks.pictures import main as measure_pictures

            return measure_pictures(asked[1:])
    if unknown := set(asked) - set(PARTS):
        raise UserError(f"benchmarks {' '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    paths = load_paths()
    for part in asked or BY_DEFAULT:
        for name, figure, ratio in _part(part).compare(paths):
            print(f"{name:<58} {figure:<24} {ratio}", flush=True)


def _part(name: str):
    from benchmarks import bodies, data, drift, growth, serving, training

    parts = {"data": data, "growth": growth, "training": training, "serving": serving, "bodies": bodies, "drift": drift}
    return parts[name]


if __name__ == "__main__":
    with one_line_faults():
        main(sys.argv[1:])
