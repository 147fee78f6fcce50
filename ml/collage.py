"""Composed pictures: several of the data's own pictures on one ground, with their boxes; drawn in batches.

They train the detection head and, made of test pictures, they measure it. Everything is drawn for a whole batch at
once, on the device that the pictures lie on: first the parameters, from a generator on the CPU, then the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ml import features, unknowns
from ml.detection import pair_iou, resampling

INK_SHARE = 0.35  # of a picture's strongest contrast; as in predictor.boxes
PLAIN_SHARE, PLAIN_SPREAD = 0.6, 0.1  # on plain ground so many of a border's pixels are as near to their median
OPAQUE = 0.2  # contrast from which a coloured thing on plain ground hides what is behind it
TRIES = 12  # places that are tried for an object
MOST_SHARED = 0.02  # of the smaller of two boxes
MOST_SIDE = 0.94  # of a composed picture, that an object may fill
COARSE = 8  # places a side of a cloudy ground


@dataclass(frozen=True)
class Span:
    """What is drawn: how many objects, how large as a ratio to their typical size, and on what ground.

    photographs: share of pictures that hold no thing, only light and dark as in a photograph.
    alike: largest ratio of a thing's scale to that of all in its picture; 1 draws each scale by itself. crowding: how
    much smaller they are where there are more of them. stretch: of width against height. others: share of places that
    hold something shuffled instead, which is no object.
    """

    objects: int = 5
    least_scale: float = 0.38
    most_scale: float = 4.0
    alike: float = 1.6
    crowding: float = 0.6
    stretch: float = 0.3
    others: float = 0.12
    noise: float = 0.08
    level: float = 0.35
    clouds: float = 0.15
    photographs: float = 0.12


BENCHMARK = Span(
    least_scale=0.7,
    most_scale=1.6,
    alike=1.0,
    crowding=0.0,
    stretch=0.0,
    others=0.0,
    level=0.25,
    clouds=0.05,
    photographs=0.0,
)


@dataclass(frozen=True)
class Stock:
    """Pictures to compose from: uint8 (n, h, w, c), their boxes (n, 4) in shares of the side, and labels (n,)."""

    pixels: Tensor
    boxes: Tensor
    labels: Tensor
    plain: bool  # whether most of them show a thing on plain ground


def stock_of(pixels: Tensor, labels: Tensor) -> Stock:
    boxes, plain = [], []
    for part in pixels.split(1024):
        alpha, _, on_plain = _cut_out(features.to_pictures(part))
        boxes.append(ink_boxes(alpha))
        plain.append(on_plain)
    return Stock(pixels, torch.cat(boxes), labels.to(pixels.device), bool(torch.cat(plain).float().mean() > 0.5))


def window_of(stock: Stock) -> float:
    """How many times as long as its thing's longer side a picture typically is."""
    longer = (stock.boxes[:, 2:] - stock.boxes[:, :2]).amax(dim=1)
    return float(1 / longer.median().clamp(min=0.1))


@dataclass(frozen=True)
class Plan:
    """Drawn parameters of a batch of composed pictures `side` pixels wide, of up to `objects` things each."""

    side: int
    rows: Tensor  # (b, objects) into the stock
    frames: Tensor  # (b, objects, 4): x0, y0, x1, y1 of the whole picture that is laid there, in pixels
    boxes: Tensor  # (b, objects, 4): of the thing in it
    there: Tensor  # (b, objects) bool: something is laid
    named: Tensor  # (b, objects) bool: and it is a thing, not something shuffled
    ink: Tensor  # (b, objects): its strength
    ground: Tensor  # (b, channels)
    slope: Tensor  # (b, 2): how much the ground brightens across and down
    clouds: Tensor  # (b, 1, COARSE, COARSE)
    noise: Tensor  # (b,)
    photograph: Tensor  # (b,) bool: it holds nothing but its ground, which is like a photograph's


