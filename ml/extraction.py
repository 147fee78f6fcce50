"""The image-conditioned extractor: encode, condition on what is pictured, mask, decode; with presence and places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torchaudio
from torch import Tensor, nn

from ml import features, models, spotting

MASK_LIMIT = 2.0
COMPRESSION = 0.3
HEARD_BANDS = 64
LEAST_HZ = 30.0
OTHER_MICROPHONE = 0.4  # deviation of an equaliser's widest wave
TYPICAL = 0.5  # compressed magnitude of a recording brought to `recording_gain`
UNASKED_LOGIT = -6.0
RARE_LOGIT = -3.0  # that a frame is a word's centre, before anything is learnt
DILATIONS = (1, 2, 4, 8)
REST_REACH = (3, 5)  # bins and frames round about


@dataclass(frozen=True)
class Listened:
    """What is heard of every label in every mixture: word_presence (b, labels), the soft maximum of word_scores
    (b, labels, frames), and word_places (b, labels, 4, frames) as `ml.spotting` has them."""

    word_presence: Tensor
    word_scores: Tensor
    word_places: Tensor

    def asked(self, query: Tensor, about: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Presence logits (q,) and places (q, 4, frames) of what queries (q, labels) ask for; about: as `forward` has
        it."""
        about = torch.arange(len(query), device=query.device) if about is None else about
        presence = asked_for(query[:, :, None], self.word_presence[about, :, None])[:, 0]
        return presence, places_asked_for(query, self.word_places[about])


@dataclass(frozen=True)
class ExtractorOutput(Listened):
    """And what was asked for: estimate (q, samples) at the mixture's own level, presence_logits (q,) and places
    (q, 4, frames)."""

    estimate: Tensor
    presence_logits: Tensor
    places: Tensor


