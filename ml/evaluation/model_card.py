"""The card of a model version: what it is for, what it was made of and how, what it is worth and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ml.config import UserError
from ml.evaluation import metrics
from ml.evaluation.gate import GateAnswers
from ml.evaluation.promotion import Decision, slices

INTENDED = (
    "Given a picture and a recording: say what is pictured, whether that word is spoken, when, and give back its sound."
    " For the labels named here, for pictures and recordings like those it was made of."
)
NOT_INTENDED = (
    "Identifying people by voice or handwriting, transcribing free speech, and any decision about a person."
    " Words and languages other than the labels named here are not recognised."
)
NOT_MEASURED = "not measured: the gate split has too few items of it"
WEAK = 0.9  # a slice whose share of right answers lies below this is named as a limit


def model_card(
    report: Mapping, gate: GateAnswers, decision: Decision, about: Mapping, least_slice: int, bootstrap: int
) -> dict:
    """The card as plain JSON values.

    report: evaluation.json; gate: the model's own answers to the gate split; about: what the caller knows: `version`,
    `digest`, `made`, `labels`, `licences` and `items` of the data, `licence` of the model. Raises UserError naming
    the field that is empty.
    """
    chosen = report["speech"]["chosen"]
    card = {
        "model": {name: about[name] for name in ("version", "digest", "made", "labels", "licence")}
        | {"git": report["git"]},
        "intended_use": INTENDED,
        "not_intended_for": NOT_INTENDED,
        "data": {"source": report["source"], "versions": dict(report["data"])}
        | {name: about[name] for name in ("items", "licences")},
        "how_made": {
            "seed": _set(report["settings"], chosen, "seed"),
            "device": report["device"],
            "libraries": report["versions"],
            "speech_classifier": chosen,
            "steps": _set(report["settings"], chosen, "steps"),
            "train_s": {name: part["train_s"] for name, part in _parts(report, chosen).items()},
            "parameters": {name: part["parameters"] for name, part in _parts(report, chosen).items()},
        },
        "test_figures": _test_figures(report, chosen),
        "gate_figures": _gate_figures(gate, bootstrap, report["seed"]),
        "gate_decision": decision.reason,
        "slices": _slices(gate, least_slice),
    }
    card["limits"] = _limits(report, card["slices"])
    if empty := list(_empty(card, "")):
        raise UserError(f"model card: {', '.join(empty)}: empty; a model whose card is not whole is not promoted")
    return card


def _parts(report: Mapping, chosen: str) -> dict[str, Mapping]:
    names = {"image_classifier": report["image"], "speech_classifier": report["speech"][chosen]}
    return names | {"speech_extractor": report["extraction"]}


def _set(settings: Mapping, chosen: str, key: str) -> dict:
    """What a setting was for each of the models, which one run may have set otherwise than params.yaml."""
    sections = {name: settings[name] for name in ("image_classifier", "speech_extractor")}
    sections["speech_classifier"] = settings["speech_classifier"][chosen]
    return {name: section[key] for name, section in sections.items()}


def _test_figures(report: Mapping, chosen: str) -> list[dict]:
    """Accuracies and separation on the test split, which decided nothing."""
    rows = [
        {"figure": name, "value": one["accuracy"], "interval": one["ci95"], "n": one["n"]}
        for name, one in (("image_accuracy", report["image"]), ("speech_accuracy", report["speech"][chosen]))
    ]
    for overlap, one in report["extraction"]["si_sdr_improvement_db"].items():
        if one:
            name = f"si_sdr_improvement_db, {overlap.replace('_', ' ')}"
            rows.append({"figure": name, "value": one["mean"], "interval": one["mean_ci95"], "n": one["n"]})
    return [row | {key: NOT_MEASURED for key in ("value", "interval") if row[key] is None} for row in rows]


def _gate_figures(gate: GateAnswers, bootstrap: int, seed: int) -> list[dict]:
    rows = []
    for one in gate.scored:
        value = one.figure()
        if value is not None and one.name.endswith("accuracy"):
            interval = list(metrics.wilson_interval(int(one.scores.sum()), len(one)))
        else:
            interval = one.interval(bootstrap, seed)
        shown = {"value": NOT_MEASURED if value is None else value, "interval": interval or NOT_MEASURED}
        rows.append({"figure": one.name, **shown, "n": len(one)})
    return rows


def _slices(gate: GateAnswers, least: int) -> list[dict]:
    return [
        {"figure": _said(one.name), "slice": name, "value": float(one.by_item[rows].mean()), "n": len(rows)}
        for one in gate.scored
        for name, rows in slices(one, least)
    ]


def _said(name: str) -> str:
    return "presence decided rightly" if name == "presence_auc" else name


def _limits(report: Mapping, found: Sequence[Mapping]) -> list[str]:
    weak = [row for row in found if row["figure"] != "si_sdr_improvement_db" and row["value"] < WEAK]
    limits = [
        f"{row['figure']} for {row['slice']}: {row['value']:.2f} (n = {row['n']})"
        for row in sorted(weak, key=lambda row: row["value"])
    ]
    if miss := report["extraction"]["miss_at_1pct_false_alarm"]:
        limits.append(f"misses {miss:.0%} of the spoken words at 1 % false alarms, on the test scenes")
    return [
        *limits,
        "measured on scenes mixed from single words, not on recordings of free conversation",
        "presence is judged on scenes of seconds; of longer recordings more are said to hold a word that nobody says",
    ]


def _empty(value: object, name: str) -> Iterator[str]:
    """Names of the fields that say nothing."""
    if isinstance(value, Mapping | list | tuple) and len(value):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            yield from _empty(part, f"{name}.{key}" if name else str(key))
    elif value is None or (isinstance(value, str | Mapping | list | tuple) and not (str(value).strip() and len(value))):
        yield name


def card_text(card: Mapping) -> str:
    """The card for people, as Markdown."""
    model, data, made = card["model"], card["data"], card["how_made"]
    parts = [
        f"# Model card: {model['version']}",
        f"Made {model['made']} from commit {model['git']}; digest {model['digest']}; licence {model['licence']}.",
        f"Labels: {', '.join(model['labels'])}.",
        f"## Intended use\n\n{card['intended_use']}\n\nNot intended for: {card['not_intended_for']}",
        f"## Data\n\nSource {data['source']}.\n\n{_table(_pairs(data['versions'], 'data', 'version'))}",
        _table([{"items": name, **counts} for name, counts in data["items"].items()]),
        _table(data["licences"]),
        f"## How it was made\n\n{_table(_pairs(made, 'what', 'value'))}",
        f"## Figures on the test split\n\n{_table(card['test_figures'])}",
        f"## Figures on the gate split\n\n{_table(card['gate_figures'])}\n\n{card['gate_decision']}",
        f"## Slices of the gate split\n\n{_table(card['slices'])}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in card["limits"]),
    ]
    return "\n\n".join(parts) + "\n"


def _pairs(tree: Mapping, key: str, value: str) -> list[dict]:
    return [{key: name, value: one} for name, one in tree.items()]


def _table(rows: Sequence[Mapping]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_shown(cell) for cell in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, list):
        return " to ".join(map(_shown, cell))
    if isinstance(cell, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in cell.items())
    return str(cell)
