"""`python -m serving.cli.apart MODULE WORD…`: run the `main` of a module, whose import may meet a fault as well.

Exit codes are those of `main`; 2 bad input or a wrong setting, with one line for each fault; 70 a fault of ours; those
of signals as of any command.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ml.config import UserError
from serving.cli.group import BAD_INPUT, end_with


def main(words: Sequence[str]) -> int:
    module, *others = words
    try:
        return importlib.import_module(module).main(others)
    except UserError as fault:
        for line in str(fault).splitlines():
            print(f"seehear: {line}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    end_with(main)
