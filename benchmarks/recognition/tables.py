"""The measured pieces as rows of tables and as figures in a sentence; what is missing stays None."""

from __future__ import annotations

import itertools
import operator
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.recognition.plan import EXTRA_SHARE, LEFT_OUT, SPEAKERS
from ml.config import SPEECH_KINDS
from ml.evaluation import metrics

Table = list[tuple[str, ...]]
VOICES = (0.0, EXTRA_SHARE)  # shares of synthetic voices: without them and with them


@dataclass(frozen=True)
class Results:
    """What docs/recognition.json holds."""

    budget: str
    chosen: Mapping[str, Sequence | None]
    pieces: Sequence[Mapping]

    def of(self, part: str, **fields) -> list[Mapping]:
        """The pieces of one part that have these fields, by seed, speaker left out and share of extra voices."""
        wanted = {"part": part, **fields}
        found = [piece for piece in self.pieces if all(piece[key] == value for key, value in wanted.items())]
        return sorted(found, key=operator.itemgetter("seed", "left_out", "extra_voices"))

    def one(self, part: str, **fields) -> Mapping | None:
        return next(iter(self.of(part, **fields)), None)


def percent(value: float | None, missing: str, places: int = 1) -> str:
    return missing if value is None else f"{100 * value:.{places}f} %"


def share(found: Mapping | None, missing: str) -> str:
    """Accuracy with its Wilson interval."""
    if not found:
        return missing
    low, high = metrics.wilson_interval(round(found["accuracy"] * found["n"]), found["n"])
    return f"{100 * found['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def overview(results: Results, missing: str, looks: tuple[str, str]) -> Table:
    """A row for every kind: accuracy over seeds, calibration, noise, unseen speakers, cost.

    looks: what is said of what was measured when a trained net looked at a sound but once, and of what was not where
    the rest of its row was.
    """
    rows = []
    for kind in SPEECH_KINDS:
        finals = results.of("final", kind=kind)
        if not finals:
            rows.append((kind.upper(), *[missing] * 9))
            continue
        first = finals[0]
        optimizer, rate = first["optimizer"], first["learning_rate"]
        rows.append(
            (
                _looking(kind, first, looks[0]),
                f"{first['parameters']:,}",
                f"{optimizer} {rate:g}",
                over_seeds(finals),
                percent(statistics.mean(one["noise"]["0"] for one in finals), missing),
                unseen(results, kind, missing) + _looks_apart(results, kind, first, looks[1]),
                f"{first['test']['ece_before']:.3f} → {first['test']['ece']:.3f}",
                f"{least_latency_ms(finals):.2f} ms",
                f"{first['bytes'] / 1000:.0f} kB",
                f"{min(one['cpu_s'] for one in finals):.0f} s",
            )
        )
    return rows


def _looking(kind: str, piece: Mapping, once: str) -> str:
    return kind.upper() if piece.get("looks", 1) > 1 else f"{kind.upper()} {once}"


def _looks_apart(results: Results, kind: str, final: Mapping, more: str) -> str:
    unseen = results.one("unseen", kind=kind)
    return f" {more}" if unseen and unseen.get("looks", 1) > final.get("looks", 1) else ""


def least_latency_ms(finals: Sequence[Mapping]) -> float:
    """Of equal models, the time of the one that other work disturbed least."""
    return min(one["latency_ms"] for one in finals)


def over_seeds(finals: Sequence[Mapping]) -> str:
    """Mean of the seeds with their range, and the interval of the first one."""
    found = [one["test"]["accuracy"] for one in finals]
    low, high = metrics.wilson_interval(round(found[0] * finals[0]["test"]["n"]), finals[0]["test"]["n"])
    spread = f" ({100 * min(found):.1f} – {100 * max(found):.1f}, n = {len(found)})" if len(found) > 1 else " (n = 1)"
    return f"{100 * statistics.mean(found):.2f} %{spread} [{100 * low:.1f}, {100 * high:.1f}]"


def unseen(results: Results, kind: str, missing: str) -> str:
    """The speakers whose figures chose nothing, without extra voices."""
    found = [one for one in results.of("unseen", kind=kind, extra_voices=0.0) if one["left_out"] in LEFT_OUT]
    return ", ".join(f"{one['left_out']} {100 * one['unseen']['accuracy']:.1f} %" for one in found) or missing


def pooled(results: Results, kind: str, extra: float, speakers: Sequence[str]) -> dict | None:
    """accuracy and n over all recordings of those of the speakers that were left out, each asked of the model that
    lacks it."""
    found = results.of("unseen", kind=kind, extra_voices=extra)
    found = [one["unseen"] for one in found if one["left_out"] in speakers]
    n = sum(one["n"] for one in found)
    return {"accuracy": sum(one["accuracy"] * one["n"] for one in found) / n, "n": n} if found else None


def asked_of_all(results: Results) -> list[str]:
    """The speakers whose figures chose nothing and whom every kind never heard, without extra voices."""
    pieces = {kind: results.of("unseen", kind=kind, extra_voices=0.0) for kind in SPEECH_KINDS}
    return [who for who in LEFT_OUT if all(who in {one["left_out"] for one in found} for found in pieces.values())]


