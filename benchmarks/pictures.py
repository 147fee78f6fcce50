"""The picture classifier over seeds: MNIST's test pictures, several things in one picture, and time to 99 %.

`python -m benchmarks pictures` trains the budget's recipe once for every seed (a training that was ended goes on where
it stood), measures it on the test pictures, which choose nothing, and puts the figures into docs/pictures.json and
from there into docs/pictures.md; what stands there by the present recipe is not measured again. `--page` writes the
page only.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.training import FAST, to_99
from ml import training
from ml.config import BUDGETS, Paths, Settings, UserError, load_paths, load_settings
from ml.datasets import ImageSet, load_images
from ml.evaluation.metrics import wilson_interval
from ml.evaluation.objects import object_figures
from ml.files import whole_file, write_json
from ml.predictor.classifying import PictureClassifier
from ml.training.loop import code_digest

BEGIN, END = "<!-- written by `python -m benchmarks pictures` -->", "<!-- end -->"
ACCURACY_GOAL, OBJECTS_GOAL, SECONDS_GOAL = 0.9975, 0.98, 15.0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pictures", description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, help="of params.yaml where none is said")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="train with the seeds 0 to N - 1 (default 5)")
    parser.add_argument("--page", action="store_true", help="only write docs/pictures.md from docs/pictures.json")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error(f"--seeds {asked.seeds}: expected at least 1")
    settings = load_settings()
    how = dataclasses.replace(settings.training, budget=asked.budget or settings.training.budget)
    settings, paths = dataclasses.replace(settings, training=how), load_paths(settings)
    file = paths.root / "docs" / "pictures.json"
    if not asked.page:
        measure(settings, paths, range(asked.seeds), file)
    write_page(file)


def measure(settings: Settings, paths: Paths, seeds: Sequence[int], file: Path) -> None:
    """Trains and measures every seed that `file` lacks, and the time to 99 % where the pictures are MNIST's."""
    images, recipe, budget = load_images(paths), settings.image_classifier, settings.training.budget
    own = {name: getattr(recipe, name).of(budget) for name in ("steps", "detector_steps")}
    about = {"source": paths.source, "budget": budget, "recipe": _digest(images, dataclasses.asdict(recipe) | own)}
    for seed in seeds:
        name, known = f"{paths.source}, {budget}, seed {seed}", read(file)
        if known.get(name, {}).get("recipe") != about["recipe"]:
            made_by = code_digest()[:8]
            folder = paths.var / "benchmarks" / "pictures" / f"{about['recipe']}-{made_by}-{seed}"
            found = _one_seed(settings, images, seed, folder)
            write_json(file, {**known, name: {**about, "seed": seed, "machine": machine(), **found}})
    name, known, fast = f"{paths.source}, to 99 %", read(file), _digest(images, dataclasses.asdict(recipe) | FAST)
    if known.get(name, {}).get("recipe") != fast and (found := to_99(images, recipe, settings.training)):
        write_json(file, {**known, name: {"recipe": fast, "machine": machine(), **found}})


def _digest(images: ImageSet, told: Mapping) -> str:
    """Changes with the pictures and whatever a training is told but its seed."""
    return hashlib.sha256(json.dumps([images.digest, told], sort_keys=True).encode()).hexdigest()[:12]


def _one_seed(settings: Settings, images: ImageSet, seed: int, folder: Path) -> dict[str, object]:
    """Figures of one seed's model, which is trained unless it lies in `folder` already."""
    recipe, how = settings.image_classifier, dataclasses.replace(settings.training, seed=seed)
    if not (folder / "model").is_dir():
        training.train_image_classifier(images, recipe, how, folder / "model", folder / "kept")
    classifier, test = PictureClassifier(folder / "model", "cpu"), images.where("test")
    right = (classifier(test.pixels)[0].argmax(1) == test.labels).mean()
    count, seed_of_pictures = settings.evaluation.scenes.of(how.budget), settings.evaluation.seed
    return {
        "accuracy": float(right),
        "n": len(test),
        "objects": object_figures(classifier, images, "test", count, seed_of_pictures),
        "validation_accuracy": classifier.card["metrics"]["validation_accuracy"],
        **{name: classifier.card[name] for name in ("steps", "train_s", "parameters")},
    }


def read(file: Path) -> dict[str, dict]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write_page(file: Path) -> None:
    """Puts what `file` holds between the marks of the page beside it; UserError where it has none."""
    page = file.with_suffix(".md")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: expected the lines {BEGIN} and {END}, between which the figures stand")
    with whole_file(page) as new:
        new.write_text(f"{before}{begin}\n\n{table(read(file))}\n\n{end}{after}", encoding="utf-8")


def table(records: Mapping[str, dict]) -> str:
    """What was measured, a line for every budget, beside the goals."""
    lines = [
        f"| budget | seeds | named right (goal {100 * ACCURACY_GOAL:.2f} %, mean of 5) | several things, F1 (goal "
        f"{OBJECTS_GOAL}) | training of one, s (median) | machine |",
        "|---" * 6 + "|",
    ]
    groups: dict[tuple[str, ...], list[dict]] = {}
    for record in records.values():
        if "seed" in record:
            groups.setdefault((record["source"], record["budget"], record["recipe"]), []).append(record)
    lines += [_row(found) for found in groups.values()]
    fast = [
        f"{one['steps']} steps of {one['batch_size']} give {_spread(one['accuracies'], 100)} % of the test pictures in "
        f"{_spread(one['seconds'], 1, 1)} s ({len(one['seconds'])} seeds, {one['machine']}; goal: 99 % within "
        f"{SECONDS_GOAL:g} s)."
        for one in records.values()
        if "seconds" in one
    ]
    return "\n".join([*lines, "", *fast]).strip()


def _row(found: list[dict]) -> str:
    first = min(found, key=lambda one: one["seed"])
    low, high = wilson_interval(round(first["accuracy"] * first["n"]), first["n"])
    objects = [one["objects"]["f1"] for one in found]
    cells = (
        f"{first['source']}, {first['budget']} ({first['steps']:,} steps)",
        str(len(found)),
        f"{_spread([one['accuracy'] for one in found], 100)} % [{100 * low:.2f}, {100 * high:.2f}]",
        _spread(objects, 1, 3),
        f"{statistics.median(one['train_s'] for one in found):.0f}",
        first["machine"],
    )
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], scale: float, places: int = 2) -> str:
    """Mean (least – most) of several, or the only one."""
    mean, low, high = (f"{scale * one:.{places}f}" for one in (np.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} – {high})"
