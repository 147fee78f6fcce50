"""Losses and the figures they stand for: cross entropy, separation, absence, presence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8
ABSENCE_SHARE = 0.1


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits (b, classes) and labels (b,), with label smoothing."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def snr_loss(estimate: Tensor, target: Tensor, limit_db: float = 20.0) -> Tensor:
    """Negative thresholded signal-to-noise ratio (b,) in dB of waveforms (b, samples).

    Scenes better than `limit_db` stop pulling (MixIT, arXiv 2006.12701, equation 2). Unlike SI-SDR it asks for the true
    level.
    """
    power = target.square().sum(1)
    error = (target - estimate).square().sum(1)
    return 10 * torch.log10((error + 10 ** (-limit_db / 10) * power + EPSILON) / (power + EPSILON))


def absence_loss(estimate: Tensor, mixture: Tensor, limit_db: float = 30.0) -> Tensor:
    """Energy (b,) in dB, relative to the mixture (b, samples), of what was returned though the word is absent.

    Estimates quieter than `limit_db` below the mixture stop pulling.
    """
    power = mixture.square().sum(1)
    rest = estimate.square().sum(1)
    return 10 * torch.log10((rest + 10 ** (-limit_db / 10) * power + EPSILON) / (power + EPSILON))


def separation_loss(estimate: Tensor, target: Tensor, mixture: Tensor, present: Tensor) -> Tensor:
    """Mean loss in dB of a batch: `snr_loss` where the word is present (b,) bool, else a share of `absence_loss`.

    The share is small: silence is easily learnt, and worth nothing where the word is there.
    """
    return torch.where(present, snr_loss(estimate, target), ABSENCE_SHARE * absence_loss(estimate, mixture)).mean()


def detection_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross entropy of logits of presence or activity and the truth, both of one shape."""
    return F.binary_cross_entropy_with_logits(logits.float(), truth.float())


def si_sdr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (b,) in dB of waveforms (b, samples) (arXiv 1811.02508, section 2)."""
    estimate, target = estimate.double(), target.double()
    scale = (estimate * target).sum(1, keepdim=True) / (target.square().sum(1, keepdim=True) + 1e-20)
    wanted, rest = scale * target, estimate - scale * target
    return 10 * torch.log10((wanted.square().sum(1) + 1e-20) / (rest.square().sum(1) + 1e-20))


def roc_auc(scores: Tensor, truth: Tensor) -> float:
    """Area under the ROC curve of scores (n,) against truth (n,) bool: how often a true one scores higher, ties half.

    Raises ValueError where only one of the two kinds is there.
    """
    true, false = scores[truth].double(), scores[~truth].double()
    if len(true) == 0 or len(false) == 0:
        raise ValueError("roc_auc: expected both true and false cases")
    order = false.sort().values
    below, upto = torch.searchsorted(order, true), torch.searchsorted(order, true, right=True)
    return float((below + upto).double().mean() / 2 / len(false))
