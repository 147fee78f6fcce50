"""`seehear rollback` comes here, as REASON [VERSION]: run the job `rollback`.

Exit codes: 0 the former champion is at work; 2 it is not, with one line that says why, and nothing was changed; 70 a
fault of ours.
"""

import sys
from collections.abc import Sequence

import dagster as dg

from ml.config import UserError, project_root
from orchestration.launch import failure_reason, prepare_instance

DONE, BAD_INPUT = 0, 2


def main(arguments: Sequence[str]) -> int:
    try:
        reason, to = _words(arguments)
        prepare_instance(project_root())
        done = _run(reason, to)
    except UserError as fault:
        print(f"seehear: {fault}", file=sys.stderr)
        return BAD_INPUT
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
        result = defs.resolve_job_def("rollback").execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={
                "ops": {"champion": {"config": {"roll_back_to": to, "reason": reason}}},
                "loggers": {"progress": {"config": {"steps": 2}}},
            },
            tags={"seehear/reason": f"rollback: {reason}"[:500]},
        )
    for event in result.filter_events(lambda event: event.is_step_failure or event.is_failure):
        raise UserError(failure_reason(event))
    made = {event.asset_key: event for event in result.get_asset_materialization_events()}
    metadata = made[dg.AssetKey("champion")].materialization.metadata
    return {name: metadata[name].value for name in ("model", "since", "reason")}
