"""Where words lie in a recording: what a head of the extractor is to say of it, its loss, and the spans that it means.

As `ml.detection` in one dimension: centres as peaks, and from each the way to both edges, so that a word said twice
over itself is found twice. Spans are (start, end), in frames where nothing else is said.

Places (…, 4, frames) of a label say of every frame that a word's centre is here, how far its start and its end are, and
that the label is being said; the first and the last as logits from the head, as probabilities where they are read. A
fifth row, where nothing was asked for, is the frame's score, by whose soft maximum the label is judged present.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST_FRAMES = 100.0  # from a centre to an edge; clips are learnt from up to 3 s
TYPICAL_FRAMES = 12.0
CENTRE_SHARE = 0.1  # deviation of the bell around a centre, of the word's length
SURROUNDING_IS_OWN = 0.3  # frames where the bell is as high know the word's edges as well
EDGE_WEIGHT = 0.5
FIRST_SCORE = 0.02  # of a frame that may be a centre, and of a span that may be a word
LEAST_IOU = 0.5  # of a span that was found with a true one
EDGE_ACTIVITY = 0.5  # a word starts and ends where its activity passes this
SHARPNESS = 4.0  # of the soft maximum
EDGE_REACH = 3.0  # frames within which that belongs to an edge; so edges err by 15.2 ms, not 17.5, in validation scenes
CONTEXT_FRAMES = int(LONGEST_FRAMES + EDGE_REACH) + 1  # to both sides of a centre, that its span depends on


def distances(raw: Tensor) -> Tensor:
    """Frames from a centre to an edge of its word, of a head's raw output of any shape."""
    return TYPICAL_FRAMES * raw.float().clamp(-5, math.log(LONGEST_FRAMES / TYPICAL_FRAMES)).exp()


def bells(spans: Tensor, there: Tensor, frames: int) -> Tensor:
    """How near every frame is to the centre of a word (b, words, frames): 1 at it, falling around it.

    spans: (b, words, 2), of which those of `there` (b, words) are said.
    """
    time = torch.arange(frames, device=spans.device)
    centre, length = spans.mean(2, keepdim=True), spans[..., 1:] - spans[..., :1]
    spread = (CENTRE_SHARE * length).clamp(0.7, 4.0)
    bell = (-0.5 * ((time - centre) / spread).square()).exp().clamp(max=0.99)
    return torch.where(time == centre.round(), 1.0, bell) * there[..., None]


def spotting_loss(places: Tensor, spans: Tensor, labels: Tensor) -> Tensor:
    """Loss of the centres and edges in places (b, labels, 4, frames).

    spans (b, words, 2) of the words said, labels (b, words) theirs, -1 where no word is. Penalty-reduced focal loss of
    the centres (arXiv 1904.07850, equation 1), and absolute error of the edges around them.
    """
    centres, edges, there, frames = places[:, :, 0], places[:, :, 1:3], labels >= 0, places.shape[-1]
    bell = bells(spans, there, frames)  # (b, words, frames)
    mine = labels[..., None] == torch.arange(centres.shape[1], device=labels.device)  # (b, words, labels)
    heat = (bell[:, :, None] * mine[..., None]).amax(1)  # (b, labels, frames)
    sure = centres.sigmoid()
    hit = -((1 - sure) ** 2) * F.logsigmoid(centres) * (heat == 1)
    miss = -(sure**2) * (1 - heat) ** 4 * F.logsigmoid(-centres)
    row, said = torch.arange(len(labels), device=labels.device)[:, None], labels.clamp(min=0)
    weight = bell * (bell >= SURROUNDING_IS_OWN) * (bell >= heat[row, said])  # of two words, the nearer one's frame
    time = torch.arange(frames, device=spans.device)
    wanted = torch.stack((time - spans[..., :1], spans[..., 1:] - time), dim=2)  # (b, words, 2, frames)
    apart = (edges[row, said] - wanted).abs() * weight[:, :, None]
    return (hit.sum() + miss.sum()) / there.sum().clamp(min=1) + EDGE_WEIGHT * apart.sum() / weight.sum().clamp(min=1)


