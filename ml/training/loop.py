"""The one visible training loop, with its schedule, precision, checkpoints, and what becomes of a trained model.

Everything random comes from generators on the CPU that follow from the seed and the step, or from one whose state a
checkpoint holds beside model, optimiser and average; so without a GPU a run that was killed and started again ends
with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ml import models
from ml.config import UserError
from ml.files import whole_file
from ml.training.optimizers import make_optimizers, set_learning_rate

if TYPE_CHECKING:
    from ml.config import Recipe, Training
    from ml.datasets import ImageSet, SpeechSet

CHECKPOINT_STEPS = 100
VALIDATIONS = 5  # during a run; the last one is at its end
MAX_GRADIENT_NORM = 2.0
WARMUP_SHARE = 0.15
AVERAGE_DECAY = 0.999


@dataclass(frozen=True)
class Run:
    """What one run of the loop is: `identity` is digested, and a checkpoint of another identity is never resumed."""

    name: str
    recipe: Recipe
    steps: int
    seed: int
    device: torch.device
    checkpoint: Path
    identity: dict
    progress: bool
    checkpoint_steps: int
    bfloat16: bool = False  # on a processor that has it; a GPU always computes in it

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def validates_at(self, done: int) -> bool:
        return done in {round(self.steps * (k + 1) / VALIDATIONS) for k in range(VALIDATIONS)}

    def reports_at(self, done: int) -> bool:
        return self.validates_at(done) or done % self.checkpoint_steps == 0

    def keeps_at(self, done: int) -> bool:
        return done < self.steps and done % self.checkpoint_steps == 0


@dataclass(frozen=True)
class Trained:
    """The averaged model, history [{"step", "loss", metric}], and seconds spent, those before a kill included."""

    model: nn.Module
    history: list[dict]
    seconds: float


def pick_device(training: Training) -> torch.device:
    """The device that `training.device` names; "auto" is the GPU where there is one."""
    if training.device == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device: cuda: this machine has no GPU that torch can use; expected cpu or auto")
    name = training.device if training.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def precision(run: Run) -> torch.autocast:
    """bfloat16 where the device gains by it."""
    return torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=in_bfloat16(run))


def in_bfloat16(run: Run) -> bool:
    return run.device.type == "cuda" or run.bfloat16


def has_bfloat16(device: torch.device) -> bool:
    """Whether this is a processor with instructions for bfloat16 (AVX-512 BF16, AMX)."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and bool(asked and asked())


def half_precision(run: Run) -> Run:
    """The run in bfloat16 where the processor has it: convolutions this narrow then take half the time."""
    half = has_bfloat16(run.device)
    return dataclasses.replace(run, bfloat16=half, identity={**run.identity, "bfloat16": half})


