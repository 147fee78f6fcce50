"""`python -m serving.cli.apart MODULE WORD…`: run the `main` of a module, whose import may meet a fault as well.

Exit codes are those of `main`; 2 where a setting keeps the module from being imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ml.config import UserError
from serving.cli.group import BAD_INPUT, complain, end_with


def main(words: Sequence[str]) -> int:
    module, *others = words
    try:
        job = importlib.import_module(module)
    except UserError as fault:
        complain(str(fault))
        return BAD_INPUT
    return job.main(others)


if __name__ == "__main__":
    end_with(main)
