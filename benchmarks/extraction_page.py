"""docs/extraction.md, written from docs/extraction.json, extraction_bodies.json and extraction_tries.csv."""

import csv
import json
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.unknown import VOICES
from ml import scenes
from ml.evaluation.plots import save
from ml.files import whole_file

ORACLE_NAMES = {"irm": "ideal ratio mask", "psm": "phase-sensitive mask", "complex": "complex mask, at most 2"}
BASELINE_NAMES = {
    "unprocessed": "unprocessed",
    "constant_mask": "a constant mask",
    "energy_gate": "gating by energy",
    "audio_only": "audio only (the word heard most surely)",
    "separate_then_recognise": "ask for the two surest words, then recognise",
    "blind_separation": "separate, then recognise",
}
GOALS = (  # figure, key, goal, whether less is better
    ("SI-SDR improvement, full overlap (dB)", "gain", 10.7, False),
    ("word accuracy of the extracted sound", "word_accuracy", 0.97, False),
    ("presence AUC", "presence_auc", 0.99, False),
    ("misses at 1 % false alarms", "miss_at_1pct_false_alarm", 0.05, True),
    ("localisation mAP at IoU 0.5", "localisation_map", 0.93, False),
    ("median boundary error (ms)", "boundary_error_ms_median", 15.0, True),
    ("swapping the picture swaps the word", "image_swap_success", 0.97, False),
    ("words of a scene, F1", "words_f1", 0.93, False),
    ("real-time factor on one thread", "real_time_factor", 0.1, True),
)
UNSEEN_GAIN_DB = 8.0  # the goal where training never heard the speakers


def write(folder: Path) -> None:
    """Writes extraction.md and extraction-systems.png into the folder that holds the measured figures."""
    file = folder / "extraction.json"
    records = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    former = {name: record for name, record in records.items() if record.get("former")}
    present = {name: record for name, record in records.items() if name not in former}
    shown = dict(sorted(present.items(), key=lambda item: item[1]["left_out"] or ""))  # nobody left out comes first
    parts = [DEFINITION, _goals(shown), *(_measured(name, record) for name, record in shown.items())]
    parts += [_bodies(folder / "extraction_bodies.json"), _tries(folder / "extraction_tries.csv")]
    if former:
        parts += [FORMER, _goals(former)]
    if shown:
        name, record = next(iter(shown.items()))
        _plot(record["extraction"], folder / "extraction-systems.png")
        parts.insert(2, f"![Mean and interval of every system: {name}](extraction-systems.png)")
    with whole_file(folder / "extraction.md") as new:
        new.write_text("\n".join(part.strip() + "\n" for part in parts), encoding="utf-8")


def _measured(name: str, record: dict) -> str:
    """One variant: who was heard, how it was trained, and every system on the headline scenes."""
    found, speaker = record["extraction"], record["left_out"]
    command = "python -m benchmarks extraction" + (f" --leave-out {speaker}" if speaker else "")
    share = record.get("extra_voices")
    command += f" --extra-voices {share:g}" if share and speaker else ""
    command += " --blind" if record.get("blind") else ""
    command += f" --scenes {record['scenes']}"
    ours = found["si_sdr_improvement_db"]["full_overlap"]
    rows = [("**SeeHear**", ours, "")]
    rows += [(ORACLE_NAMES[key], value, "oracle") for key, value in found["oracle_db"].items()]
    rows += [
        (BASELINE_NAMES[key], value, "beaten" if value["beaten"] else "not beaten")
        for key, value in found["baselines"].items()
    ]
    digests = ", ".join(f"{plan} `{digest[:16]}`" for plan, digest in record["digests"].items())
    others = {bucket: value["mean"] for bucket, value in found["si_sdr_improvement_db"].items()}
    return f"""
## Measured: {name}

`SEEHEAR_SOURCE={record["source"]} SEEHEAR_BUDGET={record["budget"]} {command}`, seed {record["seed"]},
trained for {record["steps"]} steps ({record["train_s"]:.0f} s), {found["parameters"]} parameters;
{record["scenes"]} scenes of each kind, measured on {record["machine"]}.
{f"Training never heard {speaker}; scenes are of this speaker's clips alone." if speaker else ""}
{f"Extra data: {share:.0%} of the words in training are the starter's synthetic voices." if share else ""}
{record.get("remark", "")}
The first 20 scenes of each plan have the digests {digests}.

| two words, full overlap, 0 dB | SI-SDR improvement (dB) | 95 % interval | |
|---|---|---|---|
{chr(10).join(_row(*row) for row in rows)}

Partial overlap {others["partial_overlap"]:.1f} dB, no overlap {others["no_overlap"]:.1f} dB.
Word accuracy {_share(found, "word_accuracy")}, right and said to be present {_share(found, "word_accuracy_answered")};
of the unprocessed mixture {_share(found, "word_accuracy_unprocessed")},
of the clean word {_share(found, "word_accuracy_clean")}.
{_beyond(found)}
"""


