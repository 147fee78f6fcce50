"""Augmentation of spoken words: other voices, rooms, microphones and noises than those that were recorded.

Parameters are drawn on the CPU from an explicit generator and applied in batches on the device, without a step in
Python per clip. What makes another speaker of a recording: the speed of the clip bank moves pitch, formants and
tempo together, `warp` the formants alone, `stretch` the tempo alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ml import features, scenes

if TYPE_CHECKING:
    from ml.config import Augmentation

PAUSE_S = 0.15
ROOM_S = 0.25  # of an impulse response; what comes later is too faint to matter here


@dataclass(frozen=True)
class Voices:
    """Drawn parameters of b clips, on the CPU: (b,) each, rooms (wet, samples) for the first `wet` of them.

    before, after: samples of pause; sizes: samples with both. level, colour, start: of the noise. warp: of the
    frequencies, stretch: of the duration, both as factors.
    """

    speeds: Tensor
    before: Tensor
    sizes: Tensor
    level: Tensor
    colour: Tensor
    start: Tensor
    warp: Tensor
    stretch: Tensor
    rooms: Tensor
    masks: features.SpecMasks

    def of(self, clips: Tensor, rooms: Tensor) -> Voices:
        """What was drawn for some of the clips (n,), the first of which sound in `rooms`."""
        each = (field.name for field in fields(self) if field.name not in ("rooms", "masks"))
        return Voices(**{name: getattr(self, name)[clips] for name in each}, rooms=rooms, masks=self.masks.of(clips))

    def by_length(self, batches: int, generator: torch.Generator) -> list[tuple[Tensor, Voices]]:
        """The clips dealt out to batches of like length, in any order: their numbers (n,) and what was drawn for them.

        What is padded costs as much as what is said, and most clips are far shorter than the longest of many.
        """
        ranked = (self.sizes * self.stretch).argsort().unflatten(0, (batches, -1))
        mixed = [group[torch.randperm(len(group), generator=generator)] for group in ranked]
        order, rooms = torch.randperm(batches, generator=generator), self.rooms.tensor_split(batches)
        return [(mixed[k], self.of(mixed[k], rooms[k])) for k in order.tolist()]


def draw_voices(
    bank: scenes.ClipBank, lengths: Tensor, colours: int, how: Augmentation, generator: torch.Generator
) -> Voices:
    """Draws for clips of `lengths` (b, speeds) samples on the CPU and a noise bank of so many colours."""
    b = len(lengths)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    speeds = torch.randint(bank.speeds, (b,), generator=generator)
    before, after = (rand(2, b) * PAUSE_S * (rand(b) < 0.5) * bank.sample_rate_hz).long()
    snr_db = how.most_snr_db - (how.most_snr_db - how.least_snr_db) * rand(b)
    return Voices(
        speeds=speeds,
        before=before,
        sizes=lengths[torch.arange(b), speeds] + before + after,
        level=10 ** (-snr_db / 20) * (rand(b) < how.noise_share),
        colour=torch.randint(colours, (b,), generator=generator),
        start=rand(b),
        warp=_factors(rand(b), how.warp),
        stretch=_factors(rand(b), how.stretch),
        rooms=draw_rooms(round(how.room_share * b), bank.sample_rate_hz, generator),
        masks=features.draw_spec_masks(b, generator, tilt=how.equaliser),
    )


def _factors(uniform: Tensor, reach: float) -> Tensor:
    """Factors from 1 / (1 + reach) to 1 + reach, as often above 1 as below."""
    return (1 + reach) ** (2 * uniform - 1)


def draw_rooms(n: int, sample_rate_hz: int, generator: torch.Generator) -> Tensor:
    """Impulse responses (n, samples): the direct sound, then noise that dies away by 60 dB in 0.1 to 0.6 s.

    The direct sound lies 0 to 12 dB above the rest.
    """
    time_s = torch.arange(int(ROOM_S * sample_rate_hz)) / sample_rate_hz
    decay_s = 0.1 + 0.5 * torch.rand(n, 1, generator=generator)
    tail = torch.randn(n, len(time_s), generator=generator) * 10 ** (-3 * time_s / decay_s)
    tail = tail / tail.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    rooms = tail * 10 ** (-12 * torch.rand(n, 1, generator=generator) / 20)
    rooms[:, 0] = 1
    return rooms


def reverberate(waveforms: Tensor, rooms: Tensor) -> Tensor:
    """The first clips of waveforms (b, samples) as they sound in rooms (wet, samples); what rings on is cut off."""
    wet, samples = len(rooms), waveforms.shape[1]
    if wet == 0:
        return waveforms
    size = samples + rooms.shape[1]
    spectrum = torch.fft.rfft(waveforms[:wet], size) * torch.fft.rfft(rooms.to(waveforms.device), size)
    return torch.cat((torch.fft.irfft(spectrum, size)[:, :samples], waveforms[wet:]))


def stretch_time(log_mel: Tensor, frames: Tensor, factor: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """log_mel (b, n_mels, time) drawn out to `factor` (b,) times as many frames, padded to `size`, and frames (b,)."""
    longer = (frames * factor.to(frames.device)).round().long().clamp(1, size)
    ratio = (frames - 1) / (longer - 1).clamp(min=1)
    place = torch.arange(size, device=log_mel.device) * ratio[:, None]  # (b, size)
    last = (frames - 1)[:, None]
    below = torch.minimum(place.floor().long(), last)
    share = (place - below).clamp(0, 1)[:, None]
    above = torch.minimum(below + 1, last)
    wide = (-1, log_mel.shape[1], -1)
    first, second = (log_mel.gather(2, index[:, None].expand(*wide)) for index in (below, above))
    drawn_out = first * (1 - share) + second * share
    return drawn_out * features.valid_mask(longer, size)[:, None], longer


def speak(
    bank: scenes.ClipBank, noise: Tensor, rows: Tensor, drawn: Voices, log_mel: features.LogMel
) -> tuple[Tensor, Tensor]:
    """Log-mel (b, n_mels, time) and frames (b,) of clips `rows` (b,) as `drawn` says, on the bank's device."""
    device, samples = bank.samples.device, int(drawn.sizes.max())
    clips = bank.place(rows.to(device), drawn.speeds.to(device), drawn.before.to(device), samples)
    waveforms = reverberate(clips, drawn.rooms)
    waveforms = waveforms + scenes.noise_of(noise, drawn.colour, drawn.start, drawn.level, samples)
    mel, frames = log_mel(waveforms, drawn.sizes.to(device), drawn.warp.to(device))
    size = int((log_mel.frames(drawn.sizes) * drawn.stretch).round().max().clamp(min=1))
    mel, frames = stretch_time(mel, frames, drawn.stretch, size)
    return features.apply_spec_masks(mel, frames, drawn.masks), frames
