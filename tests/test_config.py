"""Settings: whole, typed, and refused with one clear line where they are wrong."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from ml.config import Paths, UserError, load_settings, project_root

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SOURCE", "MIRROR", "FOLDER", "BUDGET", "SEED", "DEVICE"):
        monkeypatch.delenv(f"SEEHEAR_{name}", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def change(project: Path, section: str, key: str, value: object) -> None:
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree[section][key] = value
    (project / "params.yaml").write_text(yaml.safe_dump(tree))


def test_the_projects_own_settings_load(project):
    settings = load_settings(project)
    assert settings.data.source == "starter"
    assert settings.training.budget == "quick"
    assert settings.image_classifier.steps.of("quick") < settings.image_classifier.steps.of("full")


def test_settings_cannot_be_changed_after_reading(project):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings(project).data.source = "folder"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_environment_overrides_the_file(project, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "mnist-fsdd")
    monkeypatch.setenv("SEEHEAR_SEED", "7")
    settings = load_settings(project)
    assert (settings.data.source, settings.training.seed) == ("mnist-fsdd", 7)


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("data", "sorce", "starter", "data.sorce: unknown key; expected one of source"),
        ("data", "source", "starters", "data.source: expected one of starter, mnist-fsdd, folder, got 'starters'"),
        ("data", "test_share", 1.5, "data.test_share: expected a share from 0 up to 1, got 1.5"),
        ("data", "seed", "zero", "data.seed: expected int, got 'zero'"),
        ("training", "budget", "huge", "training.budget: expected one of quick, medium, full"),
        ("image_classifier", "batch_size", -1, "image_classifier.batch_size: expected a number from"),
        ("image_classifier", "optimizer", "adam", "image_classifier.optimizer: expected one of adamw, sgd, muon"),
        ("image_classifier", "steps", 5, "image_classifier.steps: expected a section of keys, got 5"),
        ("retraining", "cooldown_hours", 400, "retraining.cooldown_hours: expected at most max_cooldown_hours, 336"),
        ("training", "seed", -1, "training.seed: expected a whole number from 0 to 4294967295, got -1"),
        ("evaluation", "seed", 2**40, "evaluation.seed: expected a whole number from 0 to 4294967295"),
        ("evaluation", "scenes", {"quick": 0, "medium": 1, "full": 1}, "scenes.quick: expected a number from 1 up"),
        ("promotion", "margin", float("nan"), "promotion.margin: expected a finite number, got nan"),
        ("image_classifier", "batch_size", 0, "image_classifier.batch_size: expected a number from 1 up, got 0"),
        ("data", "test_share", 0.8, "data.validation_share + gate_share + test_share: expected less than 1"),
        ("data", "gate_share", 0, "data.gate_share: expected a number above 0, got 0"),
        ("data", "image_side", 0, "data.image_side: expected a number from 8 to 512, got 0"),
        ("data", "sample_rate_hz", 16, "data.sample_rate_hz: expected a number from 4000 to 192000, got 16"),
        ("training", "seed", True, "training.seed: expected int, got True"),
        ("image_classifier", "detector_batch_size", 0, "detector_batch_size: expected a number from 1 up, got 0"),
        ("image_classifier", "detector_channels", 1, "detector_channels: expected a number from 2 to 4096, got 1"),
        ("speech_extractor", "disguised", {"quick": 0, "medium": 2, "full": 1}, "medium: expected a number from 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(project, section, key, value, said):
    change(project, section, key, value)
    with pytest.raises(UserError) as refused:
        load_settings(project)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_quietest_noise_is_not_louder_than_the_loudest(project):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["speech_classifier"]["cnn"]["noise"]["least_snr_db"] = 30
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"cnn\.noise\.least_snr_db: expected at most most_snr_db, 20, got 30"):
        load_settings(project)


def test_a_missing_setting_is_named(project):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    del tree["monitoring"]["alpha"]
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"monitoring\.alpha: missing"):
        load_settings(project)


def test_a_word_of_the_command_line_that_is_wrong_is_named(project, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SEED", "often")
    with pytest.raises(UserError, match="SEEHEAR_SEED='often': expected a whole number"):
        load_settings(project)


def test_a_wrong_value_of_the_environment_is_blamed_on_its_variable(project, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "starters")
    with pytest.raises(UserError, match=r"^SEEHEAR_SOURCE: data\.source: expected one of starter, .*'starters'"):
        load_settings(project)


@pytest.mark.parametrize("content", [b"data: [unclosed", b"data: caf\xe9"], ids=["not YAML", "not UTF-8"])
def test_unreadable_settings_are_one_line(project, content):
    (project / "params.yaml").write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_settings(project)
    assert "\n" not in str(refused.value)


def test_a_file_without_its_sections_is_one_line_whatever_the_environment_says(project, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "folder")
    file = project / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"data": None}))
    with pytest.raises(UserError, match="data: expected a section of keys, got None"):
        load_settings(project)
    file.write_text("- data")
    with pytest.raises(UserError, match="the file: expected a section of keys"):
        load_settings(project)


def test_another_dvc_project_is_not_taken_for_this_one(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("train: {lr: 0.1}")
    (tmp_path / "inside").mkdir()
    monkeypatch.delenv("SEEHEAR_ROOT", raising=False)
    monkeypatch.chdir(tmp_path / "inside")
    assert project_root() == ROOT
    (tmp_path / "sources").mkdir()
    assert project_root() == tmp_path
    with pytest.raises(UserError, match=f"^{tmp_path}/params.yaml: train: unknown key"):
        load_settings()


def test_only_the_default_source_has_its_pipeline_in_the_root(tmp_path):
    assert Paths(tmp_path, "starter").pipeline == tmp_path / "dvc.yaml"
    assert Paths(tmp_path, "mnist-fsdd").pipeline == tmp_path / "sources" / "mnist-fsdd" / "dvc.yaml"
