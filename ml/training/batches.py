"""What the steps of a training are made of; seed and number of a step alone decide it, so any can be made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

AHEAD = 8  # steps whose batches are drawn at once: many small operations for one would take a tenth of it
Drawn = TypeVar("Drawn")


class Shuffle:
    """Rows of batch number `step`, every row once an epoch, in an order that only seed and epoch decide."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def batch(self, step: int) -> Tensor:
        places = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return torch.cat(
            [
                self._permutation(int(e))[places[places // self.rows == e] % self.rows]
                for e in (places // self.rows).unique()
            ]
        )

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.rows, generator=generator)
        return self._order


class Ahead(Generic[Drawn]):
    """What AHEAD steps are made of, drawn at once; seed and number of the step alone decide what it is.

    draw: gives that of AHEAD steps from the one of its number on, by a generator of their own.
    """

    def __init__(self, draw: Callable[[int, torch.Generator], Sequence[Drawn]], seed: int):
        self._draw, self._seed = draw, seed
        self._number, self._drawn = -1, ()

    def of(self, step: int) -> Drawn:
        if (number := step // AHEAD) != self._number:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + 500_000 + number)
            self._number, self._drawn = number, self._draw(number * AHEAD, generator)
        return self._drawn[step % AHEAD]
