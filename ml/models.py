"""The classifiers, and how a trained model is kept: safetensors weights beside a JSON card, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ml.config import UserError
from ml.detection import ObjectFinder
from ml.features import valid_mask
from ml.files import whole_folder

WEIGHTS = "weights.safetensors"
CARD = "model.json"
DROPOUT = 0.2  # of the states and features of the recurrent nets, in training
GRID = 4  # places a side at which the picture classifier looks last
LOOKS = (0, -2, 2)  # mel bands that a trained recogniser moves a sound by, which is nearly what another throat does


class ImageCNN(nn.Module):
    """Small convolutional net; its last output stands for "nothing known".

    Halves the picture until it is about 7 pixels wide, so 8 x 8, 28 x 28 and 64 x 64 all suit it. With
    detector_channels it has a part that finds the objects of a larger picture, each of which the rest then names.
    """

    def __init__(self, classes: int, side: int, channels_in: int, channels: int, detector_channels: int = 0):
        super().__init__()
        halvings = max(1, round(math.log2(side / 7)))
        widths = [channels * 2 ** min(i, 2) for i in range(halvings + 1)]
        stages: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([channels_in, *widths[:-2]], widths[:-1], strict=True)):
            stride = 2 if i == 0 and halvings > 2 else 1  # whole large pictures are too dear to convolve
            convolve, *normalise = _conv_2d(before, after, stride)
            stages += [convolve, nn.MaxPool2d(2 // stride, ceil_mode=True), *normalise]  # pooled first: a quarter to do
        last = widths[-1]
        stages += [*_conv_2d(widths[-2], last), *_conv_2d(last, last), nn.AdaptiveMaxPool2d(GRID)]
        self.body = nn.Sequential(*stages, nn.Flatten())
        self.narrow = nn.Sequential(
            nn.Linear(GRID**2 * last, 2 * last, bias=False), nn.BatchNorm1d(2 * last), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(2 * last, classes + 1)
        self.detector = ObjectFinder(channels_in, detector_channels) if detector_channels else None
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def embed(self, pictures: Tensor) -> Tensor:
        """Penultimate features (b, d) of pictures (b, c, h, w) in [0, 1]."""
        centred = (pictures - 0.2).contiguous(memory_format=torch.channels_last)
        return self.narrow(self.body(centred))  # (b, d)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (b, classes + 1) of pictures (b, c, h, w) in [0, 1]."""
        return self.head(self.embed(pictures))