def peaks(places: np.ndarray) -> np.ndarray:
    """Frames (n,) of places (4, frames) that may be centres: at least FIRST_SCORE sure, and no neighbour surer."""
    beyond = np.pad(places[0], 1, constant_values=-1.0)
    before, sure, after = beyond[:-2], beyond[1:-1], beyond[2:]
    return np.flatnonzero((sure > before) & (sure >= after) & (sure >= FIRST_SCORE))


def spans_at(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Spans (n, 2) of the words that have their centres at these frames (n,) of places (4, frames).

    Their edges lie halfway between what the centre says and where activity passes EDGE_ACTIVITY, if it does near there.
    """
    active = places[3].astype(np.float64)
    above = active >= EDGE_ACTIVITY
    at = np.flatnonzero(above[:-1] != above[1:])
    passes = at + (EDGE_ACTIVITY - active[at]) / (active[at + 1] - active[at])
    starts, ends = centres - places[1, centres], centres + places[2, centres]
    return np.stack((_drawn(starts, passes[~above[at]]), _drawn(ends, passes[above[at]])), axis=1)


def scores_at(places: np.ndarray, centres: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """How sure (n,) places (4 or 5, frames) are of spans (n, 2) about centres (n,).

    The centre's probability, times that of the label's presence by the scores within the span alone, if there are any.

    So a word in an hour is as sure as it is by itself, however surely another moment says it.
    """
    sure = places[0, centres].astype(np.float64)
    if len(places) == 4:
        return sure
    edges = np.floor(spans + 0.5).astype(int).clip(0, places.shape[1] - 1)
    loudest = [np.logaddexp.reduce(SHARPNESS * places[4, start : end + 1]) / SHARPNESS for start, end in edges]
    return sure / (1 + np.exp(-np.array(loudest)))


def _drawn(edges: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Edges (n,) drawn halfway to the nearest of the passages (m,) that lies within EDGE_REACH."""
    if not len(passes):
        return edges
    nearest = passes[np.abs(passes - edges[:, None]).argmin(axis=1)]
    return np.where(np.abs(nearest - edges) <= EDGE_REACH, (edges + nearest) / 2, edges)


def own_scores(spans: Sequence[Sequence[float]], scores: Sequence[float]) -> list[float]:
    """Scores of spans of one label, each lowered by the share that it has in common with a surer one.

    What nearly is a span already found may be the same word, or be said over it: soft non-maximum suppression
    (arXiv 1704.04503, equation 2), by the largest intersection over union alone.
    """
    edges, sure = np.asarray(spans, float).reshape(-1, 2), np.asarray(scores, float)
    (starts, ends), lengths = edges.T, edges[:, 1] - edges[:, 0]
    shared = (np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts)).clip(min=0)
    overlap = shared / (lengths[:, None] + lengths - shared).clip(min=1e-9)  # (n, n)
    rank = np.argsort(np.argsort(-sure, kind="stable"))
    is_surer = rank < rank[:, None]
    return (sure * (1 - (overlap * is_surer).max(axis=1, initial=0))).tolist()


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two spans in any unit."""
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - shared
    return shared / union if union > 0 else 0.0


def matched(
    found: Sequence[Sequence[float]], scores: Sequence[float], true: Sequence[Sequence[float]]
) -> dict[int, int]:
    """Index of the true span that each found one is matched to, one to one from LEAST_IOU on, the surest first."""
    pairs: dict[int, int] = {}
    for index in np.argsort(-np.asarray(scores, float), kind="stable").tolist():
        free = [other for other in range(len(true)) if other not in pairs.values()]
        best = max(free, key=lambda other: iou(found[index], true[other]), default=None)
        if best is not None and iou(found[index], true[best]) >= LEAST_IOU:
            pairs[index] = best
    return pairs
