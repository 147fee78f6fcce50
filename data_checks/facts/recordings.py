"""Facts of decoded recordings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SILENT_DB = -120.0  # written for the level of digital silence
QUIET_BELOW_LOUDEST_DB = 40.0  # a frame this far below the loudest one counts as silence
FLAT_TOP_SAMPLES = 3  # successive samples at the peak that make a clipped top
SPECTRUM_FRAMES = 1000  # spectral facts use at most this many frames, evenly spread
NOISE_QUANTILE = 0.1
LOWEST_SNR_DB, HIGHEST_SNR_DB = -10.0, 80.0
BAND_FRAMES_DB = 30.0  # frames this far below the loudest one do not tell where the band ends
BAND_BELOW_PEAK_DB = 52.0  # the band ends where every frame stays this far below its own peak
ABOVE_ROUNDING_DB = 20.0  # and this far above what rounding to 16 bits leaves in every frequency
ROUNDING_POWER = 1 / 12 / 32768**2
HEARD_FRAMES_DB = 20.0  # frames this far below the loudest one do not count for the flatness
TONAL_QUANTILE = 0.1
LOWEST_FLATNESS_DB = -100.0


def recording_facts(waveform: np.ndarray, rate_hz: int) -> dict:
    """Facts of one decoded recording.

    waveform: float (samples,), full scale 1; rate_hz: its sample rate.
    Returns duration_s, peak_db and loudness_db (dB below full scale; the loudness is the level of the frames that are
    not silent), clipping_share (samples in flat tops), silence_share (frames of 20 ms), dc_offset (mean), snr_db
    (against the stationary floor of every frequency, minimum statistics after Martin 2001, IEEE TSAP 9(5)),
    bandwidth_hz (the highest frequency at which any loud frame rises above rounding noise and above 52 dB below its
    own peak: half of it empty means the sound was once sampled at half the rate) and flatness_db (spectral flatness,
    geometric over arithmetic mean, of the most tonal tenth of the loud frames: white noise has -6, speech below -12).
    """
    wave = np.asarray(waveform, dtype=np.float64)
    peak = float(np.abs(wave).max(initial=0.0))
    loudness, silence = _loudness_and_silence(wave, max(rate_hz // 50, 1))
    power = _power_spectra(wave, rate_hz)  # (frames, frequencies)
    measured = {
        "duration_s": wave.size / rate_hz,
        "peak_db": max(20 * np.log10(peak), SILENT_DB) if peak else SILENT_DB,
        "clipping_share": _flat_tops(wave, peak),
        "silence_share": silence,
        "dc_offset": wave.mean() if wave.size else 0.0,
        "loudness_db": loudness,
        "snr_db": _snr_db(power),
        "bandwidth_hz": _band_end(power) * rate_hz / 2,
        "flatness_db": _flatness_db(power),
    }
    return {name: round(float(value), 4) for name, value in measured.items()}


def channel_facts(blocks: Iterable[np.ndarray]) -> dict:
    """How the channels of one recording agree, before they are mixed.

    blocks: float (samples, channels), channels at least 2, one behind the other.
    Returns channel_balance_db (level of the quietest channel below the loudest, at least SILENT_DB; 0 in silence) and
    channel_correlation (the lowest of any two channels: -1 = they cancel when mixed; 1 where one of them is silent).
    """
    products = sum(block.T @ block for block in blocks)
    power = np.diagonal(products)
    if power.max() <= 0:
        return {"channel_balance_db": 0.0, "channel_correlation": 1.0}
    balance = 10 * np.log10(max(power.min() / power.max(), 10 ** (SILENT_DB / 10)))
    scale = np.sqrt(np.outer(power, power))
    correlation = np.where(scale > 0, products / np.where(scale > 0, scale, 1), 1.0).min()
    return {"channel_balance_db": round(float(balance), 4), "channel_correlation": round(float(correlation), 4)}


def _flat_tops(wave: np.ndarray, peak: float) -> float:
    """Share of samples that stand in a run at the recording's own peak: what clipping leaves, also after a gain."""
    if peak < 1e-3:
        return 0.0
    loud = np.flatnonzero(np.abs(wave) >= 0.999 * peak)
    if loud.size < FLAT_TOP_SAMPLES:
        return 0.0
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1)
    return sum(len(run) for run in runs if len(run) >= FLAT_TOP_SAMPLES) / wave.size


