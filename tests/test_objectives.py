"""The losses fall as answers get better, and the figures agree with independent references."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ml import objectives


def waveforms(n: int = 3, samples: int = 2000, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, samples, generator=torch.Generator().manual_seed(seed))


def with_noise(target: torch.Tensor, snr_db: float) -> torch.Tensor:
    noise = waveforms(*target.shape, seed=7)
    noise = noise - (noise * target).sum(1, keepdim=True) / target.square().sum(1, keepdim=True) * target
    noise = noise / noise.norm(dim=1, keepdim=True) * target.norm(dim=1, keepdim=True)
    return target + noise * 10 ** (-snr_db / 20)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 5.0, 25.0])
def test_si_sdr_of_orthogonal_noise_is_its_level(snr_db):
    target = waveforms()
    assert objectives.si_sdr_db(with_noise(target, snr_db), target).numpy() == pytest.approx(snr_db, abs=1e-3)


def test_si_sdr_ignores_scale_and_agrees_with_least_squares():
    target, estimate = waveforms(), with_noise(waveforms(), 3.0) + 0.2 * waveforms(seed=9)
    values = objectives.si_sdr_db(estimate, target)
    assert torch.allclose(objectives.si_sdr_db(0.01 * estimate, target), values, atol=1e-6)
    for value, x, s in zip(values, estimate.double().numpy(), target.double().numpy(), strict=True):
        scale = np.linalg.lstsq(s[:, None], x, rcond=None)[0][0]
        reference = 10 * np.log10(np.sum((scale * s) ** 2) / np.sum((x - scale * s) ** 2))
        assert float(value) == pytest.approx(reference, abs=1e-6)


def test_snr_loss_falls_with_quality_down_to_its_limit():
    target = waveforms()
    losses = [float(objectives.snr_loss(with_noise(target, db), target).mean()) for db in (-5, 0, 10, 15)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(0, abs=0.05)
    assert float(objectives.snr_loss(target, target).mean()) == pytest.approx(-20, abs=0.01)


def test_snr_loss_asks_for_the_true_level():
    target = waveforms()
    assert (objectives.snr_loss(0.5 * target, target) > objectives.snr_loss(0.9 * target, target)).all()


def test_absence_loss_wants_silence():
    mixture = waveforms()
    losses = [float(objectives.absence_loss(share * mixture, mixture).mean()) for share in (1.0, 0.3, 0.1, 0.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(-30, abs=0.01)


def test_separation_loss_reads_presence_scene_by_scene():
    target, mixture, estimate = waveforms(2), waveforms(2, seed=1), waveforms(2, seed=2)
    both = objectives.separation_loss(estimate, target, mixture, torch.tensor([True, False]))
    present = objectives.snr_loss(estimate, target)[0]
    absent = objectives.absence_loss(estimate, mixture)[1]
    assert float(both) == pytest.approx(float(present + objectives.ABSENCE_SHARE * absent) / 2, abs=1e-5)


def test_separation_loss_has_finite_gradients_for_silent_targets():
    estimate = torch.zeros(2, 100, requires_grad=True)
    loss = objectives.separation_loss(estimate, torch.zeros(2, 100), torch.zeros(2, 100), torch.tensor([True, False]))
    loss.backward()
    assert torch.isfinite(estimate.grad).all()


def test_the_presence_loss_rewards_the_truth():
    truth = torch.tensor([[True, False, True]])
    right, wrong = torch.tensor([[3.0, -3.0, 3.0]]), torch.tensor([[-3.0, 3.0, -3.0]])
    assert objectives.presence_loss(right, truth) < 0.1 < 3 - 0.1 < objectives.presence_loss(wrong, truth)


def test_smoothing_makes_certainty_dear():
    logits, labels = torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0])
    assert objectives.cross_entropy(logits, labels) < 1e-6
    assert objectives.cross_entropy(logits, labels, 0.1) > 1


def test_roc_auc_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.3
    found = objectives.roc_auc(torch.from_numpy(scores), torch.from_numpy(truth))
    assert found == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_roc_auc_of_one_kind_alone_is_refused():
    with pytest.raises(ValueError, match="both"):
        objectives.roc_auc(torch.rand(3), torch.ones(3, dtype=torch.bool))