def _beyond(found: dict) -> str:
    """How often what is none of the labels is taken for one, and minutes of words, where that was measured."""
    if not (unknown := found.get("unknown_words")):
        return ""
    words, backwards = unknown["other_words"], unknown["backwards"]
    taken = (
        f"A label that is asked for is found in {words['share']:.1%} of {words['n']} recordings of other English words "
        f"(each by {len(VOICES)} voices of eSpeak NG), at least one of all labels in {words['any']:.0%}; in "
        f"{backwards['n']} test recordings played backwards these are {backwards['share']:.1%} and "
        f"{backwards['any']:.0%}."
    )
    if not (long := found.get("minutes")):
        return taken
    return (
        f"{taken}\nIn a minute of words a label that one scene of it says is found where it is said in "
        f"{long['present']:.0%}, and one that nobody says in {long['absent']:.0%} ({long['n']} minutes each)."
    )


def _row(name: str, value: dict | float, note: str) -> str:
    if not isinstance(value, dict):
        return f"| {name} | {value:z.2f} | | {note} |"
    low, high = value["mean_ci95"] or (float("nan"), float("nan"))
    return f"| {name} | {value['mean']:z.2f} | {low:z.2f} to {high:z.2f} | {note} |"


def _share(found: dict, key: str) -> str:
    return "not measured" if found.get(key) is None else f"{found[key]:.1%}"


def _goals(records: dict) -> str:
    """The goals beside every variant's figure, those that were missed marked so."""
    head = " | ".join(records or ["measured"])
    lines = [f"| figure | goal | {head} |", "|---" * (2 + max(1, len(records))) + "|"]
    for title, key, goal, less in GOALS:
        sign = "≤" if less else "≥"
        cells = " | ".join(_reached(record, key, goal, less) for record in records.values()) or "not measured"
        unseen = f", never heard {sign} {UNSEEN_GAIN_DB:g}" if key == "gain" else ""
        lines.append(f"| {title} | {sign} {goal:g}{unseen} | {cells} |")
    return "### Beside the goals\n\n" + "\n".join(lines) + "\n"


def _reached(record: dict, key: str, goal: float, less: bool) -> str:
    found = record["extraction"]
    value = found["si_sdr_improvement_db"]["full_overlap"]["mean"] if key == "gain" else found[key]
    goal = UNSEEN_GAIN_DB if key == "gain" and record["left_out"] else goal
    if value is None:
        return "not measured"
    shown = f"{value:.{4 if value >= 10 else 3}g}"
    if float(shown) == goal != value:
        shown = f"{value:.4g}"  # so that it is seen whether the goal was reached
    if interval := found.get(f"{key}_ci95"):
        shown += f" [{interval[0]:.3g}, {interval[1]:.3g}]"
    return shown + ("" if (value <= goal if less else value >= goal) else " (not reached)")


def _bodies(file: Path) -> str:
    """Convolutions beside recurrent bodies, where they have been compared."""
    if not file.exists():
        return ""
    record = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        f"| {found['body']} | {found['learning_rate']:g} | {found['parameters']} | {found['train_s']:.0f} "
        f"| {found['si_sdr_improvement_db']:.2f} | {found['presence_auc']:.3f} | {found['interval_f1']:.3f} |"
        for found in record["bodies"]
    ]
    first = record["bodies"][0]
    return f"""
## Bodies at equal size

`SEEHEAR_SOURCE={record["source"]} python -m benchmarks bodies`, seed {first["seed"]}, {first["steps"]} steps each
by the same recipe, whose rate was chosen for the convolutions, and at half of that rate, {record["machine"]}.
Validation scenes: separation of two words at 0 dB in full overlap, presence and the word's places in mixed scenes,
half of them without the word. {record.get("remark", "")}

| body | learning rate | parameters | training (s) | SI-SDR improvement (dB) | presence AUC | F1 of the word's places |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Only convolutions see a bounded stretch of sound, so only they answer recordings of hours in pieces as they would in
one.
"""


