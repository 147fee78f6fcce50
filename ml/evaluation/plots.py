"""Pictures for people: PNG files drawn with matplotlib's Agg canvas, without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from ml.evaluation.examples import Example
from ml.evaluation.metrics import reliability
from ml.evaluation.oracles import stft
from ml.files import whole_file

LARGEST_IN = 80.0  # of a plot's side; ten times as long none can be drawn
INK, PALE, WARM = "#1f4e79", "#9db8d2", "#c8553d"


def save(figure: Figure, file: Path) -> Path:
    with whole_file(file) as new:
        figure.savefig(new, format="png", dpi=110)
    return file


def drawable(text: str) -> str:
    """The text with every sign that the plots' font lacks as its number, so that two labels stay two: 寺 as U+5BFA."""
    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(sign if font.get_char_index(ord(sign)) else f"U+{ord(sign):04X} " for sign in text).strip()
    return shown.replace("$", r"\$")  # two of them would be a formula


def confusion_figure(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Counts of true class (rows) against predicted class (columns); labels and predicted (n,) index `classes`."""
    count = len(classes)
    table = np.zeros((count, count), int)
    np.add.at(table, (labels, predicted), 1)
    width, height = (min(LARGEST_IN, inches) for inches in (2 + 0.42 * count, 1.8 + 0.4 * count))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.log1p(table), cmap="Blues")
    for row, column in zip(*np.nonzero(table), strict=True):
        shade = "white" if table[row, column] > table.max() / 8 else "black"
        axes.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=shade)
    names = [drawable(name) for name in classes]
    axes.set_xticks(range(count), names, rotation=60)
    axes.set_yticks(range(count), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def curves_figure(histories: Mapping[str, Sequence[Mapping]]) -> Figure:
    """One panel per model: every number of its history over the step."""
    figure = Figure(figsize=(4 * len(histories), 3.2), layout="constrained")
    panels = figure.subplots(1, len(histories), squeeze=False)[0]
    for axes, (name, history) in zip(panels, histories.items(), strict=True):
        for key in _numbers(history):
            rows = [row for row in history if isinstance(row.get(key), int | float)]
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=key, marker=".", markersize=3)
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
        if history:
            axes.legend(fontsize=7)
    return figure


def _numbers(history: Sequence[Mapping]) -> list[str]:
    """Keys worth a curve: losses and accuracies."""
    keys = {key for row in history for key, value in row.items() if isinstance(value, int | float)}
    return sorted(keys - {"step"})


def reliability_figure(answers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Accuracy over confidence for every model; answers: name to confidences (n,) and correct (n,) bool."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, (confidences, correct) in answers.items():
        confidence, gap, _ = reliability(confidences, correct)
        axes.plot(confidence, confidence + gap, marker="o", markersize=3, label=name)
    axes.set(
        xlabel="confidence", ylabel="accuracy", title="Does it know how sure it may be?", xlim=(0, 1.02), ylim=(0, 1.02)
    )
    axes.legend(fontsize=8)
    return figure


def overlap_figure(gains_db: Mapping[str, np.ndarray], oracle_db: Mapping[str, float | None]) -> Figure:
    """SI-SDR improvement of every scene by overlap, with the oracle masks of full overlap as lines."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    names = [name for name, values in gains_db.items() if len(values)]
    if names:
        axes.boxplot([gains_db[name] for name in names], showfliers=False)
        axes.set_xticks(range(1, len(names) + 1), [name.replace("_", " ") for name in names])
    for name, value in oracle_db.items():
        if value is not None:
            axes.axhline(value, color=PALE, linestyle="--", linewidth=1)
            axes.annotate(f"oracle {name}", (0.52, value), fontsize=7, va="bottom", color=INK)
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(ylabel="SI-SDR improvement, dB", title="What extraction gains over the mixture")
    return figure


def extraction_figure(example: Example) -> Figure:
    """One extraction: the picture, then mixture, target and estimate as spectrograms, with true and found intervals."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    left, right = cast(np.ndarray, figure.subfigures(1, 2, width_ratios=(1, 3.4)))
    axes = left.subplots()
    axes.imshow(example.picture.squeeze(), cmap="gray")
    axes.set_title(f"pictured: {drawable(example.label)}\nheard: {drawable(example.heard or 'nothing')}", fontsize=10)
    axes.axis("off")
    waveforms = {"mixture": example.mixture, "target": example.target, "estimate": example.estimate}
    for axes, (name, waveform) in zip(right.subplots(3, 1, sharex=True), waveforms.items(), strict=True):
        _spectrogram(axes, waveform, example.rate_hz)
        axes.set_ylabel(name)
        found = name == "estimate"
        _mark(axes, example.found_s if found else example.true_s, WARM if found else "white")
        axes.set_title(f"dashed: where the word {'was found' if found else 'is'}", fontsize=8, loc="right", pad=2)
    axes.set_xlabel("seconds")
    return figure


def _spectrogram(axes, waveform: np.ndarray, rate_hz: int) -> None:
    level_db = 20 * np.log10(np.maximum(stft(waveform[None])[0].abs().numpy(), 1e-4))  # (bins, frames)
    extent = (0.0, len(waveform) / rate_hz, 0.0, rate_hz / 2)
    axes.imshow(level_db, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-60, vmax=25)


def _mark(axes, intervals: Sequence[tuple[float, float]], colour: str) -> None:
    for start_s, end_s in intervals:
        for edge_s in (start_s, end_s):
            axes.axvline(edge_s, color=colour, linestyle="--", linewidth=1.2)
