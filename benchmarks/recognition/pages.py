"""docs/recognition.md and its Chinese sister, from docs/recognition.json and, for pictures of their insides, models."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import cast

import numpy as np

from benchmarks.recognition import plots, tables
from benchmarks.recognition.languages import CHINESE, ENGLISH, Language
from benchmarks.recognition.plan import LEFT_OUT, SPEAKERS
from benchmarks.recognition.tables import Results, markdown
from ml import datasets, models
from ml.config import SPEECH_KINDS, Paths, UserError
from ml.evaluation import metrics
from ml.evaluation.plots import save
from ml.files import whole_file

HERE = Path(__file__).parent
SHOWN_SPEAKER = "george"


def write(paths: Paths) -> list[Path]:
    """Writes both pages and their pictures under docs/; pictures of models only where the models are at hand."""
    docs = paths.root / "docs"
    try:
        kept = json.loads((docs / "recognition.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{docs / 'recognition.json'}: nothing measured yet; run `python -m benchmarks recognition`"
        ) from None
    results = Results(kept["budget"], kept["chosen"], list(kept["pieces"].values()))
    _draw_figures(results, docs)
    _draw_models(kept["pieces"], paths, docs)
    return [write_page(results, docs, language) for language in (ENGLISH, CHINESE)]


def write_page(results: Results, docs: Path, language: Language) -> Path:
    """One page in one language."""
    missing, page = language.missing, Template((HERE / language.template).read_text())
    rows = {
        "overview": tables.overview(results, missing, language.looks),
        "compared": tables.compared(results),
        "goals": _goals(results, language),
        "layers": tables.layer_rows(results, language.layers, missing),
        "noise": tables.noise_rows(results, missing),
        "unseen": tables.unseen_rows(results, language.together, missing, language.looks[0]),
        "tried": tables.tried_rows(results, language.tried, missing),
        "grid": tables.grid_rows(results, missing),
        "data": [
            (kind.upper(), ", ".join(f"{n:,} {language.clips}: {100 * v:.1f} %" for n, v in points))
            for kind, points in tables.data_points(results).items()
        ],
    }
    words = {
        "missing": missing,
        "budget": results.budget,
        "machine": ", ".join(sorted({piece["machine"] for piece in results.pieces})) or missing,
        "choosing": ", ".join(sorted({piece["left_out"] for piece in results.of("augmentation")})) or missing,
        "advice": _advice(results, language),
    }
    filled = {name: markdown(language.headers[name], table, missing) for name, table in rows.items()}
    file = docs / language.file
    with whole_file(file) as new:
        new.write_text(page.substitute(words | filled), encoding="utf-8")
    return file


def _advice(results: Results, language: Language) -> str:
    """One line for each question, with the figures of all three kinds, the best first."""
    mean, finals = statistics.mean, {kind: results.of("final", kind=kind) for kind in SPEECH_KINDS}
    finals = {kind: found for kind, found in finals.items() if found}
    speakers = tables.asked_of_all(results)
    strangers = {kind: tables.pooled(results, kind, 0.0, speakers) for kind in SPEECH_KINDS}
    questions: list[tuple[dict[str, float], Callable[[float], str], bool]] = [
        (
            {k: mean(one["test"]["accuracy"] for one in f) for k, f in finals.items()},
            lambda v: f"{100 * v:.2f} %",
            True,
        ),
        ({k: one["accuracy"] for k, one in strangers.items() if one}, lambda v: f"{100 * v:.1f} %", True),
        ({k: tables.least_latency_ms(f) for k, f in finals.items()}, lambda v: f"{v:.2f} ms", False),
        ({k: mean(one["noise"]["0"] for one in f) for k, f in finals.items()}, lambda v: f"{100 * v:.1f} %", True),
        ({k: min(one["cpu_s"] for one in f) for k, f in finals.items()}, lambda v: f"{v:.0f} s", False),
    ]
    lines = []
    for line, (found, shown, most_first) in zip(language.advice, questions, strict=True):
        ranked = sorted(found, key=lambda kind: found[kind], reverse=most_first)
        said = ", ".join(f"{kind.upper()} {shown(found[kind])}" for kind in ranked) or language.missing
        lines.append(Template(line).substitute(value=said, speakers=", ".join(speakers)))
    return "\n".join(lines)


def _goals(results: Results, language: Language) -> tables.Table:
    """The goals of recognition with what was measured for each."""
    finals = {kind: results.of("final", kind=kind) for kind in SPEECH_KINDS}
    official = {k: statistics.mean(one["test"]["accuracy"] for one in f) for k, f in finals.items() if f}
    noise = [statistics.mean(one["noise"]["0"] for one in f) for f in finals.values() if f]
    groups = (LEFT_OUT, SPEAKERS)
    heard = [tables.pooled(results, "cnn", extra, group) for group in groups for extra in tables.VOICES]
    measured = (
        (max(official.values(), default=None), 0.998),
        (official.get("rnn"), 0.985),
        (official.get("lstm"), 0.985),
        (max(noise, default=None), 0.95),
        *((one and one["accuracy"], 0.95) for one in heard),
    )
    return [
        (name, tables.percent(value, language.missing, 2), "" if value is None else language.met[value < goal])
        for name, (value, goal) in zip(language.goals, measured, strict=True)
    ]


def _draw_figures(results: Results, docs: Path) -> None:
    finals = {kind: results.one("final", kind=kind, seed=0) for kind in SPEECH_KINDS}
    bars = []
    for kind, one in finals.items():
        if one:
            bars.append((f"{kind}, official 300", *_with_interval(one["test"])))
    for one in results.of("unseen"):
        name = f"{one['kind']}, {one['left_out']} never heard" + (" (+ voices)" if one["extra_voices"] else "")
        bars.append((name, *_with_interval(one["unseen"])))
    save(plots.interval_figure(bars, "the comparison, first seed"), docs / "recognition-accuracy.png")
    save(
        plots.noise_figure({kind: one["noise"] for kind, one in finals.items() if one}), docs / "recognition-noise.png"
    )
    save(plots.data_figure(tables.data_points(results)), docs / "recognition-data.png")


def _with_interval(found: Mapping) -> tuple[float, float, float]:
    accuracy, n = found["accuracy"], found["n"]
    return accuracy, *metrics.wilson_interval(round(accuracy * n), n)


def _draw_models(pieces: Mapping[str, Mapping], paths: Paths, docs: Path) -> None:
    """Spectrograms, filters, states and gates; what is missing here leaves the picture that is there."""
    folder = paths.var / "recognition" / "models"
    found = {one["kind"]: folder / key for key, one in pieces.items() if one["part"] == "final" and one["seed"] == 0}
    if set(found) != set(SPEECH_KINDS) or not all((place / models.CARD).is_file() for place in found.values()):
        return
    cnn, rnn, lstm = (models.load_model(found[kind])[0] for kind in ("cnn", "rnn", "lstm"))
    speech = datasets.load_speech(paths).where("validation")
    of_speaker = np.flatnonzero(speech.group == SHOWN_SPEAKER)
    _, first = np.unique(speech.labels[of_speaker], return_index=True)  # one clip of every word
    rows = of_speaker[first].tolist()
    shown = plots.spectrum_of(speech, rows[min(7, len(rows) - 1)])
    save(plots.sounds_figure(speech, rows), docs / "recognition-sounds.png")
    save(plots.cnn_figure(cast(models.SpeechCNN, cnn), shown), docs / "recognition-cnn.png")
    both = cast(models.SpeechRecurrent, rnn), cast(models.SpeechRecurrent, lstm)
    save(plots.recurrent_figure(*both, shown), docs / "recognition-recurrent.png")
