"""The whole lineage on real input: through the UI's API, from the command line, and after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import requests
import yaml
from conftest import commit_all, copy_checkout, free_port, project_environment

from ml.config import Paths
from ml.predictor import read_goldens
from serving import client, packaging

pytestmark = pytest.mark.timeout(1200)

LAUNCH = """
mutation($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, runConfigData: {}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ASSETS = "{ assetNodes { assetKey { path } groupName staleStatus assetMaterializations(limit: 1) { runId } } }"
SWITCHES = """
query($selector: RepositorySelector!) {
  repositoryOrError(repositorySelector: $selector) {
    ... on Repository { schedules { name } sensors { name } jobs { name } }
  }
}"""
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "orchestration.definitions"}


def ask(url: str, query: str, **variables) -> dict:
    answer = requests.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


@contextmanager
def user_interface(project):
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
    log = (project / "var" / "ui.log").open("w")
    process = subprocess.Popen(
        command, cwd=project, env=project_environment(project), stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield wait_for(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # its servers wait for each other now and then
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(url: str, process) -> str:
    for _ in range(240):
        assert process.poll() is None, "dagster dev stopped"
        try:
            if requests.get(f"{url}/server_info", timeout=2).ok:
                return url
        except requests.ConnectionError:
            time.sleep(0.5)
    raise AssertionError("dagster dev never answered")


def finished(url: str, run_id: str) -> str:
    while True:
        status = ask(url, RUN, id=run_id)["runOrError"]["status"]
        if status in ("SUCCESS", "FAILURE", "CANCELED"):
            return status
        time.sleep(1)


def make_run(project, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.launch"],
        cwd=project,
        env=project_environment(project) | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def materialized(small_project):
    """The lineage, materialized whole over the API that the UI's buttons call."""
    (small_project / "var" / "dagster").mkdir(parents=True)
    (small_project / "var" / "dagster" / "dagster.yaml").write_text(
        (small_project / "orchestration" / "dagster.yaml").read_text()
    )
    with user_interface(small_project) as url:
        launched = ask(url, LAUNCH, selector=REPOSITORY | {"jobName": "lineage"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        status = finished(url, launched["run"]["runId"])
        switches = ask(url, SWITCHES, selector=REPOSITORY)
        return {"project": small_project, "status": status, "assets": ask(url, ASSETS), "switches": switches}


def test_materializing_everything_from_the_ui_works(materialized):
    assert materialized["status"] == "SUCCESS", (materialized["project"] / "var" / "ui.log").read_text()[-4000:]
    for node in materialized["assets"]["assetNodes"]:
        if node["assetKey"]["path"] not in (["drift_report"], ["retraining_decisions"]):
            assert node["assetMaterializations"], node
            assert node["staleStatus"] == "FRESH", node


def test_schedules_and_sensors_are_there_to_be_switched(materialized):
    shown = materialized["switches"]["repositoryOrError"]
    assert {"daily_drift", "weekly_retraining"} <= {schedule["name"] for schedule in shown["schedules"]}
    assert {"retraining_policy", "champion_watch", "alert_on_failure"} <= {s["name"] for s in shown["sensors"]}
    assert {"lineage", "retraining", "rollback", "drift_monitoring"} <= {job["name"] for job in shown["jobs"]}


@pytest.fixture(scope="module")
def second_run(materialized):
    return make_run(materialized["project"])


def test_a_second_run_materializes_nothing_again(second_run):
    assert second_run.returncode == 0, second_run.stderr[-3000:]
    assert "everything is up to date" in second_run.stderr


def test_a_run_ends_with_results_an_answer_of_the_service_and_where_to_look(second_run):
    for said in ("pictures recognised", "words recognised, lstm", "separation, full overlap", '"pictured"', "make ui"):
        assert said in second_run.stdout


def test_nothing_that_git_tracks_was_changed(materialized, second_run):
    said = subprocess.run(["git", "status", "--porcelain"], cwd=materialized["project"], capture_output=True, text=True)
    assert said.stdout == ""


def test_the_evaluation_keeps_its_contract(materialized):
    report = json.loads((materialized["project"] / "reports" / "evaluation.json").read_text())
    assert {"source", "budget", "seed", "device", "git", "settings", "data", "image", "speech", "extraction"} <= set(
        report
    )
    assert {"accuracy", "ci95", "n", "ece", "parameters", "train_s"} <= set(report["image"])
    for kind in ("cnn", "rnn", "lstm"):
        wanted = {"accuracy", "ci95", "n", "unseen_speaker_accuracy", "ece", "parameters", "latency_ms", "train_s"}
        assert wanted <= set(report["speech"][kind])
    found = report["extraction"]
    for overlap in ("full_overlap", "partial_overlap", "no_overlap"):
        assert set(found["si_sdr_improvement_db"][overlap]) >= {"mean", "median", "p5", "below_zero", "n"}
    assert {"irm", "psm", "complex"} <= set(found["oracle_db"])
    assert {
        "unseen_speaker", "baselines", "word_accuracy", "word_accuracy_unprocessed", "word_accuracy_clean",
        "presence_auc", "miss_at_1pct_false_alarm", "boundary_error_ms_median", "localisation_map",
        "image_swap_success", "parameters", "real_time_factor", "train_s",
    } <= set(found)  # fmt: skip


def test_the_answers_of_a_day_get_a_drift_report(materialized, second_run):
    """So few of them are not enough to tell; what a run asked its service nobody has sent, so it is not among them."""
    project, day = materialized["project"], datetime.now(UTC).date().isoformat()
    paths = Paths(project, "starter")
    assert not paths.prediction_log.exists()
    tag = packaging.read_champion(paths).tag
    golden = read_goldens(packaging.stored_bundle(tag, paths))[0]
    with client.serve(packaging.bento_of(tag, paths), paths) as url:
        client.ask(url, golden.picture, golden.recording)
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "orchestration.definitions"]
    done = subprocess.run(
        [*command, "--select", 'key:"drift_report"', "--partition", day],
        cwd=project,
        env=project_environment(project),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = json.loads((project / "reports" / "drift" / day / "verdict.json").read_text())
    assert verdict["state"] == "not_enough_data"
    assert verdict["n_window"] > 0
    assert (project / "reports" / "drift" / day / "drift.html").stat().st_size > 10_000


@pytest.mark.slow  # a minute; that every stage and every training goes on alike is tested for each of them
def test_a_kill_in_the_middle_leaves_nothing_half_done(materialized, second_run):
    """A setting of one model changes, its training is killed, and the next run ends where an undisturbed one would."""
    project = materialized["project"]
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["speech_classifier"]["rnn"]["steps"]["quick"] = 50
    (project / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    killed = subprocess.Popen(
        [sys.executable, "-m", "orchestration.launch"],
        cwd=project,
        env=project_environment(project),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert killed.stderr is not None
    for line in killed.stderr:
        if "speech_classifier/rnn" in line.decode():
            time.sleep(2)
            os.killpg(killed.pid, signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    done = make_run(project)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "speech_classifier/cnn" not in done.stderr, "only what hangs on the setting is made anew"
    rnn = json.loads((project / "models/candidates/speech_classifier/rnn/model.json").read_text())
    report = json.loads((project / "reports" / "evaluation.json").read_text())
    assert rnn["steps"] == 50
    assert report["settings"]["speech_classifier"]["rnn"]["steps"] == 50
    assert list((project / "models" / "candidates").rglob(".*")) == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SEEHEAR_SOURCE": "strater"}, "data.source: expected one of starter, mnist-fsdd, folder, got 'strater'"),
        ({"SEEHEAR_BUDGET": "tiny"}, "training.budget: expected one of quick, medium, full, got 'tiny'"),
        pytest.param({"SEEHEAR_SOURCE": "folder"}, "folder", marks=pytest.mark.slow),
        pytest.param({"SEEHEAR_SOURCE": "mnist-fsdd", "SEEHEAR_MIRROR": "nowhere"}, "nowhere", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_word_ends_in_one_clear_line(tmp_path, environment, said):
    project = copy_checkout(tmp_path / "project")
    commit_all(project)
    done = make_run(project, **environment)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("seehear: ")
    assert said in last
    assert "Traceback" not in done.stderr
