"""Other voices, rooms and noises: each changes what it should, within its reach, and only as its generator says."""

import dataclasses

import numpy as np
import pytest
import torch
from toy_models import RATE_HZ, toy_speech

from ml import features, scenes
from ml.config import Augmentation
from ml.training import voices

STILL = Augmentation(0, 0, 0, 0, noise_share=0, least_snr_db=0, most_snr_db=40)
LIVELY = Augmentation(0.2, 0.4, 0.4, 0.5, noise_share=0.8, least_snr_db=-5, most_snr_db=40)
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bank() -> scenes.ClipBank:
    return scenes.clip_bank(toy_speech().where("gate"), CPU)


def drawn(bank: scenes.ClipBank, how: Augmentation, seed: int = 0, rows: int = 20) -> voices.Voices:
    return voices.draw_voices(bank, bank.lengths[:rows], 6, how, generator(seed))


def spoken(bank: scenes.ClipBank, parameters: voices.Voices) -> tuple[torch.Tensor, torch.Tensor]:
    noise, rows = scenes.noise_bank(generator(9), CPU, RATE_HZ, 2.0), torch.arange(len(parameters.sizes))
    return voices.speak(bank, noise, rows, parameters, features.LogMel(RATE_HZ))


def centre_of_bands(mel: torch.Tensor) -> float:
    power = mel[0].exp().mean(1)
    return float((power * torch.arange(len(power))).sum() / power.sum())


def test_parameters_stay_within_their_reach_and_fill_it(bank):
    parameters = voices.draw_voices(bank, bank.lengths[:1].expand(4000, -1), 6, LIVELY, generator())
    assert parameters.warp.min() == pytest.approx(1 / 1.2, abs=0.01)
    assert parameters.warp.max() == pytest.approx(1.2, abs=0.01)
    assert parameters.stretch.max() == pytest.approx(1.4, abs=0.01)
    snr_db = -20 * parameters.level[parameters.level > 0].log10()
    assert -5 - 1e-3 <= float(snr_db.min()) < -4
    assert float(snr_db.max()) == pytest.approx(40, abs=1)
    assert float((parameters.level > 0).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert len(parameters.rooms) == 2000


def test_clips_are_dealt_out_to_batches_of_like_length_each_once_with_what_was_drawn_for_it(bank):
    rows, batches = 24, 4
    parameters = drawn(bank, LIVELY, rows=rows)
    dealt = parameters.by_length(batches, generator())
    assert sorted(torch.cat([clips for clips, _ in dealt]).tolist()) == list(range(rows))
    lengths = sorted(sorted((own.sizes * own.stretch).tolist()) for _, own in dealt)
    assert [x for batch in lengths for x in batch] == sorted((parameters.sizes * parameters.stretch).tolist())
    assert sorted(torch.cat([own.rooms[:, 1] for _, own in dealt]).tolist()) == sorted(parameters.rooms[:, 1].tolist())
    for clips, own in dealt:
        assert torch.equal(own.warp, parameters.warp[clips])
        assert torch.equal(own.masks.tilt, parameters.masks.tilt[clips])
        assert len(own.rooms) == len(parameters.rooms) // batches


def test_the_same_generator_says_the_same_and_another_something_else(bank):
    once, again, other = (spoken(bank, drawn(bank, LIVELY, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert once.shape != other.shape or not torch.equal(once, other)


def test_whatever_is_drawn_the_result_is_finite_and_silent_beyond_its_own_frames(bank):
    mel, frames = spoken(bank, drawn(bank, LIVELY))
    assert torch.isfinite(mel).all()
    assert mel.shape[2] == frames.max()
    assert (mel.masked_fill(features.valid_mask(frames, mel.shape[2])[:, None], 0) == 0).all()


def test_a_warp_of_one_changes_nothing_and_a_larger_one_moves_frequencies_up():
    tone = torch.sin(2 * torch.pi * 800 * torch.arange(4000) / RATE_HZ)[None]
    log_mel = features.LogMel(RATE_HZ)
    plain, same = log_mel(tone)[0], log_mel(tone, warp=torch.ones(1))[0]
    assert torch.allclose(plain, same, atol=1e-5)
    centres = [centre_of_bands(log_mel(tone, warp=torch.tensor([w]))[0]) for w in (0.8, 0.9, 1.0, 1.1, 1.25)]
    assert np.all(np.diff(centres) > 0.3)


@pytest.mark.parametrize("warp", [0.7, 1.0, 1.4])
def test_a_warp_keeps_the_highest_frequency_and_puts_weight_nowhere_below_zero(warp):
    bank = features.LogMel(RATE_HZ).bank
    warped = features.warp_bank(bank, torch.tensor([warp]))[0]
    assert torch.allclose(warped[-1], bank[-1], atol=1e-5)
    assert (warped >= 0).all()


def test_a_warped_tone_sounds_like_a_tone_of_that_frequency():
    time_s = torch.arange(4000) / RATE_HZ
    low, high = (torch.sin(2 * torch.pi * hz * time_s)[None] for hz in (600.0, 720.0))
    log_mel = features.LogMel(RATE_HZ)
    moved, wanted = log_mel(low, warp=torch.tensor([1.2]))[0], log_mel(high)[0]
    assert abs(centre_of_bands(moved) - centre_of_bands(wanted)) < 0.5


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_stretching_time_makes_a_ramp_a_longer_or_shorter_ramp(factor):
    ramp = torch.linspace(0, 1, 21)[None, None].expand(1, 3, -1)
    mel, frames = voices.stretch_time(ramp, torch.tensor([21]), torch.tensor([factor]), 40)
    assert int(frames) == round(21 * factor)
    assert torch.allclose(mel[0, 0, : int(frames)], torch.linspace(0, 1, int(frames)), atol=1e-5)
    assert (mel[0, :, int(frames) :] == 0).all()


def test_a_single_frame_can_be_stretched():
    mel, frames = voices.stretch_time(torch.ones(1, 3, 1), torch.tensor([1]), torch.tensor([2.0]), 2)
    assert int(frames) == 2
    assert torch.isfinite(mel).all()


def test_a_room_adds_a_tail_that_dies_away_and_leaves_the_other_clips_alone():
    clicks = torch.zeros(3, 4000)
    clicks[:, 100] = 1
    heard = voices.reverberate(clicks, voices.draw_rooms(2, RATE_HZ, generator()))
    assert torch.equal(heard[2], clicks[2])
    assert torch.allclose(heard[:2, :100], torch.zeros(2, 100), atol=1e-5)
    assert torch.allclose(heard[:2, 100], torch.ones(2), atol=1e-4)
    early, late = heard[:2, 101:300].square().mean(1), heard[:2, 700:1000].square().mean(1)
    assert (late < early).all()
    assert torch.equal(clicks.sum(1), torch.ones(3))


def test_without_any_reach_a_word_is_only_masked(bank):
    still = dataclasses.replace(
        drawn(bank, STILL, rows=4), masks=features.SpecMasks(*[torch.zeros(4, 2)] * 4, torch.zeros(4, 3))
    )
    mel, frames = spoken(bank, still)
    samples = int(still.sizes.max())
    plain, own = features.LogMel(RATE_HZ)(bank.place(torch.arange(4), still.speeds, still.before, samples), still.sizes)
    assert torch.equal(frames, own)
    assert torch.allclose(mel, plain, atol=1e-4)
