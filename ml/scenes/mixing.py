"""Scenes for training, mixed on the device in batches, without a step in Python per scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchaudio
from torch import Tensor

from ml.config import UserError
from ml.scenes.levels import active_level, active_range

if TYPE_CHECKING:
    from ml.datasets import SpeechSet

SPEEDS = ((17, 20), (9, 10), (19, 20), (1, 1), (21, 20), (11, 10), (23, 20))  # 0.85 to 1.15, as ratios
MAX_CLIP_S = 3.0
PRESENT_SHARE = 0.85
HARD_SHARE = 0.5  # of two words at about one level, one within the other, in little noise
UNKNOWN_SHARE = 0.3  # of the words that nobody asks for: played backwards, so that they say nothing known
GAP_SAMPLES = 64


@dataclass(frozen=True)
class ClipBank:
    """Every clip at every speed, one after another in one resident tensor, at active level 1.

    samples float16 (total,); offsets, lengths, active_starts, active_ends (clips, speeds) int64 on the device;
    labels (clips,) int64 on the CPU, where parameters are drawn, below `classes`. Clips are cut at MAX_CLIP_S. The
    first `own` clips are the data's, those behind them extra voices.
    """

    samples: Tensor
    offsets: Tensor
    lengths: Tensor
    active_starts: Tensor
    active_ends: Tensor
    labels: Tensor
    classes: int
    sample_rate_hz: int
    own: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def speeds(self) -> int:
        return self.offsets.shape[1]

    def place(
        self, clips: Tensor, speeds: Tensor, starts: Tensor, samples: int, backwards: Tensor | None = None
    ) -> Tensor:
        """Waveforms (…, samples): clip and speed (…) with its first sample at `starts` (…), all on the device.

        backwards (…) bool: which of them are played from their last sample to their first; none where it is None.
        """
        time = torch.arange(samples, device=self.samples.device) - starts[..., None]  # (…, samples)
        lengths = self.lengths[clips, speeds][..., None]
        inside = (time >= 0) & (time < lengths)
        if backwards is not None:
            time = torch.where(backwards[..., None], lengths - 1 - time, time)
        index = (self.offsets[clips, speeds][..., None] + time).clamp(0, len(self.samples) - 1)
        return self.samples[index].float() * inside


def clip_bank(
    speech: SpeechSet, device: torch.device, speeds: Sequence[tuple[int, int]] = SPEEDS, own: int | None = None
) -> ClipBank:
    """All clips of `speech` resampled to every speed, each a ratio; silent clips are refused (UserError).

    own: how many of them, the first ones, are the data's own; all where it is None.
    """
    limit = int(MAX_CLIP_S * speech.sample_rate_hz)
    clips = [_at_most(speech.clip(i), limit) for i in range(len(speech))]
    levels = np.array([active_level(clip) for clip in clips], np.float32)
    if (silent := np.flatnonzero(levels == 0)).size:
        raise UserError(f"clip {speech.ids[silent[0]]}: expected sound, got silence; validate the data again")
    active = np.array([active_range(clip) for clip in clips])
    clips = [clip / level for clip, level in zip(clips, levels, strict=True)]
    parts, offsets, lengths, total = [], [], [], 0
    for faster, slower in speeds:
        flat, at, size = _resampled(clips, faster, slower)
        parts.append(flat.half())
        offsets.append(at + total)
        lengths.append(size)
        total += len(flat)
    ratio = np.array([slower / faster for faster, slower in speeds])

    def resident(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)

    return ClipBank(
        samples=torch.cat(parts).to(device),
        offsets=resident(np.stack(offsets, 1)),
        lengths=resident(np.stack(lengths, 1)),
        active_starts=resident(active[:, :1] * ratio),
        active_ends=resident(active[:, 1:] * ratio),
        labels=torch.from_numpy(np.array(speech.labels, dtype=np.int64)),
        classes=len(speech.classes),
        sample_rate_hz=speech.sample_rate_hz,
        own=len(speech) if own is None else own,
    )


def _at_most(clip: np.ndarray, samples: int) -> np.ndarray:
    """A clip (samples,); of a longer one so many samples from where it begins to sound."""
    return clip if len(clip) <= samples else clip[active_range(clip)[0] :][:samples]


def speeds_within(change: float) -> tuple[tuple[int, int], ...]:
    """The SPEEDS that are no further from the recorded one than this share."""
    return tuple(ratio for ratio in SPEEDS if abs(ratio[0] / ratio[1] - 1) <= change + 1e-9)


def _resampled(clips: Sequence[np.ndarray], faster: int, slower: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Clips played faster/slower times as fast: one flat tensor, where each begins, and how long each is.

    All are resampled in one pass: each lies on a multiple of `faster` samples, with a gap before the next one.
    """
    slots = np.array([-(-(len(clip) + GAP_SAMPLES) // faster) * faster for clip in clips])
    begins = np.concatenate(([0], np.cumsum(slots)[:-1]))
    flat = np.zeros(int(slots.sum()), dtype=np.float32)
    for begin, clip in zip(begins, clips, strict=True):
        flat[begin : begin + len(clip)] = clip
    tensor = torch.from_numpy(flat)
    if faster != slower:
        tensor = torchaudio.functional.resample(tensor, faster, slower)
    lengths = np.array([-(-len(clip) * slower // faster) for clip in clips])
    return tensor, begins // faster * slower, lengths


def noise_bank(generator: torch.Generator, device: torch.device, sample_rate_hz: int, seconds: float = 20.0) -> Tensor:
    """Noise of six colours (6, samples) at root mean square 1; power falls as frequency ** 0, 0, 0.5, 1, 1.5 and 2."""
    samples = int(seconds * sample_rate_hz)
    spectrum = torch.fft.rfft(torch.randn(6, samples, generator=generator))
    frequency = torch.arange(spectrum.shape[1]).clamp(min=int(60 * seconds)) / samples
    slope = torch.tensor((0.0, 0.0, 0.5, 1.0, 1.5, 2.0))[:, None]
    coloured = torch.fft.irfft(spectrum * frequency ** (-slope / 2), n=samples)
    return (coloured / coloured.square().mean(1, keepdim=True).sqrt()).to(device)


@dataclass(frozen=True)
class TrainingScenes:
    """Drawn parameters of b scenes of w words, on the CPU.

    clips, speeds, levels (b, w): level 0 means no word; backwards (b, w) bool: played so, it is a word of no label;
    place (b, w) in 0..1, of the first word where `inside` (b, w), else of the scene; queries (b, 2) label numbers,
    the second -1 where only one is asked for; noise_level, noise_colour, noise_start (b,).
    """

    clips: Tensor
    speeds: Tensor
    levels: Tensor
    backwards: Tensor
    place: Tensor
    inside: Tensor
    queries: Tensor
    noise_level: Tensor
    noise_colour: Tensor
    noise_start: Tensor


@dataclass(frozen=True)
class SceneBatch:
    """On the device. Of b scenes: mixture (b, samples); active (b, classes, frames) bool, whichever word is asked for;
    spans (b, w, 2) in samples and labels (b, w) of the words, -1 for none.

    And of q questions about them, every scene's first one before all second ones: scene (q,), the scene's number;
    queries (q,), the label asked for; present (q,) bool, whether it is said; target (q, samples).
    """

    mixture: Tensor
    active: Tensor
    spans: Tensor
    labels: Tensor
    scene: Tensor
    queries: Tensor
    present: Tensor
    target: Tensor


def draw_training_scenes(
    bank: ClipBank,
    n: int,
    confusable: Tensor,
    generator: torch.Generator,
    queryable: Tensor,
    extra_share: float = 0.0,
) -> TrainingScenes:
    """Draws scenes of 1-3 words of which 15 % lack the word asked for.

    That is fewer than are met later: presence is learnt from all the words of every scene, separation only from those
    that are there. The query is the first word's label or, in absent scenes, one that no word has: for half of them
    the label that sounds most like the first word's (`confusable` (classes,)). The second word, where it is another, is
    asked for as well. queryable (classes,) bool: labels that have pictures. HARD_SHARE of the scenes are as hard as can
    be: nothing in them is told apart by place or level. In the others UNKNOWN_SHARE of the words, but for those asked
    for first, are words of no label. extra_share: of the words, from the bank's extra voices.
    """
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    clips = torch.randint(bank.own, (n, 3), generator=generator)
    if extra_share and len(bank) > bank.own:
        extra = torch.randint(bank.own, len(bank), (n, 3), generator=generator)
        clips = torch.where(rand(n, 3) < extra_share, extra, clips)
    labels = bank.labels[clips]  # (n, 3)
    hard = rand(n) < HARD_SHARE
    count = torch.where(hard, 2, 1 + (rand(n) > 0.1).long() + (rand(n) > 0.75).long())
    used = torch.arange(3) < count[:, None]
    asked = (rand(n) < PRESENT_SHARE) & queryable[labels[:, 0]]  # for the first word
    backwards = (rand(n, 3) < UNKNOWN_SHARE) & ~hard[:, None]
    backwards[:, 0] &= ~asked
    other = rand(n, len(queryable)) - 100 * (~queryable).float()
    other = other.scatter_add(1, labels, -used.float() * 4).argmax(1)  # a label that no word has, where there is one
    near = confusable[labels[:, 0]]
    queries = torch.where(rand(n) < 0.5, near, other)
    heard = ((labels == queries[:, None]) & used).any(1) | ~queryable[queries]
    queries = torch.where(asked, labels[:, 0], torch.where(heard, other, queries))
    also = used[:, 1] & ~backwards[:, 1] & queryable[labels[:, 1]] & (labels[:, 1] != queries)
    levels = 10 ** ((rand(n, 3) * 10 - 5) * torch.where(hard, 0.5, 1.0)[:, None] / 20)
    levels[:, 0] = 1
    return TrainingScenes(
        clips=clips,
        speeds=torch.randint(bank.speeds, (n, 3), generator=generator),
        levels=levels * used,
        backwards=backwards,
        place=rand(n, 3),
        inside=(rand(n, 3) < 0.7) | hard[:, None],
        queries=torch.stack((queries, torch.where(also, labels[:, 1], -1)), dim=1),
        noise_level=10 ** (-torch.where(hard, 15 + 20 * rand(n), 5 + 30 * rand(n)) / 20),
        noise_colour=torch.randint(6, (n,), generator=generator),
        noise_start=rand(n),
    )


def mix(bank: ClipBank, noise: Tensor, drawn: TrainingScenes, samples: int, hop_samples: int) -> SceneBatch:
    """Mixes drawn scenes of `samples` on the bank's device, without a step in Python per scene."""
    device = bank.samples.device
    which, scene = (drawn.queries.T >= 0).nonzero(as_tuple=True)  # (q,) each
    queries = drawn.queries[scene, which]
    clips, speeds, levels, backwards, place, inside, scene, queries = (
        x.to(device, non_blocking=True)
        for x in (drawn.clips, drawn.speeds, drawn.levels, drawn.backwards, drawn.place, drawn.inside, scene, queries)
    )
    begin, end = bank.active_starts[clips, speeds], bank.active_ends[clips, speeds]  # (b, w)
    sizes, lead = end - begin, torch.where(backwards, bank.lengths[clips, speeds] - end, begin)
    starts = _training_places(sizes, place, inside, samples)
    words = bank.place(clips, speeds, starts - lead, samples, backwards) * levels[:, :, None]  # (b, w, samples)
    labels = torch.where((levels > 0) & ~backwards, bank.labels.to(device)[clips], -1)  # (b, w)
    wanted = labels[scene] == queries[:, None]  # (q, w)
    said = labels[:, :, None] == torch.arange(bank.classes, device=device)
    time = hop_samples * torch.arange(-(-samples // hop_samples) + 1, device=device)  # (frames,)
    spoken = (time >= starts[:, :, None]) & (time < (starts + sizes)[:, :, None])  # (b, w, frames)
    return SceneBatch(
        mixture=words.sum(1) + noise_of(noise, drawn.noise_colour, drawn.noise_start, drawn.noise_level, samples),
        active=(spoken[:, :, None] & said[:, :, :, None]).any(1),
        spans=torch.stack((starts, starts + sizes), dim=2),
        labels=labels,
        scene=scene,
        queries=queries,
        present=wanted.any(1),
        target=(words[scene] * wanted[:, :, None]).sum(1),
    )


def _training_places(sizes: Tensor, place: Tensor, inside: Tensor, samples: int) -> Tensor:
    """Starts (b, w) of active parts of `sizes` (b, w): the first word anywhere, others within it, round it, or not."""
    anywhere = place * (samples - sizes).clamp(min=0)
    first = anywhere[:, :1]
    around = first + place * (sizes[:, :1] - sizes)
    around = torch.minimum(around.clamp(min=0), (samples - sizes).clamp(min=0))
    inside = inside & (torch.arange(sizes.shape[1], device=sizes.device) > 0)
    return torch.where(inside, around, anywhere).long()


def noise_of(noise: Tensor, colour: Tensor, start: Tensor, level: Tensor, samples: int) -> Tensor:
    """Stretches (b, samples) of a noise bank (colours, total), by colour, start in 0..1 and level (b,)."""
    colour, start, level = (x.to(noise.device, non_blocking=True) for x in (colour, start, level))
    at = (start * noise.shape[1]).long()[:, None] + torch.arange(samples, device=noise.device)
    return noise[colour[:, None], at % noise.shape[1]] * level[:, None]


def confusable_labels(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """For every class the other class that sounds most like it (classes,): nearest mean of features (clips, d)."""
    means = torch.stack(
        [features[labels == k].mean(0) if (labels == k).any() else features.mean(0) for k in range(classes)]
    )
    distance = torch.cdist(means, means)
    return (distance + torch.diag(torch.full((classes,), torch.inf))).argmin(1)