def _loudness_and_silence(wave: np.ndarray, frame_samples: int) -> tuple[float, float]:
    """Level in dB of the frames that are not silent, and the share of those that are."""
    frame_samples = min(frame_samples, wave.size)
    if not frame_samples:
        return SILENT_DB, 1.0
    frames = wave[: wave.size // frame_samples * frame_samples].reshape(-1, frame_samples)
    power = np.einsum("fs,fs->f", frames, frames) / frame_samples
    active = power > max(power.max() * 10 ** (-QUIET_BELOW_LOUDEST_DB / 10), 10 ** (SILENT_DB / 10))
    if not active.any():
        return SILENT_DB, 1.0
    return float(10 * np.log10(power[active].mean())), float(1 - active.mean())


def _power_spectra(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Power of Hann-windowed frames of about 32 ms, half overlapping: (frames, frequencies), 0 at 0 Hz.

    Scaled so that white noise of power p has p in every frequency.
    """
    size = 1 << max(int(np.ceil(np.log2(0.032 * rate_hz))), 4)
    wave = np.pad(wave, (0, max(size - wave.size, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2]
    if len(frames) > SPECTRUM_FRAMES:
        frames = frames[np.arange(SPECTRUM_FRAMES) * len(frames) // SPECTRUM_FRAMES]
    window = np.hanning(size)
    spectra = np.fft.rfft(frames * window, axis=1)
    power = (spectra.real**2 + spectra.imag**2) / (window @ window)
    power[:, 0] = 0.0  # an offset is neither signal nor noise
    return power


def _snr_db(power: np.ndarray) -> float:
    """SNR over the quietest tenth of the frames at each frequency, of power spectra (frames, frequencies)."""
    mean = power.mean(0).sum()
    if mean <= 0:
        return 0.0
    at = int(NOISE_QUANTILE * (len(power) - 1))
    lowest = np.partition(power, at, axis=0)[at]
    noise = min(lowest.sum() / -np.log1p(-NOISE_QUANTILE), mean)  # a noise bin's power is exponential
    if noise <= 0:
        return HIGHEST_SNR_DB
    signal = max(mean - noise, noise * 10 ** (LOWEST_SNR_DB / 10))
    return min(float(10 * np.log10(signal / noise)), HIGHEST_SNR_DB)


def _loud(power: np.ndarray, below_db: float) -> np.ndarray:
    """The frames within `below_db` of the loudest one; none in silence."""
    frame = power.sum(1)
    return power[(frame > 0) & (frame >= frame.max() * 10 ** (-below_db / 10))]


def _band_end(power: np.ndarray) -> float:
    """Where the band ends, as a share of the highest frequency; 0 where nothing rises above rounding noise."""
    loud = _loud(power, BAND_FRAMES_DB)
    if not len(loud):
        return 0.0
    least = np.maximum(
        loud.max(1, keepdims=True) * 10 ** (-BAND_BELOW_PEAK_DB / 10), ROUNDING_POWER * 10 ** (ABOVE_ROUNDING_DB / 10)
    )
    filled = np.flatnonzero((loud >= least).any(0))
    return filled[-1] / (power.shape[1] - 1) if filled.size else 0.0


def _flatness_db(power: np.ndarray) -> float:
    loud = _loud(power, HEARD_FRAMES_DB)[:, 1:-1]
    if not len(loud):
        return LOWEST_FLATNESS_DB
    least = loud.max() * 10 ** (LOWEST_FLATNESS_DB / 10)
    flatness = 10 * (np.log10(np.maximum(loud, least)).mean(1) - np.log10(np.maximum(loud.mean(1), least)))
    return max(float(np.quantile(flatness, TONAL_QUANTILE)), LOWEST_FLATNESS_DB)
