"""The features of the prediction log that are tested, and the samples of them that may be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

NOTHING_KNOWN = "(nothing known)"
# A row has a side when one of these is filled: a request to recognise speech has no picture.
SIGNS = {"picture": ("image_embedding", "image_brightness"), "recording": ("speech_embedding", "audio_loudness_db")}


@dataclass(frozen=True)
class Feature:
    """One column under test; `lower` and `higher` say in words what a shift of it means."""

    column: str
    side: str  # "picture" | "recording"
    kind: str  # "fact" | "labels" | "embedding" | "confidence"
    lower: str = ""
    higher: str = ""
    unit: str = ""

    @property
    def of_model(self) -> bool:
        """Whether another model would have logged another value for the same input."""
        return self.kind != "fact"

    @property
    def of_input(self) -> bool:
        """Whether it depends on its own side alone; what is heard depends on the endpoint and the picture too."""
        return self.side == "picture" or self.kind in ("fact", "embedding")


FEATURES = (
    Feature("image_brightness", "picture", "fact", "pictures are darker", "pictures are brighter"),
    Feature(
        "image_bright_share",
        "picture",
        "fact",
        "pictures are darker: less is white",
        "pictures are brighter: more is white",
    ),
    Feature("image_contrast", "picture", "fact", "pictures have less contrast", "pictures have more contrast"),
    Feature("image_blur", "picture", "fact", "pictures are sharper", "pictures are more blurred"),
    Feature("audio_loudness_db", "recording", "fact", "recordings are quieter", "recordings are louder", " dB"),
    Feature("audio_snr_db", "recording", "fact", "recordings are noisier", "recordings are cleaner", " dB"),
    Feature("audio_bandwidth_hz", "recording", "fact", "a narrower band arrives", "a wider band arrives", " Hz"),
    Feature("audio_clipping", "recording", "fact", "recordings clip less", "recordings clip more"),
    Feature("audio_duration_s", "recording", "fact", "recordings are shorter", "recordings are longer", " s"),
    Feature("pictured", "picture", "labels"),
    Feature("heard", "recording", "labels"),
    Feature("image_embedding", "picture", "embedding"),
    Feature("speech_embedding", "recording", "embedding"),
    Feature("pictured_confidence", "picture", "confidence", "pictures are less certain", "pictures are more certain"),
    Feature("heard_confidence", "recording", "confidence", "words are less certain", "words are more certain"),
    Feature("presence", "recording", "confidence", "pictured words are rarer", "pictured words are more frequent"),
)


@dataclass(frozen=True)
class Sample:
    """One feature on both sides: (n,) and (m,) numbers or labels, or (n, d) and (m, d) embeddings.

    rows: positions of the window's values in the frame they were taken from, (m,).
    """

    before: np.ndarray
    after: np.ndarray
    rows: np.ndarray


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose input was measured, a fair sample where the service had no time for all; all, where none was."""
    facts = [one.column for one in FEATURES if one.kind == "fact" and one.column in frame]
    rows = frame[facts].notna().to_numpy().any(axis=1)
    return frame.loc[rows] if rows.any() else frame


def values(frame: pd.DataFrame, feature: Feature) -> tuple[np.ndarray, np.ndarray]:
    """Values of one feature, (n,) numbers or labels or (n, d) embeddings, and their index; rows without are left out.

    Embeddings as wide as the most common one; those with a number that is not finite count as missing.
    """
    match feature.kind:
        case "labels":
            named = labels(frame, feature)
            return named.to_numpy(dtype=str), named.index.to_numpy()
        case "embedding":
            rows = frame[feature.column].dropna()
            widths = rows.map(len)
            rows = rows.loc[widths == widths.mode()[0]] if len(rows) else rows
            vectors = np.array(list(rows), dtype=np.float64).reshape(len(rows), -1 if len(rows) else 0)
            whole = np.isfinite(vectors).all(axis=1)
            return vectors[whole], rows.index.to_numpy()[whole]
        case _:
            numbers = frame[feature.column].dropna()
            return numbers.to_numpy(dtype=np.float64), numbers.index.to_numpy()


def distinct(frame: pd.DataFrame, feature: Feature) -> pd.DataFrame:
    """One row of every input that has the feature's side; of every question, where the endpoint and both inputs count.

    The same picture and recording come at several endpoints and again; counted twice, they would pass for twice the
    evidence and raise false alarms. An input is known by its facts, which are measured to four digits.
    """
    sides = (feature.side,) if feature.of_input else tuple(SIGNS)
    facts = [one.column for one in FEATURES if one.kind == "fact" and one.side in sides]
    filled = frame.loc[frame[feature.column].notna()] if feature.kind != "labels" else frame
    again = filled.duplicated(facts if feature.of_input else ["endpoint", *facts])
    return filled.loc[~(again & filled[facts].notna().any(axis=1))]


def like_endpoints(
    reference: pd.DataFrame, window: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of endpoints that both sides have, in the window's mix; all, where the reference names no endpoint."""
    known, asked = (pd.Series(frame["endpoint"]) for frame in (reference, window))
    return matched(reference, window, known, asked, rng) if known.count() else (reference, window)


def labels(frame: pd.DataFrame, feature: Feature) -> pd.Series:
    """Labels of the rows that have the feature's side, indexed as `frame` is; none given counts as NOTHING_KNOWN."""
    rows = frame[list(SIGNS[feature.side])].notna().any(axis=1)
    return frame.loc[rows, feature.column].fillna(NOTHING_KNOWN).astype(str)


def from_known_models(window: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Rows of the window that one of the reference's models answered; all, where the reference names no model."""
    models = reference["model"].dropna().unique().tolist()
    return window.loc[window["model"].isin(models)] if models else window


def matched(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    reference_keys: pd.Series,
    window_keys: pd.Series,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows whose key both sides have, the reference thinned at random until its mix of keys is the window's.

    Thinned, not weighted or repeated, so that its rows stay an independent sample. Keys are indexed as their frames.
    """
    shared = sorted(set(reference_keys.dropna()) & set(window_keys.dropna()))
    window_keys = window_keys.loc[window_keys.isin(shared)]
    if not shared:
        return reference.iloc[:0], window.iloc[:0]
    mix = window_keys.value_counts(normalize=True)
    rows = (reference_keys.value_counts()[shared] / mix[shared]).min()
    picks = [
        rng.choice(reference_keys.index[reference_keys == key], int(rows * mix[key] + 1e-9), replace=False)
        for key in shared
    ]
    return reference.loc[np.sort(np.concatenate(picks))], window.loc[window_keys.index]
