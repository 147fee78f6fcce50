"""Holding the suites against the tables with Great Expectations: verdict, quarantine list, Data Docs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_checks.comparisons.columns import write_comparisons
from data_checks.expectations import data_docs, tables
from data_checks.expectations.quarantine import NEVER_RELEASED, read_released, write_quarantine, write_released
from data_checks.expectations.suites import KEPT_SHARE, MAX_SHARE, SUITES, Expectation
from data_checks.expectations.verdicts import Result, Verdict, write_verdict
from ml.config import MODALITIES, Paths, UserError
from ml.files import whole_folder

if TYPE_CHECKING:
    import pandas as pd

SEVERITY = {"error": "critical", "warning": "warning"}
EXAMPLES = 5


class Judged(NamedTuple):
    """A result, and the rows of the table that failed it (row-level expectations only)."""

    result: Result
    failing: np.ndarray


def docs_page(paths: Paths, suite: str) -> Path:
    """Where the Data Docs of a suite start."""
    return paths.reports / "data_docs" / paths.source / suite / "index.html"


def validate_raw(paths: Paths, modality: str, max_quarantine_share: float) -> Verdict:
    """Hold the suite of a modality against its facts; write verdict.json, quarantine.parquet and the Data Docs.

    Raises UserError where facts or raw shards are missing. A verdict that did not pass is an answer, not an error.
    """
    from ml.datasets import raw_digest
    from ml.sources.shards import added_shards

    items = tables.items_table(paths, modality)
    suite = SUITES[modality]
    released = read_released(paths, modality, set(items["id"]))
    with _Project(paths, modality) as project:
        rows = [e for e in suite if e.row_level]
        judged = project.judge("items", rows, items, max_quarantine_share)
        failing = _failing(items, rows, judged)
        _require_releasable(failing, released)
        aside = [one for one in failing if one["id"] not in released]
        judged |= _without_released(rows, judged, items, released, max_quarantine_share)
        set_aside = np.isin(items[tables.ROW].to_numpy(), [one[tables.ROW] for one in aside])
        whole = tables.set_table(items, set_aside)
        judged |= project.judge("set", [e for e in suite if not e.row_level], whole, max_quarantine_share)
        judged |= {e.name: _naming(e, judged[e.name], whole) for e in suite if e.names}
        digest = raw_digest(paths.raw(modality), added_shards(paths, modality))
        verdict = _verdict(suite, judged, digest, len(aside), len(items))
        with whole_folder(paths.validated(modality)) as folder:
            write_quarantine(aside, paths, modality, folder)
            write_released([one for one in failing if one["id"] in released], released, folder)
            write_comparisons(items, folder)
            write_verdict(folder, verdict)
        project.publish(verdict, data_docs.listings(paths.validated(modality), paths.source, modality))
    return verdict


def validate_prepared(paths: Paths, modality: str, folder: Path) -> Verdict:
    """Hold the suite of prepared data against the set in `folder` and write its verdict there.

    Raises UserError where the set cannot be read.
    """
    name = f"prepared_{modality}"
    from ml.datasets import near_copies

    near = near_copies(paths, modality) if paths.validated(modality).is_dir() else {}
    table, digest = tables.prepared_table(folder, modality, near)
    with _Project(paths, name) as project:
        judged = project.judge("set", SUITES[name], table, 0.0)
        verdict = _verdict(SUITES[name], judged, digest, 0, len(table))
        project.publish(verdict)
    write_verdict(folder, verdict)
    return verdict


def validate_pairs(paths: Paths) -> Verdict:
    """Hold the suite "pairs" against the labels of both prepared sets; write its Data Docs.

    Raises UserError where a prepared set cannot be read.
    """
    table, digest = tables.pairs_table({modality: paths.prepared(modality) for modality in MODALITIES})
    with _Project(paths, "pairs") as project:
        judged = project.judge("labels", SUITES["pairs"], table, 0.0)
        verdict = _verdict(SUITES["pairs"], judged, digest, 0, len(table))
        project.publish(verdict)
    return verdict


def _verdict(
    suite: Sequence[Expectation], judged: dict[str, Judged], digest: str, quarantined: int, rows: int
) -> Verdict:
    results = tuple(judged[expectation.name].result for expectation in suite)
    passed = all(result.success for result in results if result.severity == "error")
    return Verdict(passed, digest, results, quarantined, rows)


def _failing(items: pd.DataFrame, rows: Sequence[Expectation], judged: dict[str, Judged]) -> list[dict]:
    """The items that failed a row-level expectation of severity "error", each with every reason."""
    reasons: dict[int, list[str]] = {}
    for expectation in rows:
        if expectation.severity == "error":
            for row in judged[expectation.name].failing.tolist():
                reasons.setdefault(row, []).append(_said(expectation, items, row))
    places = sorted(reasons)
    keys = [key for key in (tables.ROW, "id", "label", "split", "shard") if key in items]
    found = items.iloc[places][keys].to_dict("records")
    return [
        {key: value if isinstance(value, str | int) else None for key, value in one.items()}
        | {"reason": "; ".join(reasons[row])}
        for row, one in zip(places, found, strict=True)
    ]


def _require_releasable(failing: list[dict], released: dict[str, str]) -> None:
    for one in failing:
        kinds = {said.split(" ")[0].partition("_")[2] for said in one["reason"].split("; ")}
        if one["id"] in released and kinds & set(NEVER_RELEASED):
            raise UserError(f"{one['id']}: cannot be released: {one['reason']}; take it out of the list, or repair it")


def _without_released(
    rows: Sequence[Expectation], judged: dict[str, Judged], items: pd.DataFrame, released: dict[str, str], share: float
) -> dict[str, Judged]:
    """What rows' expectations found, reviewed items no longer counted against them."""
    if not released:
        return {}
    reviewed = items["id"].isin(list(released)).to_numpy()
    changed = {}
    for expectation in rows:
        result, failing = judged[expectation.name]
        left = failing[~reviewed[failing]]
        if len(left) < len(failing):
            held = len(left) <= share * len(items)
            changed[expectation.name] = Judged(dataclasses.replace(result, success=held), left)
    return changed


