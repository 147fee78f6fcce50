"""The history of champions for people: one table and one plot, in the UI and under reports/champion/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ml.config import Paths
from ml.files import whole_file
from orchestration import champion

COLOURS = {champion.PROMOTED: "#2a7f62", champion.ROLLED_BACK: "#b3541e"}
COLUMNS = ("champion", "since", "until", "by", "data", "why")


def write_history(paths: Paths, now: datetime) -> Path:
    """Write reports/champion/history.md and history.png; returns the plot."""
    folder = paths.reports / "champion"
    rows = champion.reigns(paths)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *([str(row[name]) or "now" for name in COLUMNS] for row in rows)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    with whole_file(folder / "history.md") as new:
        new.write_text(f"# Champions\n\n{table}\n", encoding="utf-8")
    kept = [row for row in champion.history(paths) if row["event"] == champion.KEPT]
    _draw(rows[::-1], kept, now, folder / "history.png")
    return folder / "history.png"


def _draw(reigns: Sequence[Mapping], kept: Sequence[Mapping], now: datetime, file: Path) -> None:
    """One bar a reign, its model's line shared with its other reigns; crosses are challengers that were kept out."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

    def day(stamp: str) -> float:
        return float(date2num(datetime.fromisoformat(stamp) if stamp[:1].isdigit() else now))

    models = list(dict.fromkeys(row["champion"] for row in reigns))
    figure = Figure(figsize=(8, 1.3 + 0.35 * len(models)), dpi=110, layout="constrained")
    axis = figure.subplots()
    for row in reigns:
        start, end = day(row["since"]), day(row["until"])
        axis.barh(models.index(row["champion"]), end - start, left=start, height=0.6, color=COLOURS[row["by"]])
    axis.plot([day(row["at"]) for row in kept], [-0.8] * len(kept), "x", color="grey", label="challenger kept out")
    for event, colour in COLOURS.items():
        axis.barh(0, 0, color=colour, label=event.replace("_", " "))
    axis.set_yticks(range(len(models)), [model.partition(":")[2][:12] for model in models], fontsize=7)
    axis.xaxis.set_major_locator(locator := AutoDateLocator())
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 1.0))
    axis.set_title("Champions over time", fontsize=9)
    with whole_file(file) as new:
        figure.savefig(new, format="png")