def draw_plan(stock: Stock, count: int, side: int, frame: float, span: Span, generator: torch.Generator) -> Plan:
    """Parameters of `count` composed pictures, with 1 to span.objects things each, none heavily over another.

    frame: pixels of a picture that is laid down at scale 1.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    m = span.objects
    rows = torch.randint(len(stock.labels), (count, m), generator=generator)
    asked = torch.randint(1, m + 1, (count, 1), generator=generator)
    most = span.most_scale / asked**span.crowding  # (b, 1)
    typical = span.least_scale * (most / span.least_scale) ** uniform(count, 1 if span.alike > 1 else m)
    scale = typical * span.alike ** (2 * uniform(count, m) - 1)  # (b, objects)
    own = stock.boxes[rows.to(stock.boxes.device)].cpu()  # (b, objects, 4)
    extent = frame * scale[..., None] * (1 + span.stretch * (uniform(count, m, 2) - 0.5))  # (b, objects, 2)
    thing = (own[..., 2:] - own[..., :2]) * extent
    extent = extent * (MOST_SIDE * side / thing.amax(dim=2, keepdim=True)).clamp(max=1)
    frames, boxes, there = _placed(own, extent, side, torch.arange(m) < asked, uniform)
    photograph = uniform(count) < span.photographs if span.photographs else torch.zeros(count, dtype=torch.bool)
    there = there & ~photograph[:, None]
    channels = stock.pixels.shape[3]
    level = uniform(count, 1) * span.level if channels == 1 else uniform(count, channels)
    return Plan(
        side=side,
        rows=rows,
        frames=frames,
        boxes=boxes,
        there=there,
        named=there & (uniform(count, m) >= span.others),
        ink=0.55 + 0.45 * uniform(count, m),
        ground=level * (uniform(count, 1) < 0.7),
        slope=0.15 * (uniform(count, 2) - 0.5) * (uniform(count, 1) < 0.5),
        clouds=span.clouds * uniform(count, 1, 1, 1) * (uniform(count, 1, COARSE, COARSE) - 0.5),
        noise=span.noise * uniform(count),
        photograph=photograph,
    )


def _placed(own: Tensor, extent: Tensor, side: int, wanted: Tensor, uniform) -> tuple[Tensor, Tensor, Tensor]:
    """Frames and boxes (b, objects, 4) of things laid one after the other, each at the best of TRIES places.

    Also which are there (b, objects): of those wanted the ones that found a free place.
    """
    count, m = wanted.shape
    frames, boxes, there = torch.zeros(count, m, 4), torch.zeros(count, m, 4), torch.zeros(count, m, dtype=torch.bool)
    for i in range(m):
        thing = (own[:, i, 2:] - own[:, i, :2]) * extent[:, i]  # (b, 2)
        low = uniform(count, TRIES, 2) * (side - thing).clamp(min=0)[:, None]  # (b, tries, 2)
        tried = torch.cat((low, low + thing[:, None]), dim=2)
        shared = _shared(tried[:, :, None], boxes[:, None]) * there[:, None]  # (b, tries, objects)
        best = shared.amax(dim=2).argmin(dim=1)
        picked = torch.arange(count), best
        there[:, i] = wanted[:, i] & (shared.amax(dim=2)[picked] <= MOST_SHARED)
        boxes[:, i] = tried[picked]
        corner = low[picked] - own[:, i, :2] * extent[:, i]
        frames[:, i] = torch.cat((corner, corner + extent[:, i]), dim=1)
    return frames, boxes, there


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Intersection (…) of boxes (…, 4) as a share of the smaller one."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    smaller = torch.minimum((first[..., 2:] - first[..., :2]).prod(-1), (second[..., 2:] - second[..., :2]).prod(-1))
    return (high - low).clamp(min=0).prod(-1) / smaller.clamp(min=1e-6)


def compose(stock: Stock, plan: Plan, generator: torch.Generator) -> Tensor:
    """The pictures (b, c, side, side) in [0, 1], grey ones dark around the edge, of a plan."""
    device, frames = stock.pixels.device, plan.frames[plan.there]  # (things, 4)
    pictures = features.to_pictures(stock.pixels[plan.rows[plan.there].to(device)])  # (things, c, h, w)
    alpha, colour, _ = _cut_out(pictures)
    layers = torch.cat((alpha, alpha * colour), dim=1)
    other = ~plan.named[plan.there].to(device)
    if other.any():
        layers[other] = features.shuffle_patches(layers[other], generator)
    step = pictures.shape[2] / (frames[:, 2:] - frames[:, :2]).clamp(min=1e-3)  # (things, 2)
    first = -frames[:, :2] * step
    across, down = (
        resampling(first[:, i].to(device), step[:, i].to(device), plan.side, pictures.shape[3 - i]) for i in (0, 1)
    )
    layers = _resampled(layers, across, down)  # (things, 1 + c, side, side)
    if pictures.shape[1] == 1:
        layers[:, 1:] *= plan.ink[plan.there].to(device)[:, None, None, None]
    canvas = _ground(plan, generator, device)
    picture, place = plan.there.to(device).nonzero(as_tuple=True)  # (things,)
    for i in range(plan.rows.shape[1]):  # a later one lies over an earlier one
        under, over = picture[place == i], layers[place == i]
        canvas[under] = canvas[under] * (1 - over[:, :1]) + over[:, 1:]
    noise = torch.randn(tuple(canvas.shape), generator=generator).to(device)
    return (canvas + noise * plan.noise.to(device)[:, None, None, None]).clamp(0, 1)


def _resampled(layers: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Layers (n, c, h, w) by the matrices across (n, side, w) and down (n, side, h): (n, c, side, side)."""
    wide = (layers.flatten(1, 2) @ across.mT).unflatten(1, layers.shape[1:3])  # (n, c, h, side)
    return (down @ wide.transpose(1, 2).flatten(2)).unflatten(2, (layers.shape[1], -1)).transpose(1, 2)


