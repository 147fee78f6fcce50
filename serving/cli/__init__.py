"""The `seehear` command: pictures and recordings on disk, answered by the champion without a service.

Exit codes: 0 done, 1 nothing found, 2 bad input, with one line per bad file that names it and says why.
"""

from serving.cli.commands import main

__all__ = ["main"]
