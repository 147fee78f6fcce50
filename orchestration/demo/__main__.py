"""`python -m orchestration.demo`: tell the story in a temporary folder; the timeline stays in reports/demo-drift/."""

import sys
import tempfile
from pathlib import Path

from ml.config import UserError
from orchestration.demo.world import build
from orchestration.resources import CODE


def main() -> int:
    print("A story of six days in a folder of its own, about ten minutes on two cores:\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="seehear-demo-") as folder:
        try:
            project = build(Path(folder) / "project")
            from orchestration.demo import story  # only now, for it imports what looks at the environment

            story.tell(project, CODE / "reports" / "demo-drift")
        except UserError as fault:
            print(f"seehear: {fault}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("seehear: stopped; nothing outside the demo's folder was changed", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
