"""The picture classifier over seeds: trained, measured and written beside the goals, each seed once."""

import dataclasses
import json

import pytest
from toy_models import image_recipe, toy_images

from benchmarks import pictures
from ml.config import Paths, Training, UserError, load_settings


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What measures toy pictures with so many seeds, the file of its figures, and the seeds that were trained."""
    file, trained = tmp_path / "docs" / "pictures.json", []
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pictures.md").write_text(f"before\n{pictures.BEGIN}\nold\n{pictures.END}\nafter\n")
    evaluation = load_settings().evaluation
    settings = dataclasses.replace(
        load_settings(),
        image_classifier=image_recipe(30, 16, 8),
        training=Training("quick", "cpu", 0),
        evaluation=dataclasses.replace(evaluation, scenes=dataclasses.replace(evaluation.scenes, quick=4)),
    )
    monkeypatch.setattr(pictures, "load_images", lambda paths: toy_images())
    really = pictures.training.train_image_classifier

    def counted(images, recipe, how, *places):
        trained.append(how.seed)
        return really(images, recipe, how, *places)

    monkeypatch.setattr(pictures.training, "train_image_classifier", counted)
    return lambda seeds: pictures.measure(settings, Paths(tmp_path, "toy"), seeds, file), file, trained


def test_every_seed_is_trained_once_and_stands_beside_the_goal(measured):
    measure, file, trained = measured
    measure(range(1))
    measure(range(2))
    assert trained == [0, 1]
    records = json.loads(file.read_text())
    assert list(records) == [f"toy, quick, seed {seed}" for seed in range(2)], "time to 99 % is MNIST's alone"
    assert all(0.9 < one["accuracy"] <= 1 and one["objects"]["pictures"] == 4 for one in records.values())
    pictures.write_page(file)
    page = file.with_suffix(".md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "| toy, quick (30 steps) | 2 |" in page
    file.write_text("{}")
    measure([1])
    assert trained == [0, 1], "its model was there"
    assert json.loads(file.read_text())["toy, quick, seed 1"] == records["toy, quick, seed 1"]


def test_a_page_without_its_marks_is_refused(measured):
    _, file, _ = measured
    file.with_suffix(".md").write_text("no marks")
    with pytest.raises(UserError, match=r"pictures\.md: expected the lines"):
        pictures.write_page(file)


def test_seconds_to_99_percent_are_told_with_their_spread():
    fast = {"steps": 370, "batch_size": 64, "seconds": [13.0, 14.0], "accuracies": [0.99, 0.992], "machine": "m"}
    assert (
        "370 steps of 64 give 99.10 (99.00 – 99.20) % of the test pictures in 13.5 (13.0 – 14.0) s"
        in pictures.table({"MNIST, to 99 %": fast})
    )
