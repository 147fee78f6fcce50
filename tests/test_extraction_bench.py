"""The benchmark's page holds what was measured, and a speaker left out is heard in the test alone."""

import json

import numpy as np
import pytest
import toy_models

from benchmarks import extraction, extraction_page
from ml import media
from ml.config import UserError

SUMMARY = {"mean": 4.0, "mean_ci95": [3.5, 4.5]}
FOUND = {
    "si_sdr_improvement_db": {"full_overlap": SUMMARY, "partial_overlap": SUMMARY, "no_overlap": SUMMARY},
    "oracle_db": {"irm": 10.7, "psm": 12.9, "complex": 33.0},
    "baselines": {"audio_only": {"mean": 1.0, "mean_ci95": [0.5, 1.5], "beaten": True}},
    "word_accuracy": 0.98, "word_accuracy_unprocessed": 0.5, "word_accuracy_clean": None, "presence_auc": 0.97,
    "miss_at_1pct_false_alarm": 0.04, "localisation_map": 0.9, "boundary_error_ms_median": 14.0, "words_f1": 0.8,
    "image_swap_success": 0.95, "real_time_factor": 0.01, "parameters": 7,
}  # fmt: skip
RECORD = {
    "source": "toy", "budget": "quick", "left_out": "theo", "seed": 0, "scenes": 20, "steps": 5, "train_s": 1.0,
    "machine": "here", "digests": {"full": "ab" * 32}, "extraction": FOUND,
}  # fmt: skip


def test_a_speaker_left_out_is_all_of_the_test_and_nothing_else():
    speech = toy_models.toy_speech()
    kept = extraction.without(speech, "known_speaker")
    assert np.array_equal(kept.split == "test", speech.group == "known_speaker")
    assert set(kept.split) == {"test", "unused"}
    assert kept.digest != speech.digest  # so that no training of other data is gone on with
    with pytest.raises(UserError, match="expected one of known_speaker, new_speaker"):
        extraction.without(speech, "nobody")


def test_the_page_says_what_was_measured_and_which_goals_were_missed(tmp_path):
    (tmp_path / "extraction.json").write_text(json.dumps({"toy theo": RECORD}))
    (tmp_path / "extraction_tries.csv").write_text("try,dB\nmore steps,4.5\n")
    extraction_page.write(tmp_path)
    page = (tmp_path / "extraction.md").read_text()
    assert "`SEEHEAR_SOURCE=toy SEEHEAR_BUDGET=quick python -m benchmarks extraction --leave-out theo`, seed 0" in page
    assert "| **SeeHear** | 4.00 | 3.50 to 4.50 |  |" in page
    assert "| audio only (a picture that says nothing) | 1.00 | 0.50 to 1.50 | beaten |" in page
    assert "| presence AUC | ≥ 0.99 | 0.97 (not reached) |" in page
    assert "| misses at 1 % false alarms | ≤ 0.05 | 0.04 |" in page
    assert "| more steps | 4.5 |" in page
    assert "of the clean word not measured." in page
    assert media.decode_picture(tmp_path / "extraction-systems.png").std() > 1


def test_without_figures_the_page_says_that_nothing_was_measured(tmp_path):
    extraction_page.write(tmp_path)
    page = (tmp_path / "extraction.md").read_text()
    assert "FSDD-Scenes" in page
    assert page.count("| not measured |") == len(extraction_page.GOALS)
