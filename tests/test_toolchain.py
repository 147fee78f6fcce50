"""The five tools live in one environment, in the versions that get along, and none of them phones home."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def call(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


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
