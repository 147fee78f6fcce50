"""What happened when: printed as it happens, then kept as Markdown, JSON and a plot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml.evaluation import metrics
from ml.files import whole_file, write_json

COLOURS = {"usual speakers": "#4a6fa5", "new speaker, noisy line": "#b3541e"}


@dataclass(frozen=True)
class Measured:
    """Right answers among n of one kind of traffic on one day of the story."""

    day: int
    who: str
    right: int
    n: int
    model: str

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    def __str__(self) -> str:
        low, high = metrics.wilson_interval(self.right, self.n)
        interval = f"95 % interval {low:.1%} to {high:.1%}"
        return f"{self.who}: {self.accuracy:.1%} right ({interval}, n = {self.n}), model {self.model[:8]}"


@dataclass
class Timeline:
    """Events with the story's day and the seconds since the demo began."""

    events: list[dict] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def tell(self, day: int, what: str, mark: str = "") -> None:
        """mark: a short word for the plot, "" for none."""
        seconds = round(time.monotonic() - self.began)
        self.events.append({"day": day, "s": seconds, "what": what, "mark": mark})
        print(f"  day {day}  {seconds // 60}:{seconds % 60:02d}  {what}", flush=True)

    def measure(self, measured: Measured) -> Measured:
        self.measured.append(measured)
        self.tell(measured.day, str(measured))
        return measured

    def keep(self, folder: Path) -> Path:
        """Write timeline.md, timeline.json and timeline.png; returns the plot."""
        rows = [
            f"| {e['day']} | {e['s'] // 60}:{e['s'] % 60:02d} | {e['what'].replace('|', '/')} |" for e in self.events
        ]
        with whole_file(folder / "timeline.md") as new:
            lines = ["# make demo-drift", "", "| day | minutes | what |", "| --- | --- | --- |", *rows]
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        figures = [vars(one) | {"accuracy": one.accuracy} for one in self.measured]
        write_json(folder / "timeline.json", {"events": self.events, "measured": figures})
        _draw(self.measured, self.events, folder / "timeline.png")
        return folder / "timeline.png"


def _draw(measured: Sequence[Measured], events: Sequence[dict], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    for who, colour in COLOURS.items():
        mine = [one for one in measured if one.who == who]
        bounds = [metrics.wilson_interval(one.right, one.n) for one in mine]
        points = zip(mine, bounds, strict=True)
        errors = [[one.accuracy - low, high - one.accuracy] for one, (low, high) in points]
        days, shares = [one.day for one in mine], [one.accuracy for one in mine]
        axis.errorbar(
            days, shares, list(zip(*errors, strict=True)) or None, fmt="o-", color=colour, capsize=3, label=who
        )
    for number, event in enumerate(one for one in events if one["mark"]):
        axis.axvline(event["day"] + 0.5, color="grey", linestyle=":", linewidth=1)
        axis.text(event["day"] + 0.52, 0.03 + 0.07 * (number % 3), event["mark"], fontsize=7, color="dimgrey")
    axis.set_xlabel("day of the story")
    axis.set_ylabel("words recognised")
    axis.set_ylim(0, 1.02)
    axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.25))
    with whole_file(file) as new:
        figure.savefig(new, format="png")
