"""The DVC stages, run by the real tool in a repository of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import data_stages

from ml import media
from ml.config import SOURCES, Paths
from ml.datasets import load_images
from orchestration.mending import dvc_hash

REPOSITORY = Path(__file__).resolve().parents[1]
PIPELINE = "sources/folder/dvc.yaml"
STAGES = ("raw", "facts", "validated", "prepared")


def tool(root: Path, *words: str) -> subprocess.CompletedProcess:
    """`dvc WORDS` as a person calls it; its answer and complaints together in stdout."""
    environment = os.environ | {"SEEHEAR_PYTHON": sys.executable, "SEEHEAR_FOLDER": "own"}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def ran(answer: subprocess.CompletedProcess) -> list[str]:
    """The stages that an answer of `dvc repro` says were run."""
    lines = [line for line in answer.stdout.splitlines() if line.startswith("Running stage")]
    return [line.split("'")[1].split(":")[-1] for line in lines]


def content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def write_pictures(root: Path, count: int) -> None:
    shutil.rmtree(root / "own", ignore_errors=True)
    for number in range(count):
        file = root / "own" / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(media.encode_png(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository with the code, settings and stages of this one, and the images of the source `folder` made once."""
    root = data_stages(tmp_path_factory.mktemp("repository"))
    write_pictures(root, 60)
    answer = tool(root, "repro", f"{PIPELINE}:prepared@images")
    assert answer.returncode == 0, answer.stdout
    assert ran(answer) == [f"{stage}@images" for stage in STAGES]
    return root


def test_every_stage_leaves_its_output_and_the_lock_names_it(made):
    lock = yaml.safe_load((made / "sources/folder/dvc.lock").read_text())["stages"]
    assert set(lock) == {f"{stage}@images" for stage in STAGES}
    assert all("md5" in out for stage in lock.values() for out in stage["outs"])
    assert len(load_images(Paths(made, "folder"))) == 60


def test_the_lock_says_nothing_about_this_machine(made):
    text = (made / "sources/folder/dvc.lock").read_text()
    assert str(made) not in text
    assert sys.executable not in text
    assert "own" not in text


def test_an_unchanged_source_runs_nothing_after_it(made):
    answer = tool(made, "repro", f"{PIPELINE}:prepared@images")
    assert answer.returncode == 0, answer.stdout
    assert ran(answer) == ["raw@images"], "the user's files are read anew each time, and nothing else"


def test_a_changed_setting_makes_stale_only_what_it_concerns(made):
    file = made / "params.yaml"
    former = file.read_text()
    settings = yaml.safe_load(former)
    settings["data"] |= {"sample_rate_hz": 4000, "mirror": "elsewhere", "folder": "elsewhere", "source": "folder"}
    file.write_text(yaml.safe_dump(settings))
    assert "images" not in stale(made)
    settings["data"]["image_side"] = 12
    file.write_text(yaml.safe_dump(settings))
    assert stale(made) == "prepared@images"
    file.write_text(former)


def stale(root: Path) -> str:
    """The stages for images that `dvc status` finds out of date, but for raw, which always is."""
    targets = [f"{PIPELINE}:{stage}@images" for stage in STAGES[1:]]
    lines = tool(root, "status", *targets).stdout.splitlines()
    named = [line.strip(":").split(":")[-1] for line in lines if line and not line[0].isspace() and "@" in line]
    return " ".join(named)


def test_pushed_data_comes_back_the_same(made):
    place = Paths(made, "folder").prepared("images")
    former = content(place)
    assert tool(made, "push", f"{PIPELINE}:prepared@images").returncode == 0
    assert any((made / "data" / "remote").rglob("*.dir"))
    shutil.rmtree(place)
    shutil.rmtree(made / ".dvc" / "cache")
    answer = tool(made, "pull", f"{PIPELINE}:prepared@images")
    assert answer.returncode == 0, answer.stdout
    assert content(place) == former


def test_data_that_fails_its_checks_stops_the_line_and_leaves_the_last_good_set(made):
    paths = Paths(made, "folder")
    former = content(paths.prepared("images"))
    write_pictures(made, 60)
    for file in sorted((made / "own" / "images" / "a").iterdir()):
        file.write_bytes(b"no picture")
    answer = tool(made, "repro", f"{PIPELINE}:prepared@images")
    assert answer.returncode != 0
    assert ran(answer) == [f"{stage}@images" for stage in STAGES]
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("seehear: ")]
    assert "folder images: the data failed their checks (image_decodable" in line
    assert "Traceback" not in answer.stdout
    assert content(paths.prepared("images")) == former


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_the_same_stages_over_files_that_exist(source):
    file = Paths(REPOSITORY, source).pipeline
    stages = yaml.safe_load(file.read_text())["stages"]
    assert tuple(stages) == STAGES
    for stage in stages.values():
        own = stage.get("do", stage)
        commands = own["cmd"] if isinstance(own["cmd"], list) else [own["cmd"]]
        assert all(line.startswith(r"\${SEEHEAR_PYTHON:-.venv/bin/python} -m ") for line in commands)
        assert all(f" {source} " in line for line in commands)
        assert (REPOSITORY / file.parent / own.get("wdir", ".")).resolve() == REPOSITORY
        assert all(out[next(iter(out))] == {"persist": True} for out in own["outs"])
        code = [dep for dep in own["deps"] if not dep.startswith("data/")]
        assert code
        assert all((REPOSITORY / dep).exists() for dep in code)


def without_caches(path: Path) -> str:
    """DVC's hash of a file, or of a folder without what .dvcignore names."""
    if path.is_file():
        return dvc_hash(path)
    with tempfile.TemporaryDirectory() as copy:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        return dvc_hash(shutil.copytree(path, Path(copy) / path.name, ignore=ignored))


@pytest.mark.parametrize("lock", ["dvc.lock", "sources/mnist-fsdd/dvc.lock"])
def test_the_tracked_locks_belong_to_the_code_and_settings_that_are_here(lock):
    settings = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    stages = yaml.safe_load((REPOSITORY / lock).read_text())["stages"]
    assert set(stages) == {f"{stage}@{modality}" for stage in STAGES for modality in ("images", "audio")}
    for name, stage in stages.items():
        for dep in stage["deps"]:
            if not dep["path"].startswith("data/"):
                now = without_caches(REPOSITORY / dep["path"])
                assert dep["md5"] == now, f"{name}: {dep['path']} changed; run `dvc repro` for {lock}"
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            section, setting = key.split(".")
            assert settings[section][setting] == value, f"{name}: {key} changed; run `dvc repro` for {lock}"
