"""The gate: who passes it, who is kept out, and why; over answers item by item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.config import load_settings
from ml.evaluation import GateAnswers, decide_promotion
from ml.evaluation.gate import Scored
from ml.evaluation.promotion import SMALL, paired_interval, slices

RULES = load_settings(Path(__file__).resolve().parents[1]).promotion
N = 200
WORDS = np.array([f"word{number % 4}" for number in range(N)])
SPEAKERS = np.array([f"speaker{number // 50}" for number in range(N)])
FIGURES = ("image_accuracy", "speech_accuracy", "presence_auc", "si_sdr_improvement_db")


def right(wrong: int, offset: int = 0) -> np.ndarray:
    """Scores of 0 and 1, as many wrong, spread over words and speakers from an offset on."""
    scores = np.ones(N)
    scores[(offset + 7 * np.arange(wrong)) % N] = 0
    return scores


def answers(image=20, speech=20, presence=0.0, gain_db=5.0, **scores: np.ndarray) -> GateAnswers:
    """A model with so many wrong pictures and words, so much noise in its presence, and a mean gain."""
    rng = np.random.default_rng(0)
    positive = np.arange(N) % 3 > 0
    noisy = positive + rng.normal(0, 0.6, N) + presence * rng.normal(0, 1, N)
    gains = gain_db + rng.normal(0, 2, N)
    by_word = {"class": WORDS, "speaker": SPEAKERS}
    return GateAnswers(
        (
            Scored("image_accuracy", scores.get("image_scores", right(image)), {"class": WORDS}),
            Scored("speech_accuracy", scores.get("speech_scores", right(speech)), by_word),
            Scored("presence_auc", noisy, {}, positive, ((noisy > 0.5) == positive).astype(float)),
            Scored("si_sdr_improvement_db", gains, {"class": WORDS}, slack=30.0),
        ),
        {"image_accuracy": 0.11, "speech_accuracy": 0.1},
    )


def without(answered: GateAnswers, name: str) -> GateAnswers:
    nothing = Scored(name, np.zeros(0), positive=np.zeros(0, bool) if name == "presence_auc" else None)
    return replace(answered, scored=tuple(nothing if one.name == name else one for one in answered.scored))


def test_the_first_champion_must_beat_the_majority_class():
    assert decide_promotion(answers(), None, RULES).promote
    guessing = decide_promotion(answers(speech=185), None, RULES)
    assert not guessing.promote
    assert "speech_accuracy" in guessing.reason


def test_a_clearly_better_challenger_wins_and_the_reason_gives_the_interval():
    decision = decide_promotion(answers(speech=4), answers(), RULES)
    assert decision.promote
    assert "speech_accuracy 0.9000 -> 0.9800 (difference +0.0" in decision.reason


def test_a_tie_keeps_the_champion():
    decision = decide_promotion(answers(), answers(), RULES)
    assert not decision.promote
    assert "ties keep the champion" in decision.reason


def test_a_handful_of_words_is_no_proof_however_sure_resampling_is():
    champion = answers(speech_scores=right(12))
    few, many = (decide_promotion(answers(speech_scores=right(wrong)), champion, RULES) for wrong in (6, 3))
    assert [one.low > 0 for one in few.comparisons if (one.figure, one.part) == ("speech_accuracy", "")] == [True]
    assert not few.promote, "6 words more and none less: p = 0.03, and four figures share 0.05"
    assert many.promote, "9 words more and none less: p = 0.004"


def test_better_by_chance_alone_keeps_the_champion():
    assert not decide_promotion(answers(speech=19), answers(), RULES).promote, "one more of 200"
    mixed = answers(speech_scores=right(18, offset=3))
    assert not decide_promotion(mixed, answers(), RULES).promote, "many differ, few more are right"


def test_what_is_sure_for_one_figure_alone_is_chance_for_the_best_of_four():
    answered = answers(speech=16), answers()
    alone = paired_interval(answered[0]["speech_accuracy"].scores - answered[1]["speech_accuracy"].scores, 0.95, 0)
    assert alone[0] > 0
    assert not decide_promotion(*answered, RULES).promote


@pytest.mark.parametrize("worse", [{"image": 24}, {"speech": 24}, {"presence": 0.7}, {"gain_db": 4.6}])
def test_worse_by_more_than_the_margin_in_one_figure_outweighs_all_others(worse):
    better = {"image": 2, "speech": 2, "gain_db": 6.0}
    decision = decide_promotion(answers(**(better | worse)), answers(), RULES)
    assert not decision.promote
    assert "worse than the champion" in decision.reason


@pytest.mark.parametrize("loss", [{"image": 21}, {"gain_db": 4.8}])
def test_a_loss_within_the_margin_is_outweighed_by_a_sure_gain(loss):
    assert decide_promotion(answers(**({"speech": 2} | loss)), answers(), RULES).promote


def test_one_speaker_who_is_understood_less_keeps_the_champion_though_the_whole_is_better():
    champion = right(30)
    challenger = np.ones(N)
    challenger[SPEAKERS == "speaker2"] = np.arange(50) % 2  # half of them wrong
    decision = decide_promotion(answers(speech_scores=challenger), answers(speech_scores=champion), RULES)
    assert challenger.mean() > champion.mean()
    assert not decision.promote
    assert "speaker speaker2" in decision.reason


def test_a_slice_within_chance_does_not_keep_the_champion():
    challenger = right(2)
    challenger[np.flatnonzero(SPEAKERS == "speaker2")[:4]] = 0
    champion = right(30)
    champion[SPEAKERS == "speaker2"] = 1
    champion[np.flatnonzero(SPEAKERS == "speaker2")[10:13]] = 0
    assert decide_promotion(answers(speech_scores=challenger), answers(speech_scores=champion), RULES).promote


def test_small_slices_are_judged_together_and_nameless_items_not_at_all():
    names = np.array(["large"] * 30 + [f"small{number}" for number in range(15)] + [""] * 5)
    parts = dict(slices(Scored("speech_accuracy", np.ones(50), {"speaker": names}), 20))
    assert {name: len(rows) for name, rows in parts.items()} == {"speaker large": 30, f"speaker: {SMALL}": 15}


def test_a_figure_that_was_not_measured_never_promotes_over_one_that_was():
    assert not decide_promotion(without(answers(), "image_accuracy"), None, RULES).promote
    lost = decide_promotion(without(answers(speech=2), "presence_auc"), answers(), RULES)
    assert "not for the challenger: presence_auc" in lost.reason
    assert decide_promotion(without(answers(), "presence_auc"), None, RULES).promote


def test_answers_to_other_items_cannot_be_compared():
    shorter = answers()
    cut = tuple(replace(one, scores=one.scores[:-1]) if one.name == "image_accuracy" else one for one in shorter.scored)
    with pytest.raises(ValueError, match="199 items of the challenger, 200 of the champion"):
        decide_promotion(replace(shorter, scored=cut), answers(), RULES)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=80))
def test_the_paired_interval_holds_the_mean_and_mirrors_with_its_sign(differences):
    values = np.array(differences)
    low, high = paired_interval(values, 0.95, 0)
    assert low - 1e-9 <= values.mean() <= high + 1e-9
    mirrored = paired_interval(-values, 0.95, 0)
    assert mirrored == pytest.approx((-high, -low))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    trials = [paired_interval(rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], 200), 0.95, seed) for seed in range(60)]
    assert sum(low <= 0.2 <= high for low, high in trials) >= 52
