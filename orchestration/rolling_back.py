"""`seehear rollback` comes here, as REASON [VERSION]: run the job `rollback`.

Exit codes: 0 the former champion is at work; those of faults, by which nothing was changed, are serving.cli.apart's.
"""

from collections.abc import Sequence

import dagster as dg

from ml.config import UserError, project_root
from orchestration.runs import metadata_of, prepare_instance, run_job

DONE = 0


def main(arguments: Sequence[str]) -> int:
    reason, to = _words(arguments)
    prepare_instance(project_root())
    done = _run(reason, to)
    print(f"champion: {done['model']} since {done['since']}; {done['reason']}")
    print("a running `make serve` takes it up by itself; the history is in reports/champion/history.md")
    return DONE


def _words(arguments: Sequence[str]) -> tuple[str, str]:
    match list(arguments):
        case [reason]:
            return reason, "previous"
        case [reason, to]:
            return reason, to
    raise UserError("expected a reason, and the version to go back to or nothing")


def _run(reason: str, to: str) -> dict:
    """What the job recorded of the champion. Raises UserError with the reason where it failed."""
    from orchestration.definitions import defs

    with dg.DagsterInstance.get() as instance:
        config = {"champion": {"config": {"roll_back_to": to, "reason": reason}}}
        tags = {"seehear/reason": f"rollback: {reason}"[:500]}
        return metadata_of(run_job(defs.resolve_job_def("rollback"), instance, config, tags=tags), "champion")