def unseen_rows(results: Results, together: tuple[str, str], missing: str, once: str) -> Table:
    """A row for every kind and speaker left out; `together` those that chose nothing, and all, where others are there
    as well."""
    rows = []
    for kind in SPEECH_KINDS:
        pieces = results.of("unseen", kind=kind)
        left_out = [speaker for speaker in SPEAKERS if speaker in {one["left_out"] for one in pieces}]
        for speaker in left_out:
            pair = [results.one("unseen", kind=kind, left_out=speaker, extra_voices=e) for e in VOICES]
            figures = [share(one and one["unseen"], missing) for one in pair]
            rows.append((_looking(kind, next(filter(None, pair)), once), speaker, *figures))
        for name, group in zip(together, (LEFT_OUT, SPEAKERS), strict=True):
            if len(left_out) > 1 and (group is LEFT_OUT or set(left_out) - set(LEFT_OUT)):
                every = [pooled(results, kind, e, group) for e in VOICES]
                clips = [f"{share(one, missing)} (n = {one['n']:,})" if one else missing for one in every]
                rows.append((_looking(kind, pieces[0], once), name, *clips))
    return rows


def compared(results: Results) -> Table:
    """Exact McNemar of every seed's models on the same 300 clips: how many only one of the two has right, and p after
    Holm's correction for the pairs of that seed."""
    found: dict[str, list[tuple[str, str]]] = {}
    for seed in sorted({one["seed"] for one in results.of("final")}):
        models = {kind: results.one("final", kind=kind, seed=seed) for kind in SPEECH_KINDS}
        right = {kind: np.array([bit == "1" for bit in one["test"]["right"]]) for kind, one in models.items() if one}
        pairs = {f"{a} – {b}": (right[a], right[b]) for a, b in itertools.combinations(right, 2)}
        adjusted = metrics.holm_adjusted({name: metrics.mcnemar_p(*both) for name, both in pairs.items()})
        for name, (one, other) in pairs.items():
            only = f"{(one & ~other).sum()} : {(other & ~one).sum()}"
            found.setdefault(name, []).append((only, f"{adjusted[name]:.2f}"))
    return [
        (name.upper(), *(", ".join(column) for column in zip(*seeds, strict=True))) for name, seeds in found.items()
    ]


def grid_rows(results: Results, missing: str) -> Table:
    """Validation loss (and accuracy) of the grid: a row for every optimiser and rate, a column for every kind."""
    settings = sorted({(one["optimizer"], one["learning_rate"]) for one in results.of("grid")})
    rows = []
    for optimizer, rate in settings:
        found = [results.one("grid", kind=k, optimizer=optimizer, learning_rate=rate) for k in SPEECH_KINDS]
        cells = [f"{v['loss']:.3f} ({100 * v['accuracy']:.1f} %)" if v else missing for v in _validations(found)]
        rows.append((optimizer, f"{rate:g}", *cells))
    return rows


def _validations(found: Iterable[Mapping | None]) -> list[Mapping | None]:
    return [one and one["validation"] for one in found]


def noise_rows(results: Results, missing: str) -> Table:
    rows = []
    for kind in SPEECH_KINDS:
        finals = results.of("final", kind=kind)
        levels = ("-5", "0", "5", "10", "15", "20")
        cells = [
            percent(statistics.mean(f["noise"][s] for f in finals), missing) if finals else missing for s in levels
        ]
        rows.append((kind.upper(), *cells))
    return rows


def tried_rows(results: Results, names: Mapping[str, str], missing: str) -> Table:
    """Augmentation left out part by part: accuracy on a speaker who was left out of a short training."""
    rows = []
    for one in results.of("augmentation"):
        name = "voices" if one["extra_voices"] else one["changed"]
        rows.append((names[name], one["left_out"], share(one["unseen"], missing), str(one["steps"])))
    order = list(names.values())
    return sorted(rows, key=lambda row: (row[1], order.index(row[0])))


def layer_rows(results: Results, names: Mapping[str, str], missing: str) -> Table:
    return [
        (
            names[kind],
            f"{one['parameters']:,}" if one else missing,
            percent(one and one["validation"]["accuracy"], missing),
            percent(one and one["validation_0_db"]["accuracy"], missing),
        )
        for kind in names
        for one in [results.one("layers", kind=kind)]
    ]


def data_points(results: Results) -> dict[str, list[tuple[int, float]]]:
    """Accuracy on validation at 0 dB over the number of training clips."""
    points = {kind: results.of("data", kind=kind) for kind in SPEECH_KINDS}
    whole = results.one("layers", kind="cnn")
    if whole:
        points["cnn"] = [*points["cnn"], whole]
    return {
        kind: sorted((one["train_n"], one["validation_0_db"]["accuracy"]) for one in found)
        for kind, found in points.items()
        if found
    }


def markdown(header: Sequence[str], rows: Table, missing: str) -> str:
    if not rows:
        return f"*{missing}*"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
