"""Losses and the figures they stand for: cross entropy, separation, absence, presence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8
LIMIT_DB = 60.0  # of the SI-SDR
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


def presence_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross entropy of logits of presence or activity and the truth, both of one shape."""
    return F.binary_cross_entropy_with_logits(logits.float(), truth.float())


def si_sdr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB of waveforms (..., samples), held within ±LIMIT_DB.

    The means are left in. A silent estimate scores the lower limit; a silent target has no ratio and raises ValueError.
    Source: Le Roux et al. 2019 (arXiv 1811.02508), section 2.
    """
    estimate, target = estimate.double(), target.double()
    energy = target.square().sum(-1, keepdim=True)
    if (energy == 0).any():
        raise ValueError("the SI-SDR against a silent target is undefined")
    wanted = (estimate * target).sum(-1, keepdim=True) / energy * target
    ratio = wanted.square().sum(-1) / (estimate - wanted).square().sum(-1)  # 0 / 0 where the estimate is silent
    return (10 * torch.log10(ratio)).nan_to_num(-LIMIT_DB).clamp(-LIMIT_DB, LIMIT_DB)


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
