"""Pictures of nothing that a classifier knows, drawn in batches: noise, shuffled things, scribbles, clouds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ml import features

SEGMENTS = 6  # at most; fewer than 3 may well be a thing
COARSEST_CLOUD = 3  # places a side; each finer one has twice as many and half the strength, as in photographs
SHARPEST_CLOUD = 6.0  # times as much contrast; what is clipped has edges


def draw_unknowns(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """As many pictures (b, c, h, w) in [0, 1] of nothing known, of the size of `pictures`: a third of scribbles or
    clouds, the rest `noise_or_shuffled`; grey ones are dark around the edge."""
    count = len(pictures) // 3
    made = noise_or_shuffled(pictures[count:], generator)
    if not count:
        return made
    shown = [scribbles(pictures[: count - count // 3], generator), clouds(pictures[: count // 3], generator)]
    return torch.cat((*shown, made))


def noise_or_shuffled(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures of nothing known like `pictures` (b, c, h, w): blank, fine or coarse noise, or patch-shuffled."""
    b, device = len(pictures), pictures.device
    level = torch.rand(b, 1, 1, 1, generator=generator).to(device)
    contrast = torch.rand(b, 1, 1, 1, generator=generator).to(device)
    noise = torch.rand(tuple(pictures.shape), generator=generator).to(device) - 0.5
    coarse = F.interpolate(F.avg_pool2d(noise, 2, ceil_mode=True) * 2, size=pictures.shape[-2:])
    kind = torch.randint(4, (b, 1, 1, 1), generator=generator).to(device)
    blank = level + 0.05 * contrast * noise
    grainy = level + contrast * torch.where(kind == 1, noise, coarse)
    made = torch.where(kind == 0, blank, torch.where(kind == 3, features.shuffle_patches(pictures, generator), grainy))
    return features.normalise_polarity(made.clamp(0, 1))


def scribbles(like: Tensor, generator: torch.Generator) -> Tensor:
    """Straight strokes at random, as many as letters have, most of them beginning on the one before."""
    b, c, h, w = like.shape
    ends = 0.15 + 0.7 * torch.rand(b, SEGMENTS, 2, 2, generator=generator)  # (b, segments, end, x y)
    joined = torch.rand(b, SEGMENTS - 1, 1, generator=generator) < 0.7
    part = torch.rand(b, SEGMENTS - 1, 1, generator=generator)  # of the stroke before, where this one begins
    part = torch.where(torch.rand(b, SEGMENTS - 1, 1, generator=generator) < 0.5, part.round(), part)
    turn = 2 * torch.pi * torch.rand(b, SEGMENTS, generator=generator)
    length = 0.3 + 0.4 * torch.rand(b, SEGMENTS, 1, generator=generator)
    ways = length * torch.stack((turn.cos(), turn.sin()), dim=2)
    for i in range(SEGMENTS):
        if i:
            before = ends[:, i - 1, 0] + part[:, i - 1] * (ends[:, i - 1, 1] - ends[:, i - 1, 0])
            ends[:, i, 0] = torch.where(joined[:, i - 1], before, ends[:, i, 0])
        ends[:, i, 1] = (ends[:, i, 0] + ways[:, i]).clamp(0.12, 0.88)
    count = torch.randint(3, SEGMENTS + 1, (b, 1), generator=generator)
    width = 0.03 + 0.04 * torch.rand(b, 1, 1, 1, generator=generator)
    level, strength = torch.rand(2, b, c, 1, 1, generator=generator)
    y, x = ((torch.arange(size) + 0.5) / size for size in (h, w))
    place = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), dim=2)  # (h, w, 2)
    start, way = ends[:, :, 0, None, None], (ends[:, :, 1] - ends[:, :, 0])[:, :, None, None]
    along = ((place - start) * way).sum(-1) / way.square().sum(-1).clamp(min=1e-4)
    apart = (place - start - along.clamp(0, 1)[..., None] * way).norm(dim=-1)  # (b, segments, h, w)
    apart = torch.where((torch.arange(SEGMENTS) < count)[:, :, None, None], apart, torch.inf)
    ink = (0.5 + (width - apart.amin(1, keepdim=True)) * h).clamp(0, 1)  # (b, 1, h, w)
    plain = torch.rand(b, 1, 1, 1, generator=generator) < 0.8  # black, as real pictures are: no other hint is given
    ground = torch.where(plain, 0.0, 0.2 * level) if c == 1 else level
    pen = 0.75 + 0.25 * strength if c == 1 else strength
    return features.normalise_polarity((ground * (1 - ink) + pen * ink).to(like.device))


def clouds(like: Tensor, generator: torch.Generator) -> Tensor:
    """Light and dark in patches of several sizes, like photographs: some out of focus, some with edges."""
    b, c, h, w = like.shape
    made = torch.zeros(b, c, h, w)
    size, strength = COARSEST_CLOUD, 0.35
    while size <= max(COARSEST_CLOUD, min(h, w) // 2):
        patches = torch.randn(b, c, size, size, generator=generator)
        made = made + strength * F.interpolate(patches, size=(h, w), mode="bicubic", align_corners=False)
        size, strength = 2 * size, strength / 2
    edges = SHARPEST_CLOUD ** torch.rand(b, 1, 1, 1, generator=generator)
    return features.normalise_polarity((0.5 + edges * made).clamp(0, 1).to(like.device))
