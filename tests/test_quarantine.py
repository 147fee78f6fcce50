"""Above the share of faulty items, and on any leakage, everything stops: nothing after it runs, whoever asks for it."""

import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import dagster as dg
import pytest
from conftest import data_stages
from PIL import Image

from ml.config import load_settings
from ml.media import decode_picture
from ml.sources.shards import Listing, write_shards
from ml.sources.starter import pictures
from orchestration import automation
from orchestration.definitions import defs
from orchestration.policy import Decision
from orchestration.resources import Project

REPOSITORY = Path(__file__).resolve().parents[1]
ASKED = [dg.AssetKey("raw_images"), dg.AssetKey("image_dataset")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository whose own pictures are a quarter faulty, validated once."""
    root = data_stages(tmp_path_factory.mktemp("repository"))
    for number, item in zip(range(80), pictures().items, strict=False):
        file = root / "own" / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no picture" if number % 4 == 0 else item.content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEHEAR_SOURCE", "folder")
        patch.setenv("SEEHEAR_FOLDER", str(root / "own"))
        yield Project(root=str(root))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """A repository whose publisher tests with two of the pictures that are to be learnt, one of them as a JPEG.

    Its raw stage copies shards that are there; all that follows is the project's own.
    """
    root = data_stages(tmp_path_factory.mktemp("leaking"))
    items = [replace(item, split="train") for item in islice(pictures().items, 80)]
    jpeg = BytesIO()
    Image.fromarray(decode_picture(items[3].content)[..., 0]).save(jpeg, "JPEG", quality=50)
    tested = [replace(item, id=f"test-{item.id}", split="test") for item in islice(pictures().items, 80, 120)]
    tested += [replace(tested[0], id="leak", content=items[0].content, label=items[0].label)]
    tested += [replace(tested[0], id="near leak", content=jpeg.getvalue(), label=items[3].label)]
    write_shards(root / "shards", "folder", Listing([*items, *tested], len(items) + len(tested), ""), 1000)
    pipeline = root / "sources" / "folder" / "dvc.yaml"
    copied = "mkdir -p data/folder/raw && cp -r shards data/folder/raw/${item.modality}"
    command = r"\${SEEHEAR_PYTHON:-.venv/bin/python} -m ml.sources folder ${item.modality}"
    text = pipeline.read_text()
    assert command in text
    pipeline.write_text(text.replace(command, copied))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEHEAR_SOURCE", "folder")
        yield Project(root=str(root))


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


def ran(project: Project, instance: dg.DagsterInstance, job: str, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
    definition = defs.resolve_job_def(job)
    return definition.execute_in_process(
        instance=instance,
        asset_selection=ASKED,
        run_config={"resources": {"project": {"config": {"root": project.root}}}},
        tags=tags,
        raise_on_error=False,
    )


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


@pytest.fixture(scope="module")
def stopped(project, instance) -> dg.ExecuteInProcessResult:
    return ran(project, instance, "lineage", {})


def test_a_materialization_stops_at_the_check_and_makes_nothing_after_it(project, instance, stopped):
    result = stopped
    assert not result.success
    assert made(result) == {"raw_images"}
    failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed}
    assert {"image_decodable", "image_quarantine_share"} <= failed
    assert not project.paths.prepared("images").exists()
    shown = instance.get_latest_materialization_event(dg.AssetKey("raw_images"))
    metadata = shown.asset_materialization.metadata
    assert metadata["quarantined"].value == 20
    assert "sources/folder/released.txt" in metadata["quarantine"].value
    assert "| image_decodable | error | 20 |" in metadata["data_card"].value


def test_asking_for_what_is_downstream_alone_is_refused_by_dvc_and_by_hand(project, stopped):
    assert not stopped.success
    settings = load_settings(project.paths.root)
    assert settings.data.source == "folder"
    environment = os.environ | {"SEEHEAR_PYTHON": sys.executable, "SEEHEAR_ROOT": str(project.paths.root)}
    for command in (
        [sys.executable, "-m", "dvc", "repro", "--single-item", "sources/folder/dvc.yaml:prepared@images"],
        [sys.executable, "-m", "ml.datasets", "prepare", "folder", "images"],
    ):
        done = subprocess.run(command, cwd=project.paths.root, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert "seehear: folder images: the data failed their checks (image_decodable" in done.stdout + done.stderr
    assert not project.paths.prepared("images").exists()


def test_on_leakage_a_run_that_the_policy_requests_makes_nothing_after_the_check(leaking, instance):
    decision = Decision(True, "2026-11-20: brighter", "drift", "drift-2026-11-20-first")
    request = automation.request(decision, leaking.now())
    assert_stopped_by_leakage(leaking, ran(leaking, instance, "retraining", dict(request.tags)))


@pytest.mark.slow  # ten seconds; the same checks block in every job
@pytest.mark.parametrize("job", ["lineage", "retraining"])
def test_on_leakage_a_run_by_hand_or_by_schedule_makes_nothing_after_the_check(job, leaking, instance):
    assert_stopped_by_leakage(leaking, ran(leaking, instance, job, {}))


def assert_stopped_by_leakage(project: Project, result: dg.ExecuteInProcessResult) -> None:
    """It ended at the checks of leakage, and neither Dagster nor DVC made anything after them."""
    assert not result.success
    assert made(result) == {"raw_images"}
    failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed and one.blocking}
    assert failed == {"image_no_leak", "image_no_near_leak"}
    assert not project.paths.prepared("images").exists()
