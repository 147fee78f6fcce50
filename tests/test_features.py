"""What the models see does not depend on level, polarity or padding; augmentation depends on its generator alone."""

import numpy as np
import pytest
import torch

from ml import features, unknowns

RATE_HZ = 8000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hz: float, samples: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(samples) / RATE_HZ)


def pixels(n: int = 6, side: int = 12, channels: int = 1) -> torch.Tensor:
    drawn = torch.zeros(n, side, side, channels, dtype=torch.uint8)
    for i in range(n):
        drawn[i, 3 + i % 3 : 9, 5:8] = 200 + i
    return drawn


def test_ink_on_paper_looks_like_light_on_black():
    dark, light = features.to_pictures(pixels()), features.to_pictures(255 - pixels())
    assert torch.allclose(dark, light, atol=1e-6)
    assert dark.min() == 0
    assert dark.max() > 0.7


def test_colour_pictures_keep_their_polarity():
    coloured = 255 - pixels(channels=3)
    assert torch.allclose(features.to_pictures(coloured), coloured.permute(0, 3, 1, 2) / 255)


def test_the_affine_map_of_zero_range_changes_nothing():
    pictures = features.to_pictures(pixels())
    maps = features.draw_affine(len(pictures), features.AffineRange(0, 0, 0, 0), generator())
    assert torch.allclose(features.apply_affine(pictures, maps), pictures, atol=1e-5)


def test_affine_maps_move_pictures_by_no_more_than_their_range():
    span = features.AffineRange(rotation_degrees=10, shear_degrees=0, scale=0, shift=0.1)
    maps = features.draw_affine(500, span, generator())
    angles = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert angles.abs().max() <= 10.001
    assert angles.abs().max() > 9
    assert maps[:, :, 2].abs().max() <= 0.2 + 1e-6


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (30, 3)])
def test_pictures_of_nothing_known_keep_shape_and_range(side, channels):
    made = unknowns.noise_or_shuffled(torch.rand(9, channels, side, side, generator=generator()), generator())
    assert made.shape == (9, channels, side, side)
    assert made.min() >= 0
    assert made.max() <= 1


def test_patch_shuffling_leaves_no_edge_of_another_colour():
    bright = 0.8 + 0.2 * torch.rand(2, 3, 15, 13, generator=generator())
    shuffled = features.shuffle_patches(bright, generator(1))
    assert not torch.equal(shuffled, bright)
    assert shuffled.min() >= 0.8


def test_patch_shuffling_keeps_the_ink_and_loses_the_place():
    pictures = torch.rand(4, 2, 12, 12, generator=generator())
    shuffled = features.shuffle_patches(pictures, generator(1))
    assert not torch.equal(shuffled, pictures)
    assert torch.equal(shuffled.flatten(2).sort().values, pictures.flatten(2).sort().values)
    patches = {
        tuple(p.flatten().tolist())
        for p in pictures[0].unfold(1, 3, 3).unfold(2, 3, 3).permute(1, 2, 0, 3, 4).reshape(16, -1)
    }
    found = {
        tuple(p.flatten().tolist())
        for p in shuffled[0].unfold(1, 3, 3).unfold(2, 3, 3).permute(1, 2, 0, 3, 4).reshape(16, -1)
    }
    assert patches == found


def test_a_log_mel_spectrogram_has_a_frame_every_10_ms_whatever_the_rate():
    for rate_hz in (8000, 16000, 11025):
        mel, frames = features.LogMel(rate_hz)(torch.randn(2, rate_hz, generator=generator()))
        assert mel.shape[1] == features.N_MELS
        assert abs(int(frames[0]) - 101) <= 1
        assert mel.shape[2] == frames[0]


def test_a_higher_tone_lies_in_a_higher_mel_band():
    mel, _ = features.LogMel(RATE_HZ)(torch.stack([tone(hz, 4000) for hz in (200, 500, 1000, 2000, 3500)]))
    loudest = mel.mean(2).argmax(1)
    assert (loudest.diff() > 0).all()


def test_the_level_of_a_recording_does_not_matter():
    log_mel, clip = features.LogMel(RATE_HZ), tone(440, 3000)[None] + 0.1 * torch.randn(1, 3000, generator=generator())
    assert torch.allclose(log_mel(clip)[0], log_mel(clip * 0.01)[0], atol=1e-4)


def test_padding_and_batching_do_not_change_a_spectrogram():
    log_mel, short, long = features.LogMel(RATE_HZ), tone(300, 1700), tone(900, 5000)
    alone, frames = log_mel(short[None])
    rubbish = torch.cat((short, torch.randn(3300, generator=generator())))
    many = torch.stack([rubbish, long] * 20)  # more than one chunk
    together, counts = log_mel(many, torch.tensor([1700, 5000] * 20))
    assert counts[0] == frames[0]
    assert torch.allclose(together[-2, :, : frames[0]], alone[0], atol=1e-4)
    assert (together[-2, :, frames[0] :] == 0).all()


def test_silence_gives_a_finite_spectrogram():
    mel, _ = features.LogMel(RATE_HZ)(torch.zeros(1, 2000))
    assert torch.isfinite(mel).all()


def test_own_frames_have_zero_mean_and_unit_deviation():
    mel = features.standardise(5 + 3 * torch.randn(2, 40, 30, generator=generator()), torch.tensor([30, 12]))
    own = mel[1, :, :12]
    assert abs(float(own.mean())) < 1e-5
    assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_masks_hide_stretches_and_the_tilt_is_smooth():
    mel = torch.ones(8, 40, 60)
    drawn = features.draw_spec_masks(8, generator())
    masked = features.apply_spec_masks(mel, torch.full((8,), 60), drawn)
    share = float((masked == 0).float().mean())
    assert 0.02 < share < 0.5
    flat = features.SpecMasks(*(torch.zeros(8, 2) for _ in range(4)), drawn.tilt)
    tilted = features.apply_spec_masks(mel, torch.full((8,), 60), flat)
    assert tilted.diff(dim=1).abs().max() < 0.3
    assert (tilted == tilted[:, :, :1]).all()


def test_the_same_seed_draws_the_same_augmentation():
    once, again, other = (features.draw_spec_masks(3, generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(once.tilt, again.tilt)
    assert not torch.equal(once.tilt, other.tilt)
    pictures = features.to_pictures(pixels())
    assert torch.equal(
        unknowns.noise_or_shuffled(pictures, generator(1)), unknowns.noise_or_shuffled(pictures, generator(1))
    )


def test_augmentation_leaves_its_input_alone():
    pictures = features.to_pictures(pixels())
    kept = pictures.clone()
    features.apply_affine(pictures, features.draw_affine(6, features.AffineRange(), generator()))
    unknowns.noise_or_shuffled(pictures, generator())
    clip = torch.randn(1, 2000, generator=generator())
    before = clip.clone()
    mel, frames = features.LogMel(RATE_HZ)(clip)
    as_made = mel.clone()
    features.apply_spec_masks(mel, frames, features.draw_spec_masks(1, generator()))
    assert np.array_equal(pictures, kept)
    assert torch.equal(clip, before)
    assert torch.equal(mel, as_made)
