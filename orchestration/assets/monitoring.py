"""What came in and how it was answered: the prediction log, and one drift report a day."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from orchestration import previews
from orchestration.assets.common import SETTINGS, plainly, provenance
from orchestration.resources import Project, digest, source_digest

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC", end_offset=1)


@dg.asset(
    deps=["bento"],
    group_name="monitoring",
    kinds={"parquet"},
    owners=["team:operations"],
    description="Every answer of the service, as it logged them: when, by which model, what it saw and said.",
    code_version=digest(source_digest("serving.capture")),
)
@plainly
def prediction_log(project: Project) -> dg.MaterializeResult:
    folder = project.paths.prediction_log
    shards = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*.parquet"))}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(shards)),
        metadata=provenance(project)
        | {
            "dagster/row_count": _rows(folder, shards),
            "shards": len(shards),
            "folder": dg.MetadataValue.path(str(folder)),
            "by_day": previews.table(_by_day(folder, shards)),
        },
    )


def _rows(folder, shards: dict[str, int]) -> int:
    return sum(row["answers"] for row in _by_day(folder, shards))


def _by_day(folder, shards: dict[str, int]) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    days: dict[str, dict] = {}
    for shard in shards:
        day = days.setdefault(shard.split("/")[0].removeprefix("date="), {"answers": 0, "unreadable": 0})
        try:
            day["answers"] += pq.read_metadata(folder / shard).num_rows
        except (OSError, pa.ArrowException):
            day["unreadable"] += 1
    return [{"day": day} | counts for day, counts in sorted(days.items())]


@dg.asset(
    deps=["prediction_log", "champion"],
    partitions_def=DAYS,
    group_name="monitoring",
    kinds={"evidently"},
    owners=["team:operations"],
    description="Whether the answers of a day still look like those the champion was validated on, and what changed.",
    code_version=digest(source_digest("data_checks.drift"), asdict(SETTINGS.monitoring)),
)
@plainly
def drift_report(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    from data_checks import drift
    from orchestration.champion import reference_file

    paths, day = project.paths, context.partition_key
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    reference = drift.reference_from_evaluation(reference_file(paths))
    window = drift.read_log(paths.prediction_log, start, start + timedelta(days=1))
    verdict = drift.measure_drift(reference, window, project.settings.monitoring, seed=project.settings.training.seed)
    folder = drift.write_drift_report(verdict, reference, window, paths.reports, day)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(verdict)),
        metadata=provenance(project) | _drift_metadata(verdict, folder),
    )


def _drift_metadata(verdict, folder) -> dict:
    findings = [
        {"feature": f.feature, "test": f.test, "p": f.p_adjusted, "effect": f.effect_size, "drifted": f.drifted}
        for f in verdict.findings
    ]
    return {
        "state": verdict.state,
        "answers": verdict.n_window,
        "causes": dg.MetadataValue.md("\n".join(f"- {cause}" for cause in verdict.causes) or "none"),
        "findings": previews.table(findings),
        "not_compared": dg.MetadataValue.json(list(verdict.skipped)),
        "unreadable": dg.MetadataValue.json(list(verdict.unreadable)),
        "report": dg.MetadataValue.path(str(folder)),
    }


ASSETS = [prediction_log, drift_report]
