"""`make bench`: our speed beside a peer's, measured in the same run and printed as a ratio.

`python -m benchmarks [data|growth|training|serving …]`. All but growth need what `make run` leaves behind: prepared
data, a champion and its Bento. `python -m benchmarks recognition` is the long comparison of CNN, RNN and LSTM.
"""

import sys

from ml.config import UserError, load_paths

PARTS = ("data", "growth", "training", "serving")


def main(asked: list[str]) -> int:
    if asked[:1] == ["recognition"]:
        from benchmarks.recognition.__main__ import main as compare_recognisers

        return compare_recognisers(asked[1:])
    try:
        if unknown := set(asked) - set(PARTS):
            raise UserError(f"benchmarks {' '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
        paths = load_paths()
        for part in asked or PARTS:
            for name, figure, ratio in _part(part).compare(paths):
                print(f"{name:<58} {figure:<24} {ratio}", flush=True)
    except UserError as fault:
        print(f"seehear: {fault}", file=sys.stderr)
        return 1
    return 0


def _part(name: str):
    from benchmarks import data, growth, serving, training

    return {"data": data, "growth": growth, "training": training, "serving": serving}[name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
