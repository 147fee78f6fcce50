"""The five tools live in one environment, in the versions that get along, and none of them phones home."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

TWO_ASSETS = """
import dagster as dg

@dg.asset
def raw_images(): ...

@dg.asset(deps=[raw_images])
def image_dataset(): ...

@dg.asset
def raw_audio(): ...

defs = dg.Definitions(assets=[raw_images, image_dataset, raw_audio])
"""


def call(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_a_string_selects_assets_on_the_command_line(tmp_path):
    (tmp_path / "two.py").write_text(TWO_ASSETS)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "orchestration" / "dagster.yaml").read_text())
    said = call(
        str(BIN / "dagster"), "asset", "materialize", "--select", 'key:"raw_images"+', "-f", "two.py",
        cwd=tmp_path, DAGSTER_HOME=str(home),
    )  # fmt: skip
    assert "raw_images - STEP_SUCCESS" in said
    assert "image_dataset - STEP_SUCCESS" in said
    assert "raw_audio - STEP" not in said


def test_dvc_reproduces_pushes_and_pulls(tmp_path):
    project, remote = tmp_path / "project", tmp_path / "remote"
    project.mkdir()
    (project / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"made": {"cmd": "echo sound > made.txt", "outs": ["made.txt"]}}})
    )
    dvc = str(BIN / "dvc")
    call("git", "init", "-q", cwd=project)
    call(dvc, "init", "-q", cwd=project)
    call(dvc, "remote", "add", "-d", "store", str(remote), cwd=project)
    call(dvc, "repro", cwd=project)
    call(dvc, "push", cwd=project)
    for gone in ("made.txt", ".dvc/cache/files"):
        call("rm", "-r", gone, cwd=project)
    call(dvc, "pull", cwd=project)
    assert (project / "made.txt").read_text() == "sound\n"
    assert json.loads(call(dvc, "status", "--json", "-q", cwd=project) or "{}") == {}


def test_evidently_and_bentoml_import_beside_the_others():
    tools = "import dagster, dvc.repo, great_expectations, evidently, bentoml, torch, torchvision, torchaudio"
    call(sys.executable, "-c", tools, cwd=ROOT)


def test_every_pin_of_the_lock_is_what_is_installed():
    lines = [line.split(" ")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) > 200
    assert {name: importlib.metadata.version(name) for name in pins} == pins


def test_the_lock_holds_hashes_and_no_addresses():
    text = (ROOT / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") > text.count("==")
    assert "://" not in text


@pytest.mark.parametrize(
    "switch", ["BENTOML_DO_NOT_TRACK := True", "DO_NOT_TRACK := 1", "GX_ANALYTICS_ENABLED := false"]
)
def test_the_makefile_switches_telemetry_off(switch):
    assert f"export {switch}" in (ROOT / "Makefile").read_text()


def test_dvc_and_dagster_keep_to_themselves():
    assert call(str(BIN / "dvc"), "config", "core.analytics", cwd=ROOT).strip() == "false"
    assert yaml.safe_load((ROOT / "orchestration" / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