def as_pixels(pictures: Tensor) -> np.ndarray:
    """Composed pictures (n, c, side, side) as uint8 (n, side, side, c); every other grey one dark on light."""
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    if pixels.shape[3] == 1:
        pixels[1::2] = 255 - pixels[1::2]
    return pixels


@dataclass(frozen=True)
class Truth:
    """What one composed picture holds: boxes (n, 4) in pixels and labels (n,)."""

    boxes: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, plan: Plan, stock: Stock, row: int) -> Truth:
        named = plan.named[row]
        labels = stock.labels[plan.rows[row].to(stock.labels.device)].cpu()
        return cls(plan.boxes[row, named].numpy(), labels[named].numpy())

    def matches(self, boxes: np.ndarray) -> np.ndarray:
        """Which thing each of boxes (n, 4), the surest first, is the first to find (IoU from 0.5 up); -1: none."""
        overlaps = pair_iou(torch.from_numpy(boxes)[:, None], torch.from_numpy(self.boxes)[None].double()).numpy()
        found = np.full(len(boxes), -1)
        for i, row in enumerate(overlaps):
            row = np.where(np.isin(np.arange(len(row)), found), 0.0, row)
            if len(row) and row.max() >= 0.5:
                found[i] = row.argmax()
        return found

    def right(self, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Which of boxes (n, 4) find a thing and name it rightly (n,) bool."""
        matched = self.matches(boxes)
        named = np.append(self.labels, -1)[matched]
        return (matched >= 0) & (named == labels)


def _ground(plan: Plan, generator: torch.Generator, device: torch.device) -> Tensor:
    """(b, c, side, side)."""
    line = torch.linspace(-1, 1, plan.side)
    ground = plan.ground[:, :, None, None] + plan.slope[:, :1, None, None] * line
    ground = ground + plan.slope[:, 1:, None, None] * line[:, None]
    clouds = torch.nn.functional.interpolate(plan.clouds, size=(plan.side, plan.side), mode="bilinear")
    ground = ground + clouds
    if plan.photograph.any():
        ground[plan.photograph] = unknowns.clouds(ground[plan.photograph], generator)
    return ground.to(device)


def _cut_out(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Opacity (n, 1, h, w) and colour (n, c, h, w) of what is pictured, and whether it lies on plain ground (n,).

    Ink on plain ground is as opaque as it is strong; where the ground is not plain the whole picture is the thing.
    """
    edges = (pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, :, 0], pictures[:, :, :, -1])
    border = torch.cat(edges, dim=2)  # (n, c, border)
    ground = border.median(dim=2, keepdim=True).values
    plain = ((border - ground).abs().amax(dim=1) <= PLAIN_SPREAD).float().mean(dim=1) >= PLAIN_SHARE
    contrast = (pictures - ground[..., None]).abs().amax(dim=1, keepdim=True)
    strongest = contrast.flatten(1).amax(1)[:, None, None, None].clamp(min=1e-3)
    if pictures.shape[1] == 1:
        alpha, colour = contrast / strongest, torch.ones_like(pictures)
        colour = torch.where(plain[:, None, None, None], colour, pictures)
    else:
        alpha, colour = (contrast / torch.clamp(strongest, max=OPAQUE)).clamp(max=1), pictures
    return torch.where(plain[:, None, None, None], alpha, torch.ones_like(alpha)), colour, plain


def ink_boxes(alpha: Tensor) -> Tensor:
    """Boxes (n, 4) in shares of the side of what is opaque in alpha (n, 1, h, w)."""
    inked = alpha[:, 0] >= INK_SHARE * alpha.flatten(1).amax(1)[:, None, None]
    edges = []
    for line in (inked.any(1), inked.any(2)):  # across, down
        size = line.shape[1]
        edges.append((line.int().argmax(1) / size, 1 - line.flip(1).int().argmax(1) / size))
    (x0, x1), (y0, y1) = edges
    return torch.stack((x0, y0, x1, y1), dim=1).float()
