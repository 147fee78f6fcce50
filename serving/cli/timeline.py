"""The timeline of a search: one row per recording, a bar where the pictured word is said, coloured by its score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml.config import UserError
from ml.files import whole_file

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    from ml.predictor import Finding

LONGEST_NAME = 44
WIDTH_IN, ROW_IN, HEAD_IN, FOOT_IN = 10.0, 0.34, 1.0, 0.42
INK, FAINT, TRACK = "#1f2430", "#8a90a0", "#e9ebf0"


def draw_timeline(
    target: Path, pixels: np.ndarray, label: str, rows: list[tuple[str, Finding]], said: int, searched: int
) -> None:
    """Draw the findings of `rows`, the surest on top, to a .png or .svg; pixels (h, w, c): the picture searched for.

    said of all the searched recordings say it; rows may be fewer. Raises UserError where `target` cannot be written.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    from ml.evaluation.plots import drawable

    height_in = HEAD_IN + FOOT_IN + ROW_IN * max(1, len(rows))
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    colours = LinearSegmentedColormap.from_list("score", colormaps["YlGnBu"](np.linspace(0.22, 1, 64)))
    axes = figure.add_axes((0.31, FOOT_IN / height_in, 0.60, ROW_IN * max(1, len(rows)) / height_in))
    for place, (_, found) in enumerate(rows):
        _draw_row(axes, place, found, colours)
    _dress(axes, [(drawable(_short(name)), found) for name, found in rows])
    title = f"“{drawable(label)}” is said in {said} of {searched} recordings"
    _head(figure, pixels, title, len(rows), searched, height_in)
    _scale(figure, colours, height_in)
    try:
        with whole_file(target) as new:
            figure.savefig(new, format=target.suffix.lower()[1:])
    except OSError as fault:
        raise UserError(f"{target}: cannot be written: {fault.strerror}") from None


def _draw_row(axes: Axes, place: int, found: Finding, colours: LinearSegmentedColormap) -> None:
    axes.barh(place, found.duration_s, height=0.5, color=TRACK, linewidth=0, zorder=1)
    spans = [(span.start_s, span.end_s - span.start_s) for span in found.intervals]
    shades = [colours(span.score) for span in found.intervals]
    # the edge keeps a word visible among hours
    axes.broken_barh(spans, (place - 0.33, 0.66), facecolors=shades, edgecolors=shades, linewidth=0.9, zorder=3)


def _dress(axes: Axes, rows: list[tuple[str, Finding]]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    longest_s = max((found.duration_s for _, found in rows), default=1.0)
    axes.set(xlim=(0, 1.004 * longest_s), ylim=(max(1, len(rows)) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8.5)
    axes.tick_params(length=0, colors=INK, labelsize=8.5)
    for tick, (_, found) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(INK if found.present else FAINT)
    for place, (_, found) in enumerate(rows):
        text = f"{found.presence:.0%}" if found.present else "–"
        colour = INK if found.present else FAINT
        axes.text(1.012, place, text, transform=axes.get_yaxis_transform(), fontsize=8.5, va="center", color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at_s, _: _clock(at_s, longest_s)))
    axes.grid(axis="x", color="white", linewidth=1.0)
    axes.set_axisbelow("line")  # above the tracks, below the words
    for side in axes.spines.values():
        side.set_visible(False)


def _head(figure: Figure, pixels: np.ndarray, title: str, shown: int, searched: int, height_in: float) -> None:
    side = 0.62
    picture = figure.add_axes((0.02, 1 - (side + 0.16) / height_in, side / WIDTH_IN, side / height_in))
    picture.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", interpolation="nearest")
    picture.set(xticks=[], yticks=[])
    for line in picture.spines.values():
        line.set_edgecolor(FAINT)
    figure.text(0.105, 1 - 0.36 / height_in, title, fontsize=13, weight="bold", color=INK, va="center")
    more = f"the {shown} surest of {searched}" if shown < searched else "the surest first"
    figure.text(0.105, 1 - 0.64 / height_in, more, fontsize=9, color=FAINT, va="center")
    figure.text(0.9172, 1 - 0.92 / height_in, "presence", fontsize=8, color=FAINT, va="center")


def _scale(figure: Figure, colours: LinearSegmentedColormap, height_in: float) -> None:
    import numpy as np

    scale = figure.add_axes((0.77, 1 - 0.60 / height_in, 0.14, 0.10 / height_in))
    scale.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colours, extent=(0, 1, 0, 1))
    scale.set(yticks=[], xticks=[0, 0.5, 1])
    scale.tick_params(length=0, labelsize=7.5, colors=FAINT, pad=2)
    scale.set_title("score", fontsize=8, color=FAINT, pad=3)
    for line in scale.spines.values():
        line.set_visible(False)


def _short(name: str) -> str:
    """A name that fits its column, its middle left out where it is long."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


def _clock(at_s: float, longest_s: float) -> str:
    if longest_s < 60:
        return f"{at_s:g} s"
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if longest_s >= 3600 else f"{minutes}:{seconds:02d}"
