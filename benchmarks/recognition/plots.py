"""Pictures for the page: what was measured, and the insides of the trained models at work on one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ml import features, models
from ml.datasets import SpeechSet
from ml.evaluation.plots import INK, PALE, WARM

COLOURS = {"cnn": INK, "rnn": WARM, "lstm": "#4a8f5c"}
FRAME_S = 0.010


def sounds_figure(speech: SpeechSet, rows: Sequence[int]) -> Figure:
    """Log-mel spectrograms of some clips, as every model takes them in."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, row in zip(figure.subplots(2, -(-len(rows) // 2)).flat, rows, strict=False):
        _spectrogram(axes, spectrum_of(speech, row), f'"{speech.classes[speech.labels[row]]}" ({speech.group[row]})')
    return figure


def _spectrogram(axes, mel: Tensor, title: str) -> None:
    axes.imshow(
        mel.numpy(), origin="lower", aspect="auto", cmap="magma", extent=(0, FRAME_S * mel.shape[1], 0, len(mel))
    )
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)


@torch.no_grad()
def cnn_figure(model: models.SpeechCNN, mel: Tensor) -> Figure:
    """The first filters (3 x 3), and what the four stages make of a spectrogram (n_mels, frames)."""
    filters = model.body[0][0].weight[:, 0]  # (narrow, 3, 3)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 2.2))
    upper.suptitle("first-layer filters: 3 mel bands x 3 frames, red lets through, blue takes away", fontsize=9)
    reach = float(filters.abs().max())
    for axes, one in zip(upper.subplots(1, len(filters), squeeze=False)[0], filters, strict=True):
        axes.imshow(one.numpy(), origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach)
        axes.set_xticks([])
        axes.set_yticks([])
    maps, panels = mel[None, None], lower.subplots(1, 1 + len(model.body))
    _spectrogram(panels[0], mel, "in: log-mel")
    for axes, stage, number in zip(panels[1:], model.body, range(1, 9), strict=False):
        maps = stage(maps)
        strongest = maps[0].flatten(1).std(1).argmax()
        axes.imshow(maps[0, strongest].numpy(), origin="lower", aspect="auto", cmap="viridis")
        axes.set_title(
            f"stage {number}: one of {maps.shape[1]} maps,\n{maps.shape[2]} bands x {maps.shape[3]}", fontsize=9
        )
        axes.tick_params(labelsize=7)
    return figure


@dataclass(frozen=True)
class Gates:
    """What an LSTM did over a word: input, forget, output gates and cell, each (channels, steps)."""

    input: Tensor
    forget: Tensor
    output: Tensor
    cell: Tensor


@torch.no_grad()
def gates_of(lstm: nn.LSTM, steps: Tensor) -> tuple[Gates, Tensor]:
    """The gates of a one-directional, one-layer LSTM over steps (time, width), and its states (time, channels).

    Written out as the equations have it, since torch's own layer does not show its gates (Gers et al. 2000).
    """
    hidden = cell = steps.new_zeros(lstm.hidden_size)
    kept: list[list[Tensor]] = [[], [], [], []]
    states = []
    weights = (lstm.weight_ih_l0, lstm.bias_ih_l0, lstm.weight_hh_l0, lstm.bias_hh_l0)
    into, into_bias, back, back_bias = weights
    for step in steps:
        i, f, g, o = (into @ step + into_bias + back @ hidden + back_bias).chunk(4)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        cell = f * cell + i * g.tanh()
        hidden = o * cell.tanh()
        states.append(hidden)
        for row, value in zip(kept, (i, f, o, cell), strict=True):
            row.append(value)
    return Gates(*(torch.stack(row, 1) for row in kept)), torch.stack(states)


@torch.no_grad()
def recurrent_figure(rnn: models.SpeechRecurrent, lstm: models.SpeechRecurrent, mel: Tensor) -> Figure:
    """The states of the RNN and the gates of the LSTM over one word's spectrogram (n_mels, frames), forwards."""
    steps = models.stack_frames(mel[None], 2)[0]  # (time, width)
    states = rnn.ahead[0](steps[None])[0][0].T  # (channels, time)
    gates, _ = gates_of(lstm.ahead[0], steps)
    rows = {
        "RNN: state": (states, "RdBu_r", -1, 1),
        "LSTM: input gate": (gates.input, "viridis", 0, 1),
        "LSTM: forget gate": (gates.forget, "viridis", 0, 1),
        "LSTM: output gate": (gates.output, "viridis", 0, 1),
        "LSTM: cell": (gates.cell, "RdBu_r", -2, 2),
    }
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    panels = figure.subplots(2, 3).flat
    _spectrogram(next(panels), mel, "in: log-mel")
    for axes, (name, (values, colours, low, high)) in zip(panels, rows.items(), strict=True):
        ordered = values[values.float().argmax(1).argsort()]  # units in the order in which they speak up
        shown = axes.imshow(ordered.numpy(), aspect="auto", cmap=colours, vmin=low, vmax=high)
        axes.set_title(f"{name}, {len(values)} units over {values.shape[1]} steps of 20 ms", fontsize=9)
        axes.tick_params(labelsize=7)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def noise_figure(noise: Mapping[str, Mapping[str, float]]) -> Figure:
    """Accuracy over the signal-to-noise ratio, by kind."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for kind, row in noise.items():
        axes.plot([float(snr) for snr in row], [100 * v for v in row.values()], "o-", color=COLOURS[kind], label=kind)
    axes.set(xlabel="white noise: signal-to-noise ratio in dB", ylabel="words recognised, %")
    axes.grid(color=PALE, alpha=0.4)
    if noise:
        axes.legend()
    return figure


def data_figure(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Accuracy over the number of training clips (kind -> (clips, accuracy) in order)."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for kind, points in curves.items():
        axes.plot([n for n, _ in points], [100 * v for _, v in points], "o-", color=COLOURS[kind], label=kind)
    axes.set(xscale="log", xlabel="training clips", ylabel="validation at 0 dB, words recognised, %")
    axes.grid(color=PALE, alpha=0.4)
    if curves:
        axes.legend()
    return figure


def interval_figure(rows: Sequence[tuple[str, float, float, float]], title: str) -> Figure:
    """One bar of a 95 % interval for each (name, accuracy, low, high)."""
    figure = Figure(figsize=(6.4, 0.6 + 0.32 * max(2, len(rows))), layout="constrained")
    axes = figure.subplots()
    for place, (_, value, low, high) in enumerate(rows):
        axes.plot([100 * low, 100 * high], [place, place], color=PALE, lw=5, solid_capstyle="butt")
        axes.plot(100 * value, place, "o", color=INK)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlabel="words recognised, % (95 % interval)", title=title)
    axes.grid(axis="x", color=PALE, alpha=0.4)
    return figure


def spectrum_of(speech: SpeechSet, row: int) -> Tensor:
    """Log-mel (n_mels, frames) of one clip."""
    return features.LogMel(speech.sample_rate_hz)(torch.from_numpy(np.array(speech.clip(row)))[None])[0][0]
