"""What the models see: pictures in [0, 1] of one polarity, log-mel spectrograms, and the augmentation of both.

Every augmentation is two functions: one draws its parameters from an explicit generator (always on the CPU, so that
a seed means the same on every device), one applies them on whatever device the batch lies on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

N_MELS = 40
MEL_CHUNK_CLIPS = 32  # mel spectrograms of larger batches are several times slower on a processor
SHUFFLE_GRID = 4
WARP_KNEE = 0.85


def to_pictures(pixels: Tensor) -> Tensor:
    """Pictures as every image model takes them.

    pixels: uint8 (b, h, w, c). Returns float32 (b, c, h, w) in [0, 1]; grey ones are dark around the edge.
    """
    pictures = pixels.permute(0, 3, 1, 2).float() / 255
    return normalise_polarity(pictures)


def normalise_polarity(pictures: Tensor) -> Tensor:
    """Inverts the grey pictures whose border is bright, so that dark ink on paper looks like light ink on black.

    pictures: (b, c, h, w) in [0, 1]; colour pictures are returned unchanged, since there inversion changes the thing.
    """
    if pictures.shape[1] != 1:
        return pictures
    edges = (pictures[:, 0, 0], pictures[:, 0, -1], pictures[:, 0, :, 0], pictures[:, 0, :, -1])
    bright = torch.cat(edges, dim=1).median(dim=1).values > 0.5  # (b,)
    return torch.where(bright[:, None, None, None], 1 - pictures, pictures)


@dataclass(frozen=True)
class AffineRange:
    """How far pictures are moved: angles in degrees, scale as a ratio, shift as a share of the side."""

    rotation_degrees: float = 8.0
    shear_degrees: float = 4.0
    scale: float = 0.08
    shift: float = 0.05


def draw_affine(n: int, span: AffineRange, generator: torch.Generator) -> Tensor:
    """Random affine maps (n, 2, 3) of output to input coordinates, uniform in the given ranges."""
    u = torch.rand(n, 6, generator=generator) * 2 - 1
    angle, shear = torch.deg2rad(u[:, 0] * span.rotation_degrees), torch.deg2rad(u[:, 1] * span.shear_degrees)
    scale_x, scale_y = 1 + u[:, 2] * span.scale, 1 + u[:, 3] * span.scale
    rows = torch.stack((angle.cos() * scale_x, (-angle.sin() + shear.tan()) * scale_y), dim=1)
    rows = torch.stack((rows, torch.stack((angle.sin() * scale_x, angle.cos() * scale_y), dim=1)), dim=1)
    return torch.cat((rows, 2 * span.shift * u[:, 4:, None]), dim=2)  # 2: grid coordinates run from -1 to 1


def apply_affine(pictures: Tensor, maps: Tensor) -> Tensor:
    """Pictures (b, c, h, w) moved by maps (b, 2, 3); what comes in from outside repeats the border."""
    grid = F.affine_grid(maps.to(pictures.device), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def shuffle_patches(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (b, c, h, w) whose 4 x 4 patches stand in random order: the same ink, no longer the same thing.

    Where a side is no multiple of 4, what is left over at its end stays.
    """
    b, c, h, w = pictures.shape
    grid_h, grid_w = min(SHUFFLE_GRID, h), min(SHUFFLE_GRID, w)
    patch_h, patch_w = h // grid_h, w // grid_w
    inner = pictures[:, :, : grid_h * patch_h, : grid_w * patch_w]
    patches = inner.reshape(b, c, grid_h, patch_h, grid_w, patch_w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(b, grid_h * grid_w, generator=generator).argsort(dim=1).to(pictures.device)
    patches = patches.gather(1, order[:, :, None, None, None].expand_as(patches))
    inner = patches.unflatten(1, (grid_h, grid_w)).permute(0, 3, 1, 4, 2, 5).reshape(inner.shape)
    shuffled = pictures.clone()
    shuffled[:, :, : grid_h * patch_h, : grid_w * patch_w] = inner
    return shuffled


class LogMel(nn.Module):
    """Log-mel spectrogram of clips at any level: 32 ms windows every 10 ms, one mean and deviation per clip removed.

    The level is taken out twice over (root mean square before, mean after the logarithm), so gain augmentation has
    nothing to add. Padding at the end changes nothing: frames beyond a clip's own are zero.
    """

    bank: Tensor
    window: Tensor

    def __init__(self, sample_rate_hz: int, n_mels: int = N_MELS):
        super().__init__()
        self.hop_samples = round(0.010 * sample_rate_hz)
        self.window_samples = 2 * round(0.016 * sample_rate_hz)
        bins = self.window_samples // 2 + 1
        bank = torchaudio.functional.melscale_fbanks(bins, 50.0, sample_rate_hz / 2, n_mels, sample_rate_hz)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(self.window_samples), persistent=False)

    def frames(self, lengths: Tensor) -> Tensor:
        """Frames of clips of so many samples."""
        return lengths // self.hop_samples + 1

    @torch.no_grad()
    def forward(
        self, waveforms: Tensor, lengths: Tensor | None = None, warp: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """waveforms (b, samples), lengths (b,) samples -> log-mel (b, n_mels, frames), frames (b,).

        warp (b,): every clip's frequencies are heard so many times as high, as from a shorter vocal tract.
        """
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        banks = self.bank.expand(len(waveforms), -1, -1) if warp is None else warp_bank(self.bank, warp)
        with torch.autocast(waveforms.device.type, enabled=False):
            parts = zip(*(x.split(MEL_CHUNK_CLIPS) for x in (waveforms, lengths, banks)), strict=True)
            return torch.cat([self._of(*part) for part in parts]), self.frames(lengths)

    def _of(self, waveforms: Tensor, lengths: Tensor, banks: Tensor) -> Tensor:
        waveforms = waveforms * valid_mask(lengths, waveforms.shape[1])
        power = waveforms.square().sum(1, keepdim=True) / lengths[:, None].clamp(min=1)
        waveforms = waveforms / power.sqrt().clamp(min=1e-6)  # (b, samples)
        spectrum = torch.stft(
            waveforms,
            self.window_samples,
            self.hop_samples,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )  # (b, bins, frames)
        mel = banks.transpose(1, 2) @ (spectrum.real.square() + spectrum.imag.square())  # (b, n_mels, frames)
        return standardise((mel + 1e-3 * self.window_samples).log(), self.frames(lengths))


def warp_bank(bank: Tensor, warp: Tensor) -> Tensor:
    """Mel filters (b, bins, n_mels) that read a spectrum as if its frequencies were `warp` (b,) times as high.

    The warp is linear up to WARP_KNEE of the range, then bends so that the highest frequency stays where it is
    (vocal tract length perturbation, Jaitly and Hinton 2013, section 2). bank: (bins, n_mels).
    """
    last = len(bank) - 1
    place = torch.arange(len(bank), device=bank.device, dtype=bank.dtype)  # (bins,)
    warp = warp.to(bank.device, bank.dtype)[:, None]  # (b, 1)
    knee = WARP_KNEE * last * warp.clamp(max=1) / warp
    beyond = last - (last - warp * knee) * (last - place) / (last - knee)
    moved = torch.where(place <= knee, warp * place, beyond).clamp(0, last)  # (b, bins)
    below = moved.floor().long().clamp(max=last - 1)
    share = (moved - below)[:, :, None]
    return bank[below] * (1 - share) + bank[below + 1] * share


def standardise(log_mel: Tensor, frames: Tensor) -> Tensor:
    """log_mel (b, n_mels, time) of zero mean and unit deviation over each clip's own frames (b,); zero beyond them."""
    valid = valid_mask(frames, log_mel.shape[2])[:, None]
    count = (frames * log_mel.shape[1])[:, None, None]
    mean = (log_mel * valid).sum((1, 2), keepdim=True) / count
    centred = (log_mel - mean) * valid
    return centred / (centred.square().sum((1, 2), keepdim=True) / count).sqrt().clamp(min=1e-3)


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """True at the first `lengths` (b,) of `size` places: (b, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True)
class SpecMasks:
    """Drawn parameters of `apply_spec_masks`: all (b, masks) in shares of the axis, tilt (b, 3) in deviations."""

    mel_start: Tensor
    mel_width: Tensor
    time_start: Tensor
    time_width: Tensor
    tilt: Tensor

    def of(self, clips: Tensor) -> SpecMasks:
        """Those of some of the clips (n,)."""
        return SpecMasks(*(getattr(self, field.name)[clips] for field in fields(self)))


def draw_spec_masks(n: int, generator: torch.Generator, masks: int = 2, tilt: float = 0.2) -> SpecMasks:
    """SpecAugment (arXiv 1904.08779, section 2) without warping, plus a smooth random equaliser over the mel bands.

    tilt: deviation of the equaliser's widest wave; the finer ones have 0.6 and 0.4 of it.
    """
    start, width = torch.rand(2, n, masks, generator=generator), torch.rand(2, n, masks, generator=generator)
    waves = torch.randn(n, 3, generator=generator) * tilt * torch.tensor((1.0, 0.6, 0.4))
    return SpecMasks(start[0], 0.15 * width[0], start[1], 0.12 * width[1], waves)


def apply_spec_masks(log_mel: Tensor, frames: Tensor, drawn: SpecMasks) -> Tensor:
    """log_mel (b, n_mels, time) with bands and stretches of time set to its mean, 0, and its bands tilted."""
    time_axis = torch.arange(log_mel.shape[2], device=log_mel.device) / frames[:, None]  # (b, time)
    valid = valid_mask(frames, log_mel.shape[2])[:, None]
    tilted = log_mel + equaliser(log_mel, drawn) * valid
    time_hidden = _inside(time_axis, drawn.time_start, drawn.time_width)  # (b, time)
    return tilted.masked_fill(hidden_bands(log_mel, drawn) | time_hidden[:, None], 0)


def equaliser(mel: Tensor, drawn: SpecMasks) -> Tensor:
    """What the drawn tilt adds to the logarithm of mel (b, n_mels, time): (b, n_mels, 1)."""
    waves = torch.stack([torch.cos(torch.pi * k * _mel_axis(mel)) for k in (1, 2, 3)])  # (3, n_mels)
    return (drawn.tilt.to(mel.device) @ waves)[:, :, None]


def hidden_bands(mel: Tensor, drawn: SpecMasks) -> Tensor:
    """Which bands of mel (b, n_mels, time) the drawn masks hide: (b, n_mels, 1) bool."""
    return _inside(_mel_axis(mel).expand(len(mel), -1), drawn.mel_start, drawn.mel_width)[:, :, None]


def _mel_axis(mel: Tensor) -> Tensor:
    return torch.linspace(0, 1, mel.shape[1], device=mel.device)


def _inside(axis: Tensor, start: Tensor, width: Tensor) -> Tensor:
    start, width = start.to(axis.device)[:, :, None], width.to(axis.device)[:, :, None]  # (b, masks, 1)
    return ((axis[:, None] >= start) & (axis[:, None] < start + width)).any(1)
