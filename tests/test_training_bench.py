"""The benchmark of training on toy data: our loops beside the bare models and a usual loader, each a rate."""

import dataclasses

from toy_models import image_recipe, toy_images, toy_speech

from benchmarks import training as bench
from ml.config import Paths, load_settings


def test_our_loops_and_their_peers_are_all_timed(monkeypatch, tmp_path):
    settings = dataclasses.replace(load_settings(), image_classifier=image_recipe(2, 8))
    monkeypatch.setattr(bench, "load_settings", lambda root: settings)
    monkeypatch.setattr(bench.datasets, "load_images", lambda paths: toy_images())
    monkeypatch.setattr(bench.datasets, "load_speech", lambda paths: toy_speech())
    for name, few in (("STEPS", 2), ("ROUNDS", 2), ("WARM", 1)):
        monkeypatch.setattr(bench, name, few)
    rows = list(bench.compare(Paths(tmp_path, "toy")))
    assert [name.partition(",")[0] for name, *_ in rows] == ["training"] * 3 + ["extractor"] * 2
    assert [figure.rsplit(" ", 1)[1] for _, figure, _ in rows] == ["pictures/s"] * 3 + ["scenes/s"] * 2
    assert [ratio == "ours is 1.00x" for *_, ratio in rows[::3]] == [True, True]
    assert all(float(figure.split(" ")[0]) > 0 for _, figure, _ in rows)
