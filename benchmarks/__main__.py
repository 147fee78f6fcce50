"""`make bench`: our speed beside a peer's, measured in the same run and printed as a ratio.

Needs what `make run` leaves behind: prepared data, a champion and its Bento.
"""

import sys

from benchmarks import serving, training
from ml.config import UserError, load_paths


def main() -> int:
    try:
        paths = load_paths()
        for rows in (training.compare(paths), serving.compare(paths)):
            for name, figure, ratio in rows:
                print(f"{name:<58} {figure:<24} {ratio}", flush=True)
    except UserError as fault:
        print(f"seehear: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