def plan_run(
    name: str,
    recipe: Recipe,
    training: Training,
    data: dict[str, str],
    checkpoints: Path,
    progress: bool = True,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> Run:
    """The run of one model: its device, steps at the budget, checkpoint file and identity."""
    device, steps = pick_device(training), recipe.steps.of(training.budget)
    if steps < 1:
        raise UserError(f"{name}: steps.{training.budget}: {steps}: expected at least 1")
    identity = {
        "name": name,
        "recipe": dataclasses.asdict(recipe),
        "steps": steps,
        "seed": training.seed,
        "data": data,
        "device": device.type,
        "torch": torch.__version__,
        "code": code_digest(),
    }
    return Run(
        name, recipe, steps, training.seed, device, checkpoints / f"{name}.pt", identity, progress, checkpoint_steps
    )


@functools.cache
def code_digest() -> str:
    """A digest of all of this package's source, since any of it may change what a training comes to."""
    root = Path(models.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def fit(
    run: Run,
    model: nn.Module,
    loss_of: Callable[[nn.Module, int, torch.Generator], Tensor],
    validate: Callable[[nn.Module], dict[str, float]],
) -> Trained:
    """Trains `model` for run.steps steps: forward, backward, step.

    loss_of draws batch number `step` with the generator and returns its scalar loss; validate returns named figures of
    the averaged model. Raises FloatingPointError where the loss is not finite; no checkpoint is written from there on.
    """
    model.to(run.device).train()
    average, optimizers = copy_of(model), make_optimizers(model, run.recipe, half=in_bfloat16(run))
    generator = torch.Generator().manual_seed(run.seed)
    parts = Parts(model, average, optimizers, generator)
    first, history, spent = resume(run, parts)
    begun, losses, averaged = time.perf_counter(), Mean(run.device), averages(average, model)
    bar = progress_bar(run, first)
    for step in bar:
        set_learning_rate(optimizers, run.recipe.learning_rate * one_cycle(step, run.steps))
        with precision(run), seeded(run.seed * 1_000_003 + step):  # for dropout, so that a run that goes on ends alike
            loss = loss_of(model, step, generator)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        update_average(averaged, step)
        losses.add(loss + 0 * norm)  # so that an infinite gradient is found as well
        done = step + 1
        if run.reports_at(done):
            figures = validate(average) if run.validates_at(done) else {}
            history.append({"step": done, "loss": finite(losses.take(), run, done), **figures})
            figures_shown = {key: f"{value:.4g}" for key, value in history[-1].items() if key != "step"}
            bar.set_postfix(figures_shown, refresh=False)
        if run.keeps_at(done):
            write_checkpoint(run, parts, done, history, spent + time.perf_counter() - begun)
    return Trained(average.eval(), history, spent + time.perf_counter() - begun)


class Quiet:
    """Steps that are shown to nobody."""

    def __init__(self, steps: range):
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def set_postfix(self, figures: dict, refresh: bool) -> None:
        pass


def progress_bar(run: Run, first: int):
    """Steps from `first` on, shown as they go; a log file gets a line now and then, a terminal an animation."""
    if not run.progress:
        return Quiet(range(first, run.steps))
    from tqdm import tqdm

    return tqdm(
        range(first, run.steps),
        run.name,
        initial=first,
        total=run.steps,
        miniters=1,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )


class Mean:
    """Running mean of losses that stays on the device until it is asked for, so that the loop never waits."""

    def __init__(self, device: torch.device):
        self.total, self.count = torch.zeros((), device=device), 0

    def add(self, loss: Tensor) -> None:
        self.total, self.count = self.total + loss.detach().float(), self.count + 1

    def take(self) -> float:
        mean = self.total.item() / self.count
        self.total, self.count = torch.zeros_like(self.total), 0
        return mean


def one_cycle(step: int, steps: int) -> float:
    """Share of the top learning rate: up linearly, down to zero as a cosine (arXiv 1708.07120)."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def copy_of(model: nn.Module) -> nn.Module:
    """An equal model that takes no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def averages(average: nn.Module, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """All floating weights and running statistics, as they are kept and as they are trained."""
    kept, new = ([t for t in part.state_dict().values() if t.is_floating_point()] for part in (average, model))
    return kept, new


@torch.no_grad()
def update_average(averaged: tuple[list[Tensor], list[Tensor]], step: int) -> None:
    """Exponential moving average of what `averages` gives, over a tenth of the run so far at first."""
    weight = 1 - min(AVERAGE_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(*averaged, weight)  # pyright: ignore


def finite(loss: float, run: Run, done: int) -> float:
    if math.isfinite(loss):
        return loss
    raise FloatingPointError(
        f"{run.name}: the loss is {loss} at step {done}: expected a finite number; "
        f"lower learning_rate ({run.recipe.learning_rate}) or look at the data"
    )


@dataclass(frozen=True)
class Parts:
    """What changes from step to step."""

    model: nn.Module
    average: nn.Module
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator


def write_checkpoint(run: Run, parts: Parts, step: int, history: list[dict], seconds: float) -> None:
    """Replaces the run's checkpoint in one step; whoever kills the run finds the old one or the new."""
    state = {
        "digest": run.digest,
        "step": step,
        "model": parts.model.state_dict(),
        "average": parts.average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in parts.optimizers],
        "generator": parts.generator.get_state(),
        "history": history,
        "seconds": seconds,
    }
    with whole_file(run.checkpoint) as new:
        torch.save(state, new)


def resume(run: Run, parts: Parts) -> tuple[int, list[dict], float]:
    """Steps done, history and seconds of the run's checkpoint, whose state is loaded; 0, [], 0.0 where there is none.

    A checkpoint of other settings, data or code, or one that cannot be read, is replaced at the next one.
    """
    if not run.checkpoint.exists():
        return 0, [], 0.0
    try:
        state = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    except Exception as fault:  # a damaged file fails in as many ways as pickle and zip have
        print(f"{run.checkpoint}: cannot be read ({type(fault).__name__}); starting anew", file=sys.stderr)
        return 0, [], 0.0
    if state["digest"] != run.digest:
        return 0, [], 0.0
    parts.model.load_state_dict(state["model"])
    parts.average.load_state_dict(state["average"])
    for optimizer, kept in zip(parts.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    parts.generator.set_state(state["generator"])
    return state["step"], state["history"], state["seconds"]


def finish(run: Run, trained: Trained, out: Path, card: dict) -> dict:
    """Saves the model folder, then removes the checkpoint; returns the card."""
    card = {
        "name": run.name,
        **card,
        "data": run.identity["data"],
        "recipe": run.identity["recipe"],
        "seed": run.seed,
        "steps": run.steps,
        "history": trained.history,
        "train_s": round(trained.seconds, 2),
        "parameters": models.count_parameters(trained.model),
        "device": run.device.type,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    card = models.save_model(out, trained.model, card)
    run.checkpoint.unlink(missing_ok=True)
    return card


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """First weights and dropout are drawn by torch itself: seeds its global generator, and puts it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def calibrate(logits: Tensor, labels: Tensor) -> float:
    """Temperature that gives logits (n, classes) the least cross entropy against labels (n,) (arXiv 1706.04599).

    As in Platt scaling, 1 of n + 2 is kept for the other classes: where all n are right, that is all that is known.
    """
    temperatures = torch.logspace(-1, 1, 201, dtype=torch.float64)
    logits, labels = logits.double().cpu(), labels.cpu()
    loss = nn.CrossEntropyLoss(label_smoothing=1 / (len(labels) + 2))
    losses = torch.stack([loss(logits / t, labels) for t in temperatures])
    return float(temperatures[losses.argmin()])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels.to(logits.device)).float().mean())


Rows = TypeVar("Rows", "ImageSet", "SpeechSet")


def required(data: Rows, split: str, name: str) -> Rows:
    """The rows of one split; UserError where there are none."""
    rows = data.where(split)
    if len(rows) == 0:
        raise UserError(f"{name}: the data has no {split} split; expected some rows in it, prepare it again")
    return rows
