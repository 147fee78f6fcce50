"""How weights are stepped: AdamW, Nesterov SGD, or Muon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ml.config import UserError

if TYPE_CHECKING:
    from ml.config import Recipe

BETAS = (0.9, 0.98)
MOMENTUM = 0.9
LEAST_SIDE = 16  # rows and columns of a weight that Muon takes; narrower ones have no directions worth levelling
MUON_MOMENTUM = 0.95
POLAR = (  # odd polynomials, each the best for what the one before leaves (Polar Express, arXiv 2505.16932, section 3)
    (8.2872, -23.5959, 17.3004),
    (4.1071, -2.9478, 0.5448),
    (3.9487, -2.9089, 0.5518),
)
MARGIN = 1.01  # of the bound of the greatest singular value, for what rounding adds
MATCHING_RMS = 0.2  # makes steps as long as AdamW's usual ones, so both take like rates (arXiv 2502.16982, section 2.2)


def make_optimizers(model: nn.Module, recipe: Recipe, half: bool = False) -> list[torch.optim.Optimizer]:
    """What steps a model's parameters, each of them by one of the list; vectors, biases and norms are not decayed.

    With "muon", AdamW at the same rate takes what Muon does not. half: Muon multiplies its matrices in bfloat16.
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    match recipe.optimizer:
        case "adamw":
            return [torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)]
        case "sgd":
            return [torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=True)]
        case "muon":
            wide = [p for p in matrices if min(p.flatten(1).shape) >= LEAST_SIDE]
            groups[0]["params"] = [p for p in matrices if min(p.flatten(1).shape) < LEAST_SIDE]
            rest = torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)
            return [Muon(wide, rate, decay, half), rest] if wide else [rest]
    raise UserError(f"optimizer {recipe.optimizer!r}: expected adamw, sgd or muon")


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal before every step, so that all directions of a weight are learnt at one pace.

    Takes matrices, and convolutions as matrices (out, everything else). torch.optim.Muon refuses convolutions and
    computes in bfloat16 always, which takes several times as long on a processor without it; here where `half`.
    Weights of one shape are stepped together, which takes two thirds of the time of one after another.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, half: bool = False):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = torch.bfloat16 if half else None

    @torch.no_grad()
    def step(self, closure=None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for weights in _alike(weight for weight in group["params"] if weight.grad is not None):
                self._move(weights, group["lr"], group["weight_decay"])

    def _move(self, weights: list[Tensor], rate: float, decay: float) -> None:
        """Steps weights of one shape together."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)  # pyright: ignore
        ahead = torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM)  # pyright: ignore
        ahead = torch.stack(ahead).flatten(2)  # (weights, out, everything else)
        length = MATCHING_RMS * max(ahead.shape[1:]) ** 0.5
        steps = orthogonal(ahead.to(self._dtype)).to(ahead.dtype).view(len(weights), *weights[0].shape)
        torch._foreach_mul_(weights, 1 - rate * decay)  # pyright: ignore
        torch._foreach_add_(weights, steps.unbind(), alpha=-rate * length)  # pyright: ignore


def _alike(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The weights in lists of one shape and device each."""
    found: dict[tuple, list[Tensor]] = {}
    for weight in weights:
        found.setdefault((weight.shape, weight.device), []).append(weight)
    return found.values()


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (k, m, n) with their singular values brought to 0.18 to 1.87, but for those far below the greatest one.

    They are first divided by the fourth root of the sum of their fourth powers: a closer bound of the greatest than
    the Frobenius norm, so that fewer polynomials are needed.
    """
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices
    x = x / _norms(x).clamp(min=1e-7)
    gram = x @ x.mT
    bound = MARGIN * _norms(gram).sqrt().clamp(min=1e-7)
    x, gram = x / bound, gram / bound.square()
    for number, (a, b, c) in enumerate(POLAR):
        gram = x @ x.mT if number else gram
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x


def _norms(matrices: Tensor) -> Tensor:
    """Frobenius norms (k, 1, 1) of matrices (k, m, n)."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
