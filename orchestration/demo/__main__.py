"""`python -m orchestration.demo`: tell the story in a temporary folder; the timeline stays in reports/demo-drift/."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ml.config import UserError
from orchestration.demo.world import build
from orchestration.resources import CODE
from serving.cli.group import ended_in_order

OUT = CODE / "reports" / "demo-drift"


def main() -> int:
    print("A story of six days in a folder of its own: 6 to 7 minutes on two cores, two trainings of 3 minutes each.")
    print(f"To see the tools at work: tail -f {OUT / 'log.txt'}\n", flush=True)
    place = tempfile.TemporaryDirectory(prefix="seehear-demo-")
    with ended_in_order(), place as folder, _tools_to(OUT / "log.txt") as complain:
        try:
            project = build(Path(folder) / "project")
            from orchestration.demo import story  # only now, for it imports what looks at the environment

            story.tell(project, OUT)
        except UserError as fault:
            print(f"seehear: {fault}", file=complain)
            return 1
        except KeyboardInterrupt:
            print("seehear: stopped; nothing outside the demo's folder was changed", file=complain)
            return 130
    return 0


@contextmanager
def _tools_to(file: Path) -> Iterator[TextIO]:
    """Send the standard error of this process and its children to `file`; yields the real one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.dup(2), "w") as real, file.open("w") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield real
        finally:
            os.dup2(real.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
