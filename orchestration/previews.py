"""Pictures for the Dagster UI: sample sheets, spectrograms and curves as inline Markdown."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np


def picture_sheet(samples: Sequence[tuple[str, np.ndarray]]) -> dg.MarkdownMetadataValue:
    """A row of pictures, each uint8 (height, width, channels), under its label."""
    from ml.evaluation.plots import drawable

    figure, axes = _grid(len(samples))
    for axis, (label, pixels) in zip(axes, samples, strict=True):
        axis.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(drawable(label), fontsize=8)
        axis.axis("off")
    return _markdown(figure, "samples")


def spectrogram_sheet(samples: Sequence[tuple[str, np.ndarray]], rate_hz: int) -> dg.MarkdownMetadataValue:
    """A row of spectrograms, each of a waveform (samples,) in [-1, 1], under its label."""
    from matplotlib.mlab import specgram

    from ml.evaluation.plots import drawable

    figure, axes = _grid(len(samples), height=1.6)
    for axis, (label, waveform) in zip(axes, samples, strict=True):
        power, _, _ = specgram(waveform, NFFT=256, Fs=rate_hz, noverlap=192)
        extent = (0, len(waveform) / rate_hz, 0, rate_hz / 2000)
        decibels = 10 * np.log10(np.asarray(power) + 1e-9)
        axis.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-90)
        axis.set_title(drawable(label), fontsize=8)
        axis.tick_params(labelsize=5)
    return _markdown(figure, "spectrograms")


def learning_curve(history: Sequence[Mapping[str, float]]) -> dg.MarkdownMetadataValue:
    """One small panel per figure of `history` (rows of numbers, not all of them in each) over the step."""
    names = [name for name in dict.fromkeys(name for row in history for name in row) if name != "step"]
    figure, axes = _grid(max(len(names), 1), width=2.6, height=1.8)
    for axis, name in zip(axes, names, strict=False):
        points = [(row["step"], row[name]) for row in history if row.get(name) is not None]
        axis.plot([at for at, _ in points], [value for _, value in points])
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
    return _markdown(figure, "learning curves")


def table(rows: Sequence[Mapping[str, object]]) -> dg.TableMetadataValue | dg.TextMetadataValue:
    """A table of `rows`, every cell as text or number; "none" where there are none."""
    if not rows:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table([dg.TableRecord({key: _cell(value) for key, value in row.items()}) for row in rows])


def quarantine(rows: Sequence[Mapping[str, Any]], how_to_release: str) -> dg.MarkdownMetadataValue:
    """Items set aside (`preview`: PNG or None, id, shard, reason) as a table, under how one is released."""
    lines = [how_to_release, "", "| preview | file | shard | reason |", "| --- | --- | --- | --- |"]
    for row in rows:
        shown = (
            f"![preview](data:image/png;base64,{base64.b64encode(row['preview']).decode()})" if row["preview"] else ""
        )
        cells = (shown, *(str(row[name]).replace("|", "\\|") for name in ("id", "shard", "reason")))
        lines.append(f"| {' | '.join(cells)} |")
    return dg.MetadataValue.md("\n".join(lines) if rows else f"none\n\n{how_to_release}")


def image_file(file: Path) -> dg.MarkdownMetadataValue:
    """A PNG on disk, shown inline."""
    return dg.MetadataValue.md(f"![{file.stem}](data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()})")


def _cell(value: object) -> str | float | int | bool | None:
    return value if isinstance(value, str | float | int | bool) or value is None else str(value)


def _grid(count: int, width: float = 1.0, height: float = 1.2):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width * count, 2), height), dpi=110, layout="constrained")
    return figure, figure.subplots(1, max(count, 1), squeeze=False)[0]


def _markdown(figure, name: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")
