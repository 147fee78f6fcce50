"""What came in and how it was answered: the prediction log, and one drift report a day."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from orchestration import previews
from orchestration.assets.common import SETTINGS, plainly, provenance
from orchestration.feedback import WAITING, corrections, kept_media, known_labels
from orchestration.resources import Project, digest, source_digest

TO_REVIEW = 50  # shown in the UI
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
    by_day = _by_day(folder, shards)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(shards)),
        metadata=provenance(project)
        | {
            "dagster/row_count": sum(row["answers"] for row in by_day),
            "shards": len(shards),
            "unreadable_shards": sum(row["unreadable"] for row in by_day),
            "answers_from_the_future": sum(row["answers"] for row in by_day if row["day"] > tomorrow()),
            "folder": dg.MetadataValue.path(str(folder)),
            "by_day": previews.table(by_day),
        },
    )


def tomorrow() -> str:
    """The last day, in UTC, that an answer may be dated without its clock being wrong."""
    return (datetime.now(UTC) + timedelta(days=1)).date().isoformat()


def _by_day(folder, shards: dict[str, int]) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_checks.drift import LOG_SCHEMA

    days: dict[str, dict] = {}
    for shard in shards:
        counts = {"answers": 0, "unreadable": 0, "of an older schema": 0}
        day = days.setdefault(shard.split("/")[0].removeprefix("date="), counts)
        try:
            written = pq.read_metadata(folder / shard)
            day["answers"] += written.num_rows
            day["of an older schema"] += not set(LOG_SCHEMA.names) <= set(written.schema.to_arrow_schema().names)
        except (OSError, pa.ArrowException):
            day["unreadable"] += 1
    return [{"day": day} | counts for day, counts in sorted(days.items())]


@dg.asset(
    deps=["prediction_log"],
    group_name="monitoring",
    kinds={"parquet"},
    owners=["team:operations"],
    description="What users corrected, and what became of it: `seehear review` turns it into data to train on.",
    code_version=digest(source_digest("orchestration.feedback", "serving.keeping", "data_checks.drift.log")),
)
@plainly
def feedback(project: Project) -> dg.MaterializeResult:
    paths = project.paths
    found = corrections(paths, kept_media(paths), known_labels(paths))
    waiting = [asdict(one) for one in found if one.state == WAITING]
    states = Counter(one.state for one in found)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest([asdict(one) for one in found])),
        metadata=provenance(project)
        | {
            "dagster/row_count": len(found),
            "waiting": len(waiting),
            "unreadable": list(found.unreadable),
            "states": previews.table([{"state": state, "corrections": n} for state, n in states.most_common()]),
            "to_review": previews.table(waiting[:TO_REVIEW]),
            "how": dg.MetadataValue.md("`seehear review`, then `seehear review --accept ID` or `--accept all`"),
        },
    )


@dg.asset(
    deps=["prediction_log", "champion"],
    partitions_def=DAYS,
    group_name="monitoring",
    kinds={"evidently"},
    owners=["team:operations"],
    description="Whether the answers of a day still look like those the champion was validated on, and what changed.",
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2), warn_window=timedelta(hours=30)),
    code_version=digest(source_digest("data_checks.drift"), asdict(SETTINGS.monitoring)),
)
@plainly
def drift_report(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    from data_checks import drift
    from orchestration.champion import reference_file

    paths, day, settings = project.paths, context.partition_key, project.settings
    reference = drift.reference_from_evaluation(reference_file(paths))
    verdict, window = drift.judge_day(
        day, reference, paths.prediction_log, paths.reports, settings.monitoring, settings.training.seed
    )
    folder = drift.write_drift_report(verdict, reference, window, paths.reports, day)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(asdict(verdict))),
        metadata=provenance(project) | _drift_metadata(verdict, folder),
    )


def _drift_metadata(verdict, folder) -> dict:
    return {
        "state": verdict.state,
        "alarm": verdict.alarm,
        "alarm_reason": verdict.alarm_reason,
        "answers": verdict.n_window,
        "causes": dg.MetadataValue.md("\n".join(f"- {cause}" for cause in verdict.causes) or "none"),
        "findings": previews.table([_finding_row(finding) for finding in verdict.findings]),
        "recent_windows": previews.table([{"day": day, "state": state} for day, state in verdict.recent]),
        **_accuracy_metadata(verdict),
        "corrections": dg.MetadataValue.json(verdict.corrections),
        "not_compared": dg.MetadataValue.json(list(verdict.skipped)),
        "unreadable": dg.MetadataValue.json(list(verdict.unreadable)),
        "report": dg.MetadataValue.path(str(folder)),
    }


def _finding_row(finding) -> dict:
    return {
        "feature": finding.feature,
        "test": finding.test,
        "p": finding.p_adjusted,
        "effect": finding.effect_size,
        "drifted": finding.drifted,
        "shown most by": ", ".join(finding.items),
    }


def _accuracy_metadata(verdict) -> dict:
    """In words for every side, and as numbers, which Dagster plots over the days."""
    from data_checks import drift

    shown: dict = {}
    for side, accuracy in verdict.accuracy.items():
        shown[f"accuracy_{side}"] = drift.in_words(accuracy)
        for kind in ("estimated", "real"):
            if (share := getattr(accuracy, kind)) is not None:
                shown[f"{kind}_accuracy_{side}"] = dg.MetadataValue.float(share)
    return shown


ASSETS = [prediction_log, feedback, drift_report]