def _conv_2d(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    convolve = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return [convolve, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class SpeechNet(nn.Module):
    """What the three nets that recognise a word share.

    Once trained, they judge by the mean of what they see of a sound as it is, higher and lower (LOOKS). The errors
    differ most where the voice or the noise is strange: after 1,200 steps without jackson and yweweler the CNN
    recognises 96.8 and 97.0 % of their words, not 94.2 and 96.0 %, and in noise of 0 dB 79.2 and 89.4 %, not 73.6 and
    86.8 %.
    """

    head: nn.Module

    def see(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """Features (b, d) of log_mel (b, n_mels, time), of which each clip's first `frames` (b,) are its own."""
        raise NotImplementedError

    def looks(self, log_mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """Features (looks, b, d), of the sound as it is first, and while it learns of that alone; without `frames` all
        of time is a clip's own. `head` reads logits from their mean."""
        frames = _all_frames(log_mel) if frames is None else frames
        moves = LOOKS[:1] if self.training else LOOKS
        moved = torch.cat([moved_bands(log_mel, bands) for bands in moves])
        return self.see(moved, frames.repeat(len(moves))).unflatten(0, (len(moves), -1))

    def forward(self, log_mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """Logits (b, classes) of log_mel (b, n_mels, time) with frames (b,) of their own."""
        return self.head(self.looks(log_mel, frames).mean(0))


class SpeechCNN(SpeechNet):
    """Convolutions over mel bands and time, then mean and maximum over each clip's own frames.

    The first one halves both axes by its stride, the next by pooling: whole spectrograms are too dear to convolve.
    """

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__()
        narrow, half = max(channels // 4, 4), max(channels // 2, 4)
        self.body = nn.ModuleList(
            [
                nn.Sequential(*_conv_2d(1, narrow, stride=2)),
                nn.Sequential(*_conv_2d(narrow, half), nn.MaxPool2d((2, 2), ceil_mode=True)),
                nn.Sequential(*_conv_2d(half, channels), nn.MaxPool2d((2, 1), ceil_mode=True)),
                nn.Sequential(*_conv_2d(channels, channels)),
            ]
        )
        self.strides, self.pools = (2, 1, 1, 1), (1, 2, 1, 1)  # over time, by stage
        self.head = nn.Linear(2 * channels * math.ceil(n_mels / 8), classes)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def see(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        maps = log_mel[:, None].contiguous(memory_format=torch.channels_last)  # (b, 1, n_mels, time)
        for stage, stride, halving in zip(self.body, self.strides, self.pools, strict=True):
            convolve, pool = cast(nn.Sequential, stage)[:3], cast(nn.Sequential, stage)[3:]
            maps, frames = convolve(maps), (frames + stride - 1) // stride
            maps = maps * valid_mask(frames, maps.shape[3])[:, None, None]  # a pool may reach past the end
            maps, frames = pool(maps), (frames + halving - 1) // halving  # (b, channels, bands, time')
        return pool_frames(maps.flatten(1, 2), frames)


class SpeechRecurrent(SpeechNet):
    """Bidirectional recurrent layers over pairs of frames, each added to those below it; mean and maximum over time.

    The backward direction reads each clip reversed within its own length, so padding never enters a state.
    """

    stack_frames = 2

    def __init__(self, cell: type[nn.RNN] | type[nn.LSTM], classes: int, n_mels: int, channels: int, layers: int):
        super().__init__()
        width = n_mels * self.stack_frames
        sizes = [width, *[2 * channels] * (layers - 1)]
        self.ahead = nn.ModuleList(cell(size, channels, batch_first=True) for size in sizes)
        self.back = nn.ModuleList(cell(size, channels, batch_first=True) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * channels) for _ in sizes)
        self.drop = nn.Dropout(DROPOUT)
        self.head = nn.Linear(4 * channels, classes)
        for name, weight in self.named_parameters():
            if "weight_hh" in name:
                for gate in weight.data.split(channels):
                    nn.init.orthogonal_(gate, gain=0.9)

    def see(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        states = stack_frames(log_mel, self.stack_frames)  # (b, time', width)
        frames = (frames + self.stack_frames - 1) // self.stack_frames
        order, heard = reversal(frames, states.shape[1]), torch.zeros((), device=states.device)
        for ahead, back, norm in zip(self.ahead, self.back, self.norms, strict=True):
            forwards, _ = ahead(states)
            backwards, _ = back(reorder(states, order))
            states = norm(torch.cat((forwards, reorder(backwards, order)), dim=2))  # (b, time', 2 channels)
            heard, states = heard + states, self.drop(states)
        return self.drop(pool_frames(heard.transpose(1, 2), frames))


class SpeechRNN(SpeechRecurrent):
    """Vanilla tanh recurrent net with orthogonal recurrence and layer normalisation between its layers."""

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__(nn.RNN, classes, n_mels, channels, layers=2)


class SpeechLSTM(SpeechRecurrent):
    """Bidirectional LSTM."""

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__(nn.LSTM, classes, n_mels, channels, layers=1)


SPEECH_MODELS: dict[str, type[nn.Module]] = {"cnn": SpeechCNN, "rnn": SpeechRNN, "lstm": SpeechLSTM}
CLASSIFIERS: dict[str, type[nn.Module]] = {
    "image_cnn": ImageCNN,
    **{f"speech_{k}": m for k, m in SPEECH_MODELS.items()},
}


def moved_bands(log_mel: Tensor, bands: int) -> Tensor:
    """log_mel (b, n_mels, time) so many bands lower; above 0 its highest band stays, below 0 its lowest, as often."""
    place = torch.arange(log_mel.shape[1], device=log_mel.device) + bands
    return log_mel[:, place.clamp(0, log_mel.shape[1] - 1)]


def stack_frames(log_mel: Tensor, count: int) -> Tensor:
    """log_mel (b, n_mels, time) as (b, ceil(time / count), count * n_mels), neighbouring frames side by side."""
    padded = nn.functional.pad(log_mel, (0, -log_mel.shape[2] % count))
    return padded.transpose(1, 2).reshape(len(log_mel), -1, count * log_mel.shape[1])


def reversal(frames: Tensor, size: int) -> Tensor:
    """Order (b, size) that reverses each row's first `frames` (b,) places and leaves the rest."""
    place = torch.arange(size, device=frames.device).expand(len(frames), -1)
    return torch.where(place < frames[:, None], frames[:, None] - 1 - place, place)


def reorder(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order[:, :, None].expand_as(states))


def pool_frames(states: Tensor, frames: Tensor) -> Tensor:
    """Mean and maximum (b, 2 d) of states (b, d, time) over each row's first `frames` (b,)."""
    valid = valid_mask(frames, states.shape[2])[:, None]
    mean = (states * valid).sum(2) / frames[:, None].clamp(min=1)
    return torch.cat((mean, states.masked_fill(~valid, -torch.inf).amax(2)), dim=1)


def _all_frames(log_mel: Tensor) -> Tensor:
    return torch.full((len(log_mel),), log_mel.shape[2], device=log_mel.device)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def save_model(folder: Path, model: nn.Module, card: dict) -> dict:
    """Writes weights and card beside `folder` and renames them into it, so a reader sees the old model or the new.

    card: everything model.json says but the digests, which are added here. Returns the card as written.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights = save(state)
    card = {**card, "digests": {WEIGHTS: hashlib.sha256(weights).hexdigest()}}
    with whole_folder(folder) as new:
        (new / WEIGHTS).write_bytes(weights)
        (new / CARD).write_text(json.dumps(card, indent=1, allow_nan=False) + "\n")
    return card


def read_card(folder: Path) -> dict:
    """The JSON card of a model folder; UserError where there is none."""
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
    except (OSError, ValueError) as fault:  # ValueError: no JSON, or no text at all
        raise UserError(f"{folder / CARD}: expected the card of a trained model, got {fault}") from None
    if missing := [key for key in ("kind", "arguments", "digests") if not isinstance(card, dict) or key not in card]:
        raise UserError(f"{folder / CARD}: expected the card of a trained model, found no {', '.join(missing)}")
    return card


def load_model(
    folder: Path, device: str = "cpu", kinds: Mapping[str, type[nn.Module]] = CLASSIFIERS
) -> tuple[nn.Module, dict]:
    """A trained model in evaluation mode, and its card.

    kinds: what may lie in the folder, by the card's `kind`; extraction.load_extractor adds the extractor.
    Raises UserError where the folder is incomplete, of another kind, or its weights do not match their digest.
    """
    from safetensors.torch import load

    card = read_card(folder)
    if card.get("kind") not in kinds:
        raise UserError(f"{folder / CARD}: kind {card.get('kind')!r}: expected one of {', '.join(kinds)}")
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as fault:
        raise UserError(f"{folder / WEIGHTS}: expected the weights of a trained model, got {fault}") from None
    if (found := hashlib.sha256(weights).hexdigest()) != card["digests"][WEIGHTS]:
        raise UserError(
            f"{folder / WEIGHTS}: sha256 {found}: expected {card['digests'][WEIGHTS]}; train the model again"
        )
    try:
        model = kinds[card["kind"]](**card["arguments"])
        model.load_state_dict(load(weights))
    except (RuntimeError, TypeError) as fault:
        why = str(fault).splitlines()[0]
        raise UserError(f"{folder / CARD}: made by other code than this ({why}); train the model again") from None
    return model.to(device).eval(), card