def _tries(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "## What was tried\n\nValidation scenes, full overlap, two words at 0 dB; one seed.\n\n" + "\n".join(lines)


def _plot(found: dict, file: Path) -> None:
    """Mean improvement of every system with its interval."""
    systems = {"SeeHear": found["si_sdr_improvement_db"]["full_overlap"]}
    systems |= {BASELINE_NAMES[key]: value for key, value in found["baselines"].items()}
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    for place, value in enumerate(systems.values()):
        low, high = value["mean_ci95"]
        axes.errorbar(value["mean"], place, xerr=[[value["mean"] - low], [high - value["mean"]]], fmt="o", capsize=3)
    for key, value in found["oracle_db"].items():
        if value < 20:
            axes.axvline(value, linestyle=":", color="grey")
            axes.text(value, 1.02, key.upper(), ha="center", fontsize=8, transform=axes.get_xaxis_transform())
    axes.set_yticks(range(len(systems)), list(systems))
    axes.set_xlabel("SI-SDR improvement (dB), full overlap, 95 % interval")
    save(figure, file)


FORMER = """
## By former recipes

Not measured anew since the recipe changed: the budgets had other numbers of steps, or the extractor another body. What
each was, and every figure, stands in extraction.json.
"""

DEFINITION = f"""
# Extraction: the benchmark and what was measured

This page is written by `python -m benchmarks extraction` (`--page` writes it anew without measuring).

## FSDD-Scenes

Mixtures of spoken words, made of **test clips only** by a seeded generator (`ml/scenes/planned.py`) that draws plain
arrays first and renders them afterwards. Whoever has the same clips gets the same scenes: scene *i* of a plan uses
`numpy.random.default_rng((seed, i))` alone, in the order that `draw_scenes` says; the seed is 1 for *full*, *partial*
and *none* and 2 for *mixed* (`evaluation.seed` of params.yaml, and one more). Each clip is multiplied by its gain in
float32, sums are in float64 and rounded once, and `scenes.scenes_digest` gives the SHA-256 of mixtures and targets as
16-bit integers, by which two machines can tell. A test holds the digest of a small plan.

- **full, partial, none**: two different words at 0 dB, white noise at 30 dB, the pictured word present. The shorter
  word lies inside the longer; 10-90 % of the shorter overlap; nothing overlaps. *full* is the headline.
- **mixed**: one to three words, which may repeat, at -5 to 5 dB, noise at 5 to 30 dB, any overlap; 30 % lack the
  pictured word, and half of these begin with the word that is most easily taken for it: {
    ", ".join(f"{other} for {word}" for word, other in scenes.CONFUSABLE.items())
} (the first is said, the second pictured).
- Queries are the calibrated posteriors of test pictures of the word. Levels are root mean squares over active samples,
  which run from the first to the last sample above -40 dB of a clip's peak. A place counts at IoU 0.5;
  average precision weighs each by its own score, also those that are too unsure to be told.
- `--leave-out SPEAKER` makes the scenes of all clips of one speaker whom training never heard. That extra voices help
  was first seen on nicolas; theo's figures chose nothing.
- Recordings may say words of no label. Scenes of training that are not among the hardest have three in ten of the words
  that nobody asks for played backwards, which sounds like speech and says nothing known. How often a label is found in
  other words all the same stands below, where it was measured: one word between pauses of 0.1 s, asked for every label.
- A scene of training is listened to once and asked for both of its words, where they differ: the first half of the
  network knows no question.
- That half hears the energy in 64 mel bands, and in training, from medium on, every scene through another microphone
  and with some bands hidden; the half that extracts sees the spectrum as it is.
- Presence is judged on scenes of two seconds, by the surest moment of a recording. The longer a recording, the likelier
  some moment sounds like a word that nobody says: so minutes are measured as well, thirty mixed scenes in a row without
  the word, or with one that says it.
- Words of a scene: every word that is told where nothing is asked for counts as right if that word is said there (IoU
  0.5); F1 over all *mixed* scenes, its interval by resampling them.
- Misses at 1 % false alarms: of fewer than 100 scenes without the word, as at quick, 1 % is none, so the surest of them
  decides alone.

Oracles use a spectrum of 256 samples, hop 128, square-root Hann. A baseline is **beaten** where our 95 % bootstrap
interval lies wholly above its. Intervals resample scenes, which share a few hundred clips of a few voices; for other
voices they would be wider. *Audio only* has no picture and takes out the word that it hears most surely. *Separate,
then recognise* (`blind_separation` in the JSON) has a separator of the same body, recipe and steps that is never told
what to look for (permutation invariant training, arXiv 1607.00325); the speech classifier chooses between its two
sounds, and is told where the word is; it is the CNN throughout. It is trained with `--blind`. *Ask for the two surest
words* (`separate_then_recognise`) is no opponent but this extractor used the other way round: it takes out the two that
it hears most surely and lets the classifier choose, so it ties where both are words of the scene, as for known voices.
"""