class Extractor(nn.Module):
    """Takes out of a mixture every occurrence of the word that a picture's posterior asks for.

    Dense dilated convolutions over frames, in two halves. The first listens to `Hearing`: it scores every label in
    every frame and says where its words lie, so that a scene teaches it about all of them at once. The second sees the
    mixture's spectrum beside what the first made of it, is told by FiLM in every block (arXiv 1709.07871) what the
    picture asks for, and by the first where that was heard; it ends in a bounded complex mask on that spectrum (window
    32 ms, hop 16 ms, square-root Hann). It may be wider and deeper than the first: `extracting_channels`,
    `extracting_blocks`. Nothing global enters but one gain for the whole recording, and presence is the soft maximum
    of a frame score, so a long recording may be cut into pieces that overlap by `context_frames` and give the same
    answer.

    Once trained, it takes the mean of so many `looks`, each with its frames a little later, whose errors differ. For
    the same reason it asks with `others` for the other words that it hears too, and shares out what neither answer
    explains (mixture consistency, arXiv 1811.08521), less the more that is.
    """

    window: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        sample_rate_hz: int,
        channels: int,
        blocks: int,
        extracting_channels: int | None = None,
        extracting_blocks: int | None = None,
        looks: int = 1,
        others: bool = False,
        disguised: int = 0,
    ):
        super().__init__()
        self.others = others
        wide, half = extracting_channels or channels, (blocks + 1) // 2
        blocks = blocks if extracting_blocks is None else half + extracting_blocks
        self.labels, self.sample_rate_hz = tuple(labels), sample_rate_hz
        self.hop_samples = round(0.016 * sample_rate_hz)
        self.window_samples = 2 * self.hop_samples
        self.register_buffer("window", torch.hann_window(self.window_samples).sqrt(), persistent=False)
        self.bins, known = self.hop_samples + 1, len(self.labels)
        dilations = [DILATIONS[i % len(DILATIONS)] for i in range(blocks)]
        self.shifts = [self.hop_samples * look // looks for look in range(looks)]
        self.context_frames = sum(dilations) + 4  # to each side of a frame that its answer depends on
        self.hearing = Hearing(self.bins, sample_rate_hz, bool(disguised))
        self.encode = FrameConv(HEARD_BANDS, channels, 1)
        self.listening = nn.ModuleList(Block(channels, dilation) for dilation in dilations[:half])
        self.scores = nn.Sequential(
            FrameConv(channels, channels, 3, padding=1), nn.ReLU(), FrameConv(channels, 5 * known, 1)
        )
        with torch.no_grad():
            cast(Tensor, self.scores[-1].bias)[2 * known : 3 * known] = RARE_LOGIT
        self.enter = FrameConv(channels + 3 * self.bins, wide, 1)
        self.locate = FrameConv(1, wide, 1)
        self.extracting = nn.ModuleList(AskedBlock(wide, dilation, known) for dilation in dilations[half:])
        self.mask = FrameConv(wide, 2 * self.bins, 1)

    def forward(
        self, mixture: Tensor, query: Tensor, gain: Tensor | None = None, about: Tensor | None = None
    ) -> ExtractorOutput:
        """mixture (b, samples), query (q, labels): the picture's posterior over the shared labels.

        gain (b,): of `recording_gain`, where the mixture is a piece of a longer recording. about (q,): number of the
        mixture that each query asks of, which is listened to once; one query of each in turn where it is None.
        """
        gain = recording_gain(mixture, self.window_samples) if gain is None else gain
        about = torch.arange(len(mixture), device=mixture.device) if about is None else about
        shifts = self.shifts[:1] if self.training else self.shifts
        level = mixture * gain[:, None]
        looks = [self.look(nn.functional.pad(level, (shift, 0)), query, about) for shift in shifts]
        estimates = [look.estimate[:, shift:] for look, shift in zip(looks, shifts, strict=True)]
        return dataclasses.replace(looks[0], estimate=torch.stack(estimates).mean(0) / gain[about, None])

    def listen(self, mixture: Tensor, gain: Tensor | None = None) -> Listened:
        """What `forward` hears in mixtures (b, samples) whatever is asked for, without its other half's work."""
        gain = recording_gain(mixture, self.window_samples) if gain is None else gain
        return self.hear(self.transform(mixture * gain[:, None]))[1]

    def look(self, mixture: Tensor, query: Tensor, about: Tensor) -> ExtractorOutput:
        """`forward` of a mixture (b, samples) at its gain, with the estimate at it as well."""
        spectrum = self.transform(mixture)  # (b, bins, frames), complex
        seen = self.features(spectrum)  # (b, 3 bins, frames)
        states, heard = self.hear(spectrum)
        presence, places = heard.asked(query, about)
        entered, spectrum = self.enter(torch.cat((states, seen), dim=1))[about], spectrum[about]
        answer = self.extract(entered, spectrum, query[:, :, None], places[:, 3])  # (q, bins, frames)
        active = heard.word_places[about, :, 3]  # (q, labels, frames)
        if self.others and not self.training and (others := others_heard(query, active)).any():
            theirs = self.extract(entered, spectrum, others, asked_for(others, active))
            answer = answer + shared_rest(spectrum, answer, theirs, others)
        estimate = self.invert(answer, mixture.shape[1])  # (q, samples)
        return ExtractorOutput(**vars(heard), estimate=estimate, presence_logits=presence, places=places)

    def hear(self, spectrum: Tensor) -> tuple[Tensor, Listened]:
        """The listening half on a spectrum (b, bins, frames): its states (b, channels, frames), and what it hears."""
        states = self.encode(self.hearing(spectrum))
        for block in self.listening:
            states = block(states)
        scores, active, centres, *edges = self.scores(states).float().chunk(5, dim=1)  # (b, labels, frames) each
        places = torch.stack((centres, *map(spotting.distances, edges), active), dim=2)
        return states, Listened(soft_maximum(scores), scores, places)

    def extract(self, entered: Tensor, spectrum: Tensor, query: Tensor, active: Tensor) -> Tensor:
        """What is asked for (q, bins, frames) of a spectrum (q, bins, frames), by a query (q, labels, frames or 1) and
        logits (q, frames) of where that was heard."""
        states = entered + self.locate(torch.sigmoid(active)[:, None])
        for block in self.extracting:
            states = block(states, query)
        return spectrum * self.bounded_mask(states)

    def features(self, spectrum: Tensor) -> Tensor:
        """Compressed magnitude about zero, and real and imaginary part compressed alike: (b, 3 bins, frames)."""
        magnitude = spectrum.abs().clamp(min=1e-4)
        compressed = magnitude**COMPRESSION
        ratio = compressed / magnitude
        return torch.cat((compressed - TYPICAL, spectrum.real * ratio, spectrum.imag * ratio), dim=1)

    def bounded_mask(self, states: Tensor) -> Tensor:
        """Complex mask (b, bins, frames) whose real and imaginary part lie within ±MASK_LIMIT."""
        real, imaginary = self.mask(states).float().chunk(2, dim=1)
        real, imaginary = (MASK_LIMIT * torch.tanh(part / MASK_LIMIT) for part in (real + 0.5, imaginary))
        return torch.complex(real, imaginary)

    def transform(self, waveform: Tensor) -> Tensor:
        """Spectrum (b, bins, frames) of a waveform (b, samples)."""
        padded = nn.functional.pad(waveform, (0, -waveform.shape[1] % self.hop_samples))
        return torch.stft(
            padded,
            self.window_samples,
            self.hop_samples,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )

    def invert(self, spectrum: Tensor, samples: int) -> Tensor:
        """Waveform (b, samples) of a spectrum (b, bins, frames)."""
        whole = torch.istft(spectrum, self.window_samples, self.hop_samples, window=self.window)
        return whole[:, :samples]


class Hearing(nn.Module):
    """Energy in mel bands, compressed, of spectra (b, bins, frames): (b, HEARD_BANDS, frames).

    Finer detail, and phase, would be learnt of the voices that are known. For the same reason, where they are
    `disguised`, every scene is heard in training through another microphone, and some bands of it not at all.
    """

    bank: Tensor

    def __init__(self, bins: int, sample_rate_hz: int, disguised: bool):
        super().__init__()
        self.disguised = disguised
        bank = torchaudio.functional.melscale_fbanks(bins, LEAST_HZ, sample_rate_hz / 2, HEARD_BANDS, sample_rate_hz)
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        power = spectrum.real.square() + spectrum.imag.square()
        with torch.autocast(spectrum.device.type, enabled=False):
            energy = self.bank.T @ power
            if not (self.disguised and self.training):
                return compressed(energy)
            masks = features.draw_spec_masks(len(energy), torch.default_generator, tilt=OTHER_MICROPHONE)
            heard = compressed(energy * features.equaliser(energy, masks).exp())
            return heard.masked_fill(features.hidden_bands(heard, masks), 0)


def compressed(energy: Tensor) -> Tensor:
    """Energy as the features have magnitudes: about zero, so that the faint counts beside the loud."""
    return energy.clamp(min=1e-6) ** (COMPRESSION / 2) - TYPICAL


class FrameConv(nn.Conv1d):
    """nn.Conv1d over frames (b, channels, frames) that keeps the channels of a frame beside one another in memory.

    So laid out, the products of many channels and few frames take two thirds of the time in bfloat16.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size == (1,):
            return nn.functional.linear(input.transpose(1, 2), self.weight.squeeze(2), self.bias).transpose(1, 2)
        if input.stride(1) != 1:
            input = input.transpose(1, 2).contiguous().transpose(1, 2)
        padding, dilation = (0, int(self.padding[0])), (1, self.dilation[0])
        weight = self.weight.unsqueeze(2)
        return nn.functional.conv2d(input.unsqueeze(2), weight, self.bias, 1, padding, dilation).squeeze(2)


class Block(nn.Module):
    """x + mix(relu(dilated convolution of x)); starts near the identity, so it needs no normalisation."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.convolve = FrameConv(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = FrameConv(channels, channels, 1)
        with torch.no_grad():
            self.mix.weight.mul_(0.3)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.mix(torch.relu(self.convolve(states)))  # (b, channels, frames)


class AskedBlock(Block):
    """A block whose hidden states are scaled and shifted by the query (b, labels, frames or 1) (FiLM)."""

    def __init__(self, channels: int, dilation: int, labels: int):
        super().__init__(channels, dilation)
        self.condition = nn.Linear(labels, 2 * channels)

    def forward(self, states: Tensor, query: Tensor) -> Tensor:
        told = self.condition(query.transpose(1, 2)).transpose(1, 2)  # (b, 2 channels, frames or 1)
        scale, shift = told.chunk(2, dim=1)
        return states + self.mix(torch.relu(self.convolve(states) * (1 + scale) + shift))  # (b, channels, frames)


def others_heard(query: Tensor, active: Tensor) -> Tensor:
    """In every frame the label that is heard most surely of those that the query (b, labels) does not ask for, as a
    query (b, labels, frames) of its own, by their logits `active` (b, labels, frames); zeros where none is heard."""
    sure = active.sigmoid() * (1 - query[:, :, None])
    return ((sure == sure.amax(1, keepdim=True)) & (sure > 0.5)).to(sure.dtype)


def shared_rest(spectrum: Tensor, answer: Tensor, others: Tensor, heard: Tensor) -> Tensor:
    """What an answer is to take of what it and that for other words leave of a spectrum, all (b, bins, frames).

    Half where others are `heard` (b, labels, frames); less, the more is left round about, for that is neither's.
    """
    rest = spectrum - answer - others
    power = torch.stack((answer.abs().square() + others.abs().square(), rest.abs().square()), dim=1)
    padding = (REST_REACH[0] // 2, REST_REACH[1] // 2)
    near = nn.functional.avg_pool2d(power, REST_REACH, stride=1, padding=padding, count_include_pad=False)
    said, left = near.unbind(1)
    return 0.5 * heard.amax(1, keepdim=True) * (said / (said + 2 * left + 1e-9)).square() * rest


def asked_for(query: Tensor, logits: Tensor) -> Tensor:
    """Mean (b, frames) of logits (b, labels, frames) over the query (b, labels, frames or 1); what it leaves open
    counts as no."""
    return (query * logits).sum(1) + UNASKED_LOGIT * (1 - query.sum(1))


def places_asked_for(query: Tensor, word_places: Tensor) -> Tensor:
    """Places (b, 4, frames) for the query (b, labels): logits as `asked_for`, and the mean distances to the edges."""
    centres, *edges, active = word_places.unbind(2)  # (b, labels, frames) each
    weights = query / query.sum(1, keepdim=True).clamp(min=1e-6)
    edges = [torch.einsum("bl,blf->bf", weights, edge) for edge in edges]
    query = query[:, :, None]
    return torch.stack((asked_for(query, centres), *edges, asked_for(query, active)), dim=1)


def probable(places: Tensor) -> Tensor:
    """Places (…, 4, frames) with probabilities instead of logits."""
    centres, *edges, active = places.unbind(-2)
    return torch.stack((centres.sigmoid(), *edges, active.sigmoid()), dim=-2)


def recording_gain(mixture: Tensor, window_samples: int) -> Tensor:
    """Gain (b,) that brings the loudest window of a mixture (b, samples) to root mean square 0.1.

    Zeros before or after do not change it beyond how the windows fall; silence gets a finite gain.
    """
    whole = nn.functional.pad(mixture, (0, -mixture.shape[1] % window_samples))
    power = nn.functional.avg_pool1d(whole.square()[:, None], window_samples)
    return 0.1 / power.amax((1, 2)).sqrt().clamp(min=1e-5)


def soft_maximum(scores: Tensor) -> Tensor:
    """Soft maximum (…) of frame scores (…, frames); that of two pieces' soft maxima is that of the whole."""
    return torch.logsumexp(spotting.SHARPNESS * scores, dim=-1) / spotting.SHARPNESS


def shared_labels(image_classes: Sequence[str], speech_classes: Sequence[str]) -> tuple[str, ...]:
    """Labels that can be both pictured and heard, sorted."""
    return tuple(sorted(set(image_classes) & set(speech_classes)))


def query_of(posteriors: Tensor, image_classes: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Query (b, labels) from an image classifier's posteriors (b, image classes + 1).

    What the picture gives to unshared labels and to "nothing known" is left out, so a query may sum to less than 1.
    """
    columns = torch.tensor([list(image_classes).index(label) for label in labels], device=posteriors.device)
    return posteriors[:, columns]


def load_extractor(folder: Path, device: str = "cpu") -> tuple[Extractor, dict]:
    """A trained extractor in evaluation mode and its card; errors as `models.load_model`."""
    model, card = models.load_model(folder, device, {"speech_extractor": Extractor})
    assert isinstance(model, Extractor)
    return model, card
