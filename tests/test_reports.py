"""Evidently's reports: the figures are those of the predictions, every page opens offline, one run per evaluation."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from data_checks import reports
from data_checks.reports import write_evaluation_report
from ml.config import UserError

EVALUATION = {"source": "starter", "budget": "quick", "seed": 0, "image": {"accuracy": 0.95, "n": 200}}
MODELS = ("image_classifier", "speech_classifier/cnn")


def make_predictions(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frames = []
    for model in MODELS:
        label = np.repeat(np.arange(5), 40).astype(str)
        predicted = np.where(rng.random(200) < 0.05, rng.integers(0, 5, 200), label).astype(object)
        frame = pd.DataFrame({"model": model, "id": [f"{model}-{i}" for i in range(200)], "label": label})
        frames.append(frame.assign(predicted=predicted, confidence=rng.beta(20, 1, 200), split="test"))
    predictions = pd.concat(frames, ignore_index=True)
    predictions.loc[:3, "predicted"] = None  # the image classifier knows nothing of four pictures
    return predictions


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    out = tmp_path_factory.mktemp("reports")
    return out, write_evaluation_report(EVALUATION, make_predictions(), out)


def runs(out: Path) -> dict[str, dict]:
    """Every run of the workspace by the name of its file."""
    return {file.name: json.loads(file.read_text()) for file in sorted(out.glob("evidently/*/snapshots/*.json"))}


def metric(run: dict, name: str) -> float:
    return next(one["value"] for one in run["metric_results"].values() if one["display_name"].startswith(name))


def test_every_model_has_a_page_and_a_run(reported):
    out, files = reported
    assert {model: file.relative_to(out).as_posix() for model, file in files.items()} == {
        "image_classifier": "evaluation/image_classifier.html",
        "speech_classifier/cnn": "evaluation/speech_classifier_cnn.html",
    }
    assert sorted(run["tags"][0] for run in runs(out).values()) == list(MODELS)
    names = {json.loads(file.read_text())["name"] for file in out.glob("evidently/*/metadata.json")}
    assert names == {"SeeHear evaluation"}


def test_the_accuracy_is_that_of_the_predictions(reported):
    out, _ = reported
    for run in runs(out).values():
        rows = make_predictions().query("model == @run['tags'][0]")
        assert metric(run, "Accuracy") == pytest.approx((rows["label"] == rows["predicted"]).mean())


def test_pages_open_without_a_network(reported):
    for file in reported[1].values():
        page = file.read_text()
        assert len(page) > 1_000_000  # the scripts are inside
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)


def test_pages_say_how_often_nothing_was_known(reported):
    files = reported[1]
    assert "4; the means below count it as one more label" in files["image_classifier"].read_text()
    assert "the means below count" not in files["speech_classifier/cnn"].read_text()


def test_the_same_evaluation_again_replaces_and_another_one_adds(tmp_path):
    write_evaluation_report(EVALUATION, make_predictions(), tmp_path)
    first = set(runs(tmp_path))
    write_evaluation_report(EVALUATION, make_predictions(), tmp_path)
    assert set(runs(tmp_path)) == first
    write_evaluation_report({**EVALUATION, "seed": 1}, make_predictions(1), tmp_path)
    assert len(runs(tmp_path)) == 4
    assert first < set(runs(tmp_path))
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".")]


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(UserError, match="expected the column confidence"):
        write_evaluation_report(EVALUATION, make_predictions().drop(columns="confidence"), tmp_path)


def test_no_predictions_are_refused(tmp_path):
    with pytest.raises(UserError, match="got no row"):
        write_evaluation_report(EVALUATION, make_predictions()[:0], tmp_path)


def test_evidently_is_imported_on_use_only():
    program = "import sys, data_checks.reports, data_checks.drift; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_telemetry_is_off(monkeypatch):
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    reports.load_evidently()
    from evidently.telemetry import event_logger

    assert not event_logger.is_enabled()


@contextmanager
def evidently_ui(workspace: Path):
    """Evidently's UI as `make reports` starts it: its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("evidently"))
    command = [program, "ui", "--workspace", str(workspace), "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "DO_NOT_TRACK": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/api/version"), 120)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def test_the_ui_shows_the_runs_and_a_new_one_at_once(reported):
    out, _ = reported
    with evidently_ui(out / reports.WORKSPACE) as address:
        project = requests.get(f"{address}/api/projects", timeout=30).json()[0]

        def shown() -> list[str]:
            found = requests.get(f"{address}/api/projects/{project['id']}/snapshots", timeout=30).json()
            return sorted(run["name"] for run in found)

        assert project["name"] == "SeeHear evaluation"
        before = shown()
        assert [name.split()[0] for name in before] == list(MODELS)
        write_evaluation_report({**EVALUATION, "seed": 2}, make_predictions(2), out)
        wait_for(lambda: len(shown()) == 4, 30)
