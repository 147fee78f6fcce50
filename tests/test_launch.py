"""Which assets a launch brings up to date, wave by wave, on a real Dagster instance."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import dagster as dg
import pytest
import torch

from ml.config import Paths, UserError
from ml.files import turn_at, write_json
from orchestration.assets.common import in_turn, use_free_cores
from orchestration.launch import _alone, due_assets, gone, stopped_at
from orchestration.progress import progress_logger
from orchestration.resources import CODE, Project
from orchestration.runs import run_job


def defined(edges: dict[str, tuple[str, ...]], codes: dict[str, str], versions: dict[str, str]) -> dg.Definitions:
    """A lineage of assets by their inputs; `codes` are code versions, `versions` fixed data versions."""

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=list(edges[name]), code_version=codes.get(name, "1"))
        def asset() -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion(versions.get(name, "same")))

        return asset

    job = dg.define_asset_job("lineage", selection=dg.AssetSelection.all())
    return dg.Definitions(assets=[made(name) for name in edges], jobs=[job])


def waves(defs: dg.Definitions, instance: dg.DagsterInstance) -> list[list[str]]:
    """What every wave launches until nothing is due."""
    found = []
    while due := due_assets(defs, instance):
        found.append([key.to_user_string() for key in due])
        assert len(found) < 10, f"never ends: {found}"
        defs.resolve_job_def("lineage").execute_in_process(instance=instance, asset_selection=due)
    return found


CHAIN = {"raw": (), "dataset": ("raw",), "model": ("dataset",), "report": ("model", "dataset")}


def test_a_first_launch_takes_everything_in_one_wave_and_a_second_nothing():
    defs = defined(CHAIN, {}, {})
    with dg.DagsterInstance.ephemeral() as instance:
        assert waves(defs, instance) == [["raw", "dataset", "model", "report"]]
        assert waves(defs, instance) == []


def test_new_code_that_gives_the_same_data_goes_no_further():
    with dg.DagsterInstance.ephemeral() as instance:
        waves(defined(CHAIN, {}, {}), instance)
        assert waves(defined(CHAIN, {"raw": "2"}, {}), instance) == [["raw"]]


def test_new_data_goes_downstream_one_wave_after_the_other():
    with dg.DagsterInstance.ephemeral() as instance:
        waves(defined(CHAIN, {}, {}), instance)
        assert waves(defined(CHAIN, {"raw": "2"}, {"raw": "other"}), instance) == [["raw"], ["dataset"]]


def test_no_asset_is_launched_twice_after_the_lineage_itself_changed():
    edges = CHAIN | {"report": ("model",), "champion": ("report", "model"), "bento": ("champion",)}
    with dg.DagsterInstance.ephemeral() as instance:
        waves(defined(edges, {}, {}), instance)
        moved = edges | {"champion": ("report",), "model": ("dataset", "raw")}
        new = defined(moved, {"raw": "2", "champion": "2"}, {"raw": "new", "model": "new", "report": "new"})
        launched = [name for wave in waves(new, instance) for name in wave]
    assert sorted(launched) == sorted(set(launched)), launched
    assert {"raw", "model", "report", "champion"} <= set(launched)


@pytest.mark.parametrize("breaks", [False, True])
def test_what_a_blocking_check_stopped_at_is_due_again(breaks):
    fine = []

    @dg.asset
    def data():
        return dg.MaterializeResult(data_version=dg.DataVersion("same"))

    @dg.asset_check(asset=data, blocking=True)
    def sound():
        if breaks and not fine:
            raise UserError("cannot be asked")
        return dg.AssetCheckResult(passed=bool(fine))

    @dg.asset(deps=[data])
    def model():
        return dg.MaterializeResult(data_version=dg.DataVersion("same"))

    defs = dg.Definitions(
        [data, model],
        asset_checks=[sound],
        jobs=[dg.define_asset_job("lineage", selection=dg.AssetSelection.all())],
        loggers={"progress": progress_logger},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):  # the second time the data are fresh
            due = due_assets(defs, instance, stopped_at(defs, instance))
            assert [key.to_user_string() for key in due] == ["data", "model"]
            with pytest.raises(
                UserError, match="cannot be asked" if breaks else "stopped by failed checks: data: sound"
            ):
                run_job(defs.resolve_job_def("lineage"), instance, asset_selection=due)
        fine.append(True)
        due = due_assets(defs, instance, stopped_at(defs, instance))
        run_job(defs.resolve_job_def("lineage"), instance, asset_selection=due)
        assert due_assets(defs, instance, stopped_at(defs, instance)) == []


def test_a_bento_of_another_model_is_not_the_champion_s(tmp_path):
    paths = Paths(tmp_path, "starter")
    write_json(paths.champion, {"tag": "seehear:new", "digest": "d"})
    for version, due in (("old-c0de", True), ("new-c0de", False)):
        write_json(paths.bentoml / "bentos" / "seehear" / version / "bento.yaml", {})
        assert ("bento" in gone(paths)) == due


def test_what_writes_models_waits_for_another_that_does(tmp_path):
    project, lock = Project(root=str(tmp_path)), tmp_path / "var" / "models.lock"
    (tmp_path / "params.yaml").symlink_to(CODE / "params.yaml")
    held = []

    @in_turn
    def write(project: Project) -> None:
        with pytest.raises(BlockingIOError), turn_at(lock, wait=False):
            pass
        held.append(True)

    with ThreadPoolExecutor(1) as pool:
        with turn_at(lock):
            waiting = pool.submit(write, project=project)
            wait([waiting], timeout=0.5)
            assert not held
        waiting.result(timeout=30)
    assert held


@pytest.mark.parametrize(("told", "threads"), [("", 1), ("2", 2)])
def test_beside_busy_processes_a_training_takes_one_thread_unless_told_how_many(monkeypatch, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    spinning = [sys.executable, "-c", "import time\nwhile time.process_time() < 20: pass"]
    busy = [subprocess.Popen(spinning) for _ in os.sched_getaffinity(0)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        use_free_cores()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
        for process in busy:
            process.kill()
            process.wait()


def test_a_second_launch_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path):
    command = [sys.executable, "-m", "orchestration.launch"]
    (tmp_path / "params.yaml").symlink_to(CODE / "params.yaml")
    environment = {**os.environ, "SEEHEAR_ROOT": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "home")}
    with turn_at(tmp_path / "var" / "launch.lock"):
        second = subprocess.run(command, cwd=CODE, env=environment, capture_output=True, text=True, timeout=120)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"seehear: {tmp_path}: another `make run` is at work here; wait until it ends, or stop it"
    )
    assert (tmp_path / "var" / "dagster" / "dagster.yaml").is_file()
    assert not (tmp_path / "home").exists(), "the home that the shell names is somebody else's"
    with _alone(Project(root=str(tmp_path))):
        pass