def _naming(expectation: Expectation, judged: Judged, whole: pd.DataFrame) -> Judged:
    """What was found of a set, with the values by their name, those furthest out first, where it failed."""
    if judged.result.success or not {expectation.column, expectation.names} <= set(whole.columns):
        return judged
    values = whole.groupby(expectation.names)[expectation.column].first().to_dict()
    least = expectation.kwargs.get("min_value", -np.inf)
    in_order = sorted(values.items(), key=lambda named: named[1])
    outside = [f"{name}: {value:g}" for name, value in in_order if value < least]
    more = f" and {len(outside) - EXAMPLES} more" if len(outside) > EXAMPLES else ""
    named = dataclasses.replace(judged.result, observed=", ".join(outside[:EXAMPLES]) + more)
    return Judged(named, judged.failing)


def _said(expectation: Expectation, items: pd.DataFrame, row: int) -> str:
    value = items[expectation.column].iloc[row]
    error = items["error"].iloc[row] if expectation.column == "decodable" and "error" in items else None
    observed = error if isinstance(error, str) else _jsonable(value)
    return f"{expectation.name} ({expectation.column} {observed}): {expectation.reason}"


class _Project(contextlib.AbstractContextManager):
    """A Great Expectations project for one suite, made anew each time, so that a killed run leaves no harm."""

    def __init__(self, paths: Paths, suite: str):
        self.paths, self.suite = paths, suite
        self.home = paths.var / "great_expectations" / paths.source
        self.home.mkdir(parents=True, exist_ok=True)
        for left in self.home.glob(f".{suite}.*"):
            shutil.rmtree(left, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f".{suite}.", dir=self.home))
        gx = _great_expectations()
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.gx = gx.get_context(mode="file", project_root_dir=str(self.folder))
        self.gx.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.source = self.gx.data_sources.add_or_update_pandas(paths.source)

    def judge(
        self, name: str, expectations: Sequence[Expectation], table: pd.DataFrame, max_share: float
    ) -> dict[str, Judged]:
        """Validate one table as one whole batch, under the name `suite`_`name` in the Data Docs."""
        gx = _great_expectations()
        from great_expectations.checkpoint.actions import UpdateDataDocsAction

        name = f"{self.suite}_{name}"
        made = [_made(expectation, max_share) for expectation in expectations]
        batch = self.source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        suite = self.gx.suites.add(gx.ExpectationSuite(name=name, expectations=made))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[self.gx.validation_definitions.add(definition)],
            actions=[UpdateDataDocsAction(name="data_docs")],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [tables.ROW, "id"]},
        )
        asked = {tables.ROW, "id", *(expectation.column for expectation in expectations)}
        judged = table[[column for column in table if column in asked]]  # Great Expectations copies what it is given
        outcome = self.gx.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": judged})
        (validation,) = outcome.run_results.values()
        found = {_name(result): result for result in validation.results}
        return {e.name: _judged(e, found[e.name]) for e in expectations}

    def publish(self, verdict: Verdict, listings: str = "") -> None:
        """Put the Data Docs in their place, readable without a network."""
        site = self.folder / "gx" / "uncommitted" / "data_docs" / "local_site"
        place = docs_page(self.paths, self.suite).parent
        data_docs.publish(site, place, self.paths.source, self.suite, verdict, listings)
        shutil.rmtree(site)

    def __exit__(self, kind, *_) -> None:
        place = self.home / self.suite
        if kind is None:
            shutil.rmtree(place, ignore_errors=True)
            self.folder.rename(place)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def _great_expectations():
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def _made(expectation: Expectation, max_share: float):
    """The expectation as Great Expectations holds it, with the shares of params.yaml filled in."""
    import great_expectations.expectations as kinds

    shares = {MAX_SHARE: max_share, KEPT_SHARE: round(1 - max_share, 9)}
    kwargs = {
        key: shares.get(value, value) if isinstance(value, str) else value for key, value in expectation.kwargs.items()
    }
    named = {} if expectation.column is None else {"column": expectation.column}
    return getattr(kinds, expectation.kind)(
        **named,
        **kwargs,
        notes=[f"**{expectation.name}**: {expectation.reason}"],
        severity=SEVERITY[expectation.severity],
        meta={"name": expectation.name},
    )


