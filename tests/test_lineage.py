"""The lineage as Dagster sees it: keys, dependencies, checks, jobs; a change of it shows in lineage.txt."""

import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from data_checks.expectations import SUITES
from orchestration import automation, previews, resources
from orchestration.assets.common import SETTINGS
from orchestration.assets.data import raw_settings
from orchestration.definitions import defs
from orchestration.launch import _Loading
from serving import packaging

BY_THEMSELVES = {dg.AssetKey("drift_report"), dg.AssetKey("retraining_decisions")}  # not made by the job lineage
SNAPSHOT = Path(__file__).with_name("lineage.txt")


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def described(graph) -> str:
    lines = []
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        parents = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)) or "nothing"
        lines.append(f"{node.group_name}: {key.to_user_string()} ← {parents}")
        checks = sorted((check.name, graph.get(check).blocking) for check in graph.get_check_keys_for_assets({key}))
        lines += [f"    {'blocks' if blocking else 'tells '} {name}" for name, blocking in checks]
    for job in sorted(defs.jobs or [], key=lambda job: job.name):
        keys = defs.resolve_job_def(job.name).asset_layer.executable_asset_keys
        lines.append(f"job {job.name}: {', '.join(sorted(key.to_user_string() for key in keys))}")
    return "\n".join(lines) + "\n"


def test_the_lineage_is_the_one_that_was_reviewed(graph):
    assert described(graph) == SNAPSHOT.read_text(), "if the change is meant, write tests/lineage.txt anew"


def test_every_expectation_is_an_asset_check(graph):
    shown = {check.name for check in graph.asset_check_keys}
    assert {expectation.name for suite in SUITES.values() for expectation in suite} <= shown


def test_every_asset_says_what_it_is_who_owns_it_and_what_it_is_made_with(graph):
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.code_version, key


def test_drift_reports_are_partitioned_by_day_and_stand_outside_the_lineage(graph):
    assert isinstance(graph.get(dg.AssetKey("drift_report")).partitions_def, dg.DailyPartitionsDefinition)
    assert dg.AssetKey("drift_report") not in defs.resolve_job_def("lineage").asset_layer.executable_asset_keys


def test_what_ought_to_be_made_in_time_says_by_when(graph):
    for key in ("drift_report", "champion"):
        assert graph.get(dg.AssetKey(key)).freshness_policy, key


def test_strings_select_assets(graph):
    chosen = dg.AssetSelection.from_string('key:"raw_images"+').resolve(graph)
    names = {key.to_user_string() for key in chosen}
    assert {"raw_images", "image_dataset"} <= names
    assert not {"raw_audio", "speech_dataset"} & names


def test_a_run_config_is_explained_field_by_field():
    schema = defs.resolve_job_def("lineage").run_config_schema.config_type
    ops = schema.fields["ops"].config_type.fields
    trained = ops["image_classifier"].config_type.fields["config"].config_type.fields
    assert {"budget", "steps", "batch_size", "learning_rate", "optimizer", "seed"} <= set(trained)
    assert all(field.description for field in trained.values())


def test_the_daily_schedule_asks_for_the_day_before():
    from datetime import UTC, datetime

    with dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 20, 2, 15, tzinfo=UTC)) as context:
        request = automation.daily_drift(context)
    assert request.partition_key == "2026-11-19"


@pytest.mark.parametrize("changed", ["params.yaml", "serving/page/index.html", "ml/features.py"])
def test_the_bento_is_due_when_anything_in_it_changes(graph, tmp_path, monkeypatch, changed):
    held = resources.digest(resources.files_digest(packaging.packed()), packaging.requirements())
    assert graph.get(dg.AssetKey("bento")).code_version == held
    for file in packaging.packed():
        (tmp_path / file.relative_to(packaging.CODE)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tmp_path / file.relative_to(packaging.CODE))
    for module in (packaging, resources):
        monkeypatch.setattr(module, "CODE", tmp_path)
    before = resources.files_digest(packaging.packed())
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    assert resources.files_digest(packaging.packed()) != before


@pytest.mark.parametrize(
    ("section", "changed", "counts"),
    [
        ("checks", {"max_quarantine_share": 0.5}, True),
        ("data", {"source": "folder"}, True),
        ("data", {"folder": "own"}, True),
        ("data", {"group_pattern": "^(?P<group>.)"}, True),
        ("data", {"shard_rows": 7}, True),
        ("data", {"seed": 1, "test_share": 0.2, "image_side": 9, "sample_rate_hz": 8000, "mirror": "near"}, False),
    ],
)
def test_raw_data_are_due_when_a_setting_of_their_stages_changes_and_no_other(section, changed, counts):
    changed = replace(SETTINGS, **{section: replace(getattr(SETTINGS, section), **changed)})
    assert (raw_settings(changed) != raw_settings(SETTINGS)) == counts


# staleness, over a real instance that recorded one materialization of everything


def record(instance, graph, key, version: str, versions: dict) -> None:
    """Record that `key` was made as `version` out of its parents' `versions`."""
    tags = {"dagster/data_version": version, "dagster/code_version": graph.get(key).code_version}
    for parent in graph.get(key).parent_keys:
        tags[f"dagster/input_data_version/{parent.to_user_string()}"] = versions[parent]
        tags[f"dagster/input_event_pointer/{parent.to_user_string()}"] = "NULL"
    instance.report_runless_asset_event(dg.AssetMaterialization(key, tags=tags))
    versions[key] = version


def stale(instance, graph) -> set[str]:
    resolver = CachingStaleStatusResolver(instance, graph, loading_context=_Loading(instance))
    keys = [key for key in graph.toposorted_asset_keys if key not in BY_THEMSELVES]
    return {key.to_user_string() for key in keys if resolver.get_status(key) != StaleStatus.FRESH}


@pytest.fixture
def instance(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def recorded(instance, graph):
    versions = {}
    for key in graph.toposorted_asset_keys:
        if key not in BY_THEMSELVES:
            record(instance, graph, key, "first", versions)
    return versions


def test_what_was_made_of_the_newest_is_not_stale(instance, graph, recorded):
    assert stale(instance, graph) == set()


def test_the_same_data_made_again_makes_nothing_stale(instance, graph, recorded):
    record(instance, graph, dg.AssetKey("raw_audio"), "first", recorded)
    assert stale(instance, graph) == set()


def test_a_changed_byte_of_audio_makes_stale_only_what_hears(instance, graph, recorded):
    record(instance, graph, dg.AssetKey("raw_audio"), "second", recorded)
    assert stale(instance, graph) == {"speech_dataset"}
    record(instance, graph, dg.AssetKey("speech_dataset"), "second", recorded)
    kinds = {f"speech_classifier/{kind}" for kind in ("cnn", "rnn", "lstm")}
    assert stale(instance, graph) == kinds | {"speech_extractor", "evaluation_report"}


def test_a_learning_curve_has_a_panel_for_every_figure_also_of_those_that_come_later(monkeypatch):
    drawn = []
    grid = previews._grid
    monkeypatch.setattr(previews, "_grid", lambda *size, **kind: drawn.append(grid(*size, **kind)) or drawn[-1])
    previews.learning_curve([{"step": 100, "loss": 2.0}, {"step": 200, "loss": 1.0, "validation_accuracy": 0.5}])
    [(_, axes)] = drawn
    assert {axis.get_title(): axis.lines[0].get_xdata().tolist() for axis in axes} == {
        "loss": [100, 200],
        "validation_accuracy": [200],
    }
