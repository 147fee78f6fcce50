"""Composing scenes, mixtures of spoken words and noise: seeded ones for evaluation, streams of them for training.

Both halves first draw plain parameters, then apply them. Levels are root mean squares over the active samples of a
clip, which run from its first to its last sample above -40 dB of its peak.
"""

from __future__ import annotations

from ml.scenes.levels import active_level, active_range, scene_samples
from ml.scenes.mixing import (
    ClipBank,
    SceneBatch,
    TrainingScenes,
    clip_bank,
    confusable_labels,
    draw_training_scenes,
    mix,
    noise_bank,
    noise_of,
    speeds_within,
)
from ml.scenes.planned import (
    CONFUSABLE,
    OVERLAPS,
    ScenePlan,
    Scenes,
    draw_scenes,
    headline_scenes,
    render,
    scenes_digest,
)

__all__ = [
    "CONFUSABLE",
    "OVERLAPS",
    "ClipBank",
    "SceneBatch",
    "ScenePlan",
    "Scenes",
    "TrainingScenes",
    "active_level",
    "active_range",
    "clip_bank",
    "confusable_labels",
    "draw_scenes",
    "draw_training_scenes",
    "headline_scenes",
    "mix",
    "noise_bank",
    "noise_of",
    "render",
    "scene_samples",
    "scenes_digest",
    "speeds_within",
]