def _name(found) -> str:
    return found.expectation_config.meta["name"]


def _judged(expectation: Expectation, found) -> Judged:
    outcome = found.result
    failing = np.array([i[tables.ROW] for i in outcome.get("unexpected_index_list") or ()], np.int64)
    why = _exception(found.exception_info)
    reason = f"{expectation.reason} (could not be judged: {why})" if why else expectation.reason
    count = int(outcome.get("unexpected_count") or 0)
    if expectation.row_level and not why:
        listed = outcome.get("unexpected_index_list") or ()
        examples = [str(i["id"]) for i in listed[:EXAMPLES]]
        observed = {"failing_rows": count, "of": int(outcome["element_count"]), "examples": examples}
    else:
        observed = _jsonable(outcome.get("observed_value", count if outcome else None))
    success = bool(found.success) and not why
    return Judged(Result(expectation.name, success, observed, reason, expectation.severity, count), failing)


def _exception(info: dict) -> str | None:
    """Why an expectation could not be judged; Great Expectations nests the reason under the metric that failed."""
    if not info:
        return None
    nested = info.values() if "raised_exception" not in info else [info]
    said = {" ".join(str(one["exception_message"]).split()) for one in nested if one["raised_exception"]}
    return "; ".join(sorted(said)) or None


def _jsonable(value: Any) -> Any:
    """The value as JSON holds it, numbers to six significant digits, so that a verdict is the same on every machine."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, list | tuple | set):
        return [_jsonable(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)
