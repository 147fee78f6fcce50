"""What masks that know the answer would reach, and what methods that ignore the picture reach."""

from __future__ import annotations

import numpy as np
import torch

N_FFT, HOP = 256, 128
COMPLEX_LIMIT = 2.0
GATE_DB = 20.0  # frames further than this below the loudest are shut


def stft(waveform: np.ndarray) -> torch.Tensor:
    """Spectrum (b, 129, frames) of (b, samples): square-root Hann window of 256 samples, hop 128."""
    return torch.stft(torch.from_numpy(waveform), N_FFT, HOP, window=_window(), return_complex=True)


def istft(spectrum: torch.Tensor, length: int) -> np.ndarray:
    """Waveforms (b, length) of spectra as stft gives them."""
    return torch.istft(spectrum, N_FFT, HOP, window=_window(), length=length).numpy()


def _window() -> torch.Tensor:
    return torch.hann_window(N_FFT).sqrt()


def oracle_estimates(mixture: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Estimates (b, samples) by the ideal ratio, phase-sensitive (0…1) and complex (at most 2) mask.

    Source: Wang & Chen 2018 (arXiv 1708.07524), section III; Williamson et al. 2016 for the complex mask.
    """
    mixed, wanted = stft(mixture), stft(target)
    rest = mixed - wanted
    quotient = wanted / torch.where(mixed.abs() > 1e-8, mixed, torch.full_like(mixed, 1e-8))
    masks = {
        "irm": torch.sqrt(wanted.abs() ** 2 / (wanted.abs() ** 2 + rest.abs() ** 2 + 1e-16)),
        "psm": quotient.real.clamp(0.0, 1.0),
        "complex": quotient * (COMPLEX_LIMIT / quotient.abs().clamp(min=COMPLEX_LIMIT)),
    }
    return {name: istft(mixed * mask, mixture.shape[-1]) for name, mask in masks.items()}


def blind_estimates(mixture: np.ndarray) -> dict[str, np.ndarray]:
    """Estimates (b, samples) by methods that neither see the picture nor learn."""
    spectrum = stft(mixture)
    power = spectrum.abs().square().sum(dim=1, keepdim=True)  # (b, 1, frames)
    loud = power >= power.amax(dim=-1, keepdim=True) * 10 ** (-GATE_DB / 10)
    return {
        "unprocessed": mixture,
        "constant_mask": istft(spectrum * 0.5, mixture.shape[-1]),
        "energy_gate": istft(spectrum * loud, mixture.shape[-1]),
    }
