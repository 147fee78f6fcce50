"""The whole lineage on a user's own colour photographs and words, to a served answer, without a line changed."""

import json
import subprocess
from pathlib import Path

import own_data
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import SMALL, commit_all, copy_checkout, project_environment
from own_data import ADMIRAL, FLOWER, PRESENT, TEMPLE, TIGER

BRIEF = {  # enough to beat the commonest class of what is made here
    "image_classifier": {"steps": 50, "detector_steps": 10},
    "speech_classifier": {"cnn": {"steps": 40}, "rnn": {"steps": 30}, "lstm": {"steps": 30}},
    "speech_extractor": {"steps": 4},
    "evaluation": {"scenes": 4},
}


def set_quick(tree: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            set_quick(tree[key], value)
        else:
            tree[key]["quick"] = value


def checkout(place: Path, changes: dict) -> Path:
    project = copy_checkout(place)
    (project / "sources" / "folder" / "dvc.lock").unlink(missing_ok=True)  # of data that whoever runs this has
    file = project / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    set_quick(tree, changes)
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    commit_all(project)
    return project


def make_run(project: Path, own: Path) -> str:
    """What `make run SOURCE=folder FOLDER=…` prints, in a checkout whose environment is set up."""
    command = [project / ".venv" / "bin" / "python", "-m", "orchestration.launch"]
    environment = project_environment(project) | {"SEEHEAR_SOURCE": "folder", "SEEHEAR_FOLDER": str(own)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def prepared(project: Path, modality: str) -> tuple[dict, list[dict]]:
    place = project / "data" / "folder" / "prepared" / modality
    return json.loads((place / "meta.json").read_text()), pq.read_table(place / "index.parquet").to_pylist()


def set_aside(project: Path, modality: str) -> set[str]:
    return set(pq.read_table(project / "data/folder/validated" / modality / "quarantine.parquet")["id"].to_pylist())


def answer_in(said: str) -> dict:
    """The answer that a run prints at its end."""
    return json.loads(said[said.index("\n{") : said.index("\n}") + 2])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_photographs_and_words_lead_to_a_served_answer(tmp_path):
    """Four labels are pictured, three are spoken, two are both; one file of each kind is damaged. Three minutes."""
    own = own_data.make(
        tmp_path / "own data",
        {FLOWER: 30, TEMPLE: 30, ADMIRAL: 12, PRESENT: 10},
        {FLOWER: 36, TEMPLE: 24, TIGER: 12},
        sides=(24, 40),
    )
    (own / "images" / TEMPLE / "damaged.webp").write_bytes(b"RIFF")
    (own / "audio" / FLOWER / "damaged.ogg").write_bytes(b"OggS")
    project = checkout(tmp_path / "project", BRIEF)
    answer = answer_in(make_run(project, own))
    assert set(answer["pictured"]["probabilities"]) == {FLOWER, TEMPLE, ADMIRAL, PRESENT}
    assert answer["sample_rate_hz"] == 16000

    pictures, index = prepared(project, "images")
    assert pictures["channels"] == 3
    assert pictures["classes"] == sorted((FLOWER, TEMPLE, ADMIRAL, PRESENT))
    assert {(row["label"], row["split"]) for row in index} == {
        (label, split) for label in pictures["classes"] for split in ("train", "validation", "gate", "test")
    }
    sounds, index = prepared(project, "audio")
    assert sounds["sample_rate_hz"] == 16000
    assert sounds["split_rule"] == "groups"
    assert len({row["group"] for row in index}) == 12
    assert set_aside(project, "images") == {f"{TEMPLE}/damaged.webp"}
    assert set_aside(project, "audio") == {f"{FLOWER}/damaged.ogg"}

    report = json.loads((project / "reports" / "evaluation.json").read_text())
    assert report["source"] == "folder"
    assert report["image"]["n"] > 0
    assert report["extraction"]["word_accuracy"] is not None
    card = json.loads((project / "models/candidates/speech_extractor/model.json").read_text())
    assert card["classes"] == sorted((FLOWER, TEMPLE))
    changed = subprocess.run(["git", "diff", "--stat"], cwd=project, capture_output=True, text=True, check=True)
    assert changed.stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_to_five_hundred_items_a_class_lead_to_a_served_answer(tmp_path):
    """Three classes of 10, 60 and 500 items, rare ones of sight common ones of sound. About two minutes."""
    own = own_data.make(
        tmp_path / "own", {FLOWER: 10, TEMPLE: 60, ADMIRAL: 500}, {FLOWER: 60, TEMPLE: 500, ADMIRAL: 10}
    )
    project = checkout(tmp_path / "project", SMALL)
    answer = answer_in(make_run(project, own))
    assert set(answer["pictured"]["probabilities"]) == {FLOWER, TEMPLE, ADMIRAL}
    report = json.loads((project / "reports" / "evaluation.json").read_text())
    assert report["image"]["accuracy"] > 0.9
    assert report["speech"][report["speech"]["chosen"]]["accuracy"] > 0.95
    assert report["extraction"]["si_sdr_improvement_db"]["full_overlap"]["mean"] > 0
