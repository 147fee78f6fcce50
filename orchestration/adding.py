"""`seehear add FOLDER | remove MODALITY ID… | relabel MODALITY ID LABEL` comes here: run the job `adding`.

Exit codes: 0 something changed, 1 nothing did; those of faults are serving.cli.apart's.
"""

import os
from collections.abc import Sequence
from typing import Any

import dagster as dg

from ml.config import MODALITIES, UserError, project_root
from orchestration.assets.added import ASSET
from orchestration.runs import metadata_of, prepare_instance, run_job

CHANGED, NOTHING_CHANGED = 0, 1


def main(arguments: Sequence[str]) -> int:
    config = _config(arguments)
    prepare_instance(project_root())
    return CHANGED if report(run(config)) else NOTHING_CHANGED


def report(done: dict[str, dict[str, Any]]) -> list[str]:
    """Print what the job did and what is next; the modalities that changed."""
    changed = [modality for modality in MODALITIES if "file" in done[modality]]
    for modality in MODALITIES:
        print(*_told(modality, done[modality]), sep="\n", end="\n" if done[modality] else "")
    if changed:
        print(*_next(changed, done), sep="\n")
    else:
        print("nothing new: no shard was written, every version is the same")
    return changed


def _config(arguments: Sequence[str]) -> dict[str, Any]:
    match list(arguments):
        case ["add", folder]:
            return {"folder": os.path.abspath(folder)}
        case ["remove", ("images" | "audio") as modality, first, *others]:
            return {"modality": modality, "remove": [first, *others]}
        case ["relabel", ("images" | "audio") as modality, name, label]:
            return {"modality": modality, "relabel": {name: label}}
    raise UserError("expected add FOLDER, remove images|audio ID…, or relabel images|audio ID LABEL")


def run(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the job recorded of each modality. Raises UserError with the reason where it failed."""
    from orchestration.definitions import defs

    with dg.DagsterInstance.get() as instance:
        result = run_job(defs.resolve_job_def("adding"), instance, {"added": {"config": config}})
    return {modality: metadata_of(result, name) for modality, name in ASSET.items()}


def _told(modality: str, done: dict[str, Any]) -> list[str]:
    known = [f"{modality}: {done['stored_already']} stored already"] if done.get("stored_already") else []
    if "file" not in done:
        return known
    labels = ", ".join(f"{label} {count}" for label, count in sorted(done["labels"].items()))
    counts = ", ".join(f"{done[what]} {what}" for what in ("added", "changed", "removed") if done[what])
    written = f"{counts} ({labels})" if labels else counts
    lines = [f"{modality}: {written}, {done['bytes']:,} bytes, version {done['dvc_hash']}", *known]
    return [*lines, f"{modality}: sent {done['pushed']}" if done["sent"] else f"{modality}: not sent: {done['pushed']}"]


def _next(changed: Sequence[str], done: dict[str, dict[str, Any]]) -> list[str]:
    from orchestration.definitions import defs

    graph = defs.resolve_asset_graph()
    lines = []
    for modality in changed:
        roots = dg.AssetSelection.assets(f"raw_{modality}")
        after = [
            key.to_user_string() for key in graph.toposorted_asset_keys if key in roots.downstream().resolve(graph)
        ]
        lines.append(f"stale now: {', '.join(after)}")
    files = " ".join(f"{done[modality]['file']}.dvc" for modality in changed)
    return [*lines, f"to share it: git add {files} && git commit", "`make run` brings the rest up to date"]
