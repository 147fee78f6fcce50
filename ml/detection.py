"""Where the objects of a picture lie: the finder, what it is to say, its loss, its boxes; and how each is cut out.

A picture is looked at once and as a whole, at a working size; what is found there is cut out of the picture itself for
the classifier. Boxes are x0, y0, x1, y1.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORKING_SIDE = 112  # pixels of the square that a picture is looked at as
CELL = 4  # of its pixels in a place of the finder's map
MOST_OBJECTS = 40  # looked at more closely
FIRST_SCORE = 0.1  # of a place that is looked at more closely
SAME_IOU = 0.45  # boxes that overlap more are of one object
CENTRE_SHARE = 0.14  # deviation of the bell around a centre, of the box's side
SURROUNDING_IS_OWN = 0.25  # places where the bell is as high know the box as well
BOX_WEIGHT = 2.0
LEAST_CONTRAST = 0.15  # of ink on its ground; less is not stretched to full


class ObjectFinder(nn.Module):
    """Of every place of a working picture: whether an object's centre lies there, and how far its four sides are.

    Centres as peaks: CenterNet (arXiv 1904.07850, section 3). Distances to the sides: FCOS (arXiv 1904.01355, section
    3.1). Between them a small pyramid (arXiv 1612.03144), so that each place sees the whole picture.
    """

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        wide = 2 * channels
        self.enter = nn.Sequential(
            _block(channels_in, channels // 2, 3, stride=2),
            _block(channels // 2, channels, 3, stride=2),
            _block(channels, channels, 3),
        )
        self.down = nn.ModuleList(
            (
                nn.Sequential(_block(channels, wide, 3, stride=2), _block(wide, wide, 3)),
                nn.Sequential(_block(wide, wide, 3, stride=2), _block(wide, wide, 3)),
                _block(wide, wide, 3, stride=2),
            )
        )
        self.merge = nn.ModuleList((_block(wide, wide, 3), _block(wide, wide, 3)))
        self.narrow = _block(wide, channels, 1)
        self.last = _block(channels, channels, 3)
        self.out = nn.Conv2d(channels, 5, 1)
        with torch.no_grad():
            cast(Tensor, self.out.bias).copy_(torch.tensor([-3.0, 1.0, 1.0, 1.0, 1.0]))  # few centres; middling boxes
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Working pictures (b, c, side, side) in [0, 1] -> logits of centres (b, side / 4, side / 4), and distances in
        cells (b, 4, side / 4, side / 4): to x0, y0, x1, y1."""
        levels = [self.enter((pictures - 0.2).contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            levels.append(down(levels[-1]))
        top = levels.pop()  # (b, wide, side / 32, side / 32)
        for merge in self.merge:
            level = levels.pop()
            top = merge(_enlarged(top, level) + level)
        [first] = levels  # (b, channels, side / 4, side / 4)
        found = self.out(self.last(_enlarged(self.narrow(top), first) + first)).float()
        return found[:, 0], found[:, 1:].clamp(-4, 5).exp()


def _block(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
    convolve = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolve, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)


def cell_grid(height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Centres of cells: x (1, width) and y (height, 1)."""
    x, y = (torch.arange(size, device=device) + 0.5 for size in (width, height))
    return x[None], y[:, None]


def centre_targets(boxes: Tensor, present: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What a head should say of boxes (b, objects, 4) in cells, of which those of `present` (b, objects) are there.

    Returns bells (b, size, size), 1 at the centre cell of each object and falling around it, and which object each
    place belongs to (b, size, size).
    """
    x, y = cell_grid(size, size, boxes.device)
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    spread = (CENTRE_SHARE * sides).clamp(0.45, 2.5)[..., None, None]  # (b, objects, 2, 1, 1)
    bells = [
        (-0.5 * ((place - centres[..., i, None, None]) / spread[:, :, i]).square()).exp()
        for i, place in ((0, x), (1, y))
    ]
    bell = bells[0] * bells[1] * present[..., None, None]  # (b, objects, size, size)
    at = centres.floor().long().clamp(0, size - 1)
    peak = (x.floor() == at[..., :1, None]) & (y.floor() == at[..., 1:, None])
    bell = torch.where(peak & present[..., None, None], 1.0, bell.clamp(max=0.99))
    height, owner = bell.max(dim=1)
    return height, owner


def detection_loss(logits: Tensor, distances: Tensor, boxes: Tensor, present: Tensor) -> Tensor:
    """Loss of a head's output (b, h, w), (b, 4, h, w) against boxes (b, objects, 4) in cells.

    Penalty-reduced focal loss of the centres (arXiv 1904.07850, equation 1) and -log IoU of the boxes.
    """
    bell, owner = centre_targets(boxes, present, logits.shape[-1])
    sure, count = logits.sigmoid(), present.sum().clamp(min=1)
    hit = -((1 - sure) ** 2) * F.logsigmoid(logits) * (bell == 1)
    miss = -(sure**2) * (1 - bell) ** 4 * F.logsigmoid(-logits)
    own = bell >= SURROUNDING_IS_OWN
    batch = torch.arange(len(boxes), device=boxes.device)[:, None, None].expand_as(owner)
    wanted = boxes[batch[own], owner[own]]  # (places, 4)
    x, y = cell_grid(logits.shape[-2], logits.shape[-1], boxes.device)
    place = torch.stack((x.expand_as(bell)[own], y.expand_as(bell)[own]), dim=1)
    got = _around(place, distances.permute(0, 2, 3, 1)[own])
    apart = -(pair_iou(got, wanted).clamp(min=1e-2)).log() * bell[own]
    return (hit.sum() + miss.sum()) / count + BOX_WEIGHT * apart.sum() / bell[own].sum().clamp(min=1)


def _around(place: Tensor, distances: Tensor) -> Tensor:
    """Boxes (n, 4) of places (n, 2) and the distances (n, 4) of their sides from there."""
    return torch.cat((place - distances[:, :2], place + distances[:, 2:]), dim=1)


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (…) of boxes (…, 4), which may be broadcast."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    both = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    return shared / (both - shared).clamp(min=1e-6)


@torch.no_grad()
def peaks(logits: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) in cells and scores (n,) of one picture's output (h, w), (4, h, w), the surest first.

    A place counts where none of its eight neighbours is surer; of boxes of one object the surest is kept.
    """
    scores = logits.sigmoid()
    highest = F.max_pool2d(scores[None], 3, stride=1, padding=1)[0]
    y, x = torch.nonzero((scores >= highest) & (scores >= FIRST_SCORE), as_tuple=True)
    order = scores[y, x].argsort(descending=True)[:MOST_OBJECTS]
    y, x = y[order], x[order]
    boxes = _around(torch.stack((x, y), dim=1) + 0.5, distances[:, y, x].T)
    kept = without_repeats(boxes)
    return boxes[kept], scores[y, x][kept]


def without_repeats(boxes: Tensor) -> list[int]:
    """Which of boxes (n, 4), the surest first, overlap none of those before them by more than SAME_IOU of either.

    A box that lies inside another is taken for a part of it.
    """
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1e-6)
    clash = (pair_iou(boxes[:, None], boxes[None]) > SAME_IOU) | (
        shared > 0.8 * torch.minimum(area[:, None], area[None])
    )
    kept: list[int] = []
    for i in range(len(boxes)):
        if not clash[i, kept].any():
            kept.append(i)
    return kept


def resampling(first: Tensor, step: Tensor, count: int, size: int) -> Tensor:
    """Matrices (…, count, size) that read `count` samples, each `step` (…) wide, from `first` (…) on, out of `size`.

    Triangles as wide as a sample, never narrower than a pixel: bilinear enlarging, and shrinking without aliasing.
    What lies outside is zero.
    """
    at = first[..., None] + (torch.arange(count, device=first.device) + 0.5) * step[..., None]  # (…, count)
    pixels = torch.arange(size, device=first.device) + 0.5
    reach = step.clamp(min=1)[..., None, None]
    return (1 - (at[..., None] - pixels).abs() / reach).clamp(min=0) / reach


def crops(picture: Tensor, boxes: Tensor, window: float, side: int, ink: bool) -> Tensor:
    """What the classifier is shown of the objects: pictures (n, c, side, side), each as its training pictures are.

    picture: (c, h, w) of one polarity; boxes: (n, 4) in its pixels. window: how many times as long as the longer side
    of a box the frame around it is. ink: whether objects lie on plain ground; it is then set to black, the ink to full
    strength, and what lies outside the box is left out.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    frame = window * sides.amax(dim=1)  # (n,)
    corner = (boxes[:, :2] + boxes[:, 2:] - frame[:, None]) / 2  # (n, 2)
    ground = picture.flatten(1).median(dim=1).values[:, None, None]
    step = frame / side
    down, across = (resampling(corner[:, i], step, side, picture.shape[2 - i]) for i in (1, 0))
    shown = down[:, None] @ (picture - ground) @ across[:, None].mT + ground  # (n, c, side, side)
    if not ink:
        return shown
    x, y = ((corner[:, i, None] + (torch.arange(side, device=boxes.device) + 0.5) * step[:, None]) for i in (0, 1))
    rim = 0.06 * frame[:, None]
    inside = ((y > boxes[:, 1:2] - rim) & (y < boxes[:, 3:] + rim))[:, :, None] & (
        (x > boxes[:, :1] - rim) & (x < boxes[:, 2:3] + rim)
    )[:, None]
    near = shown.flatten(2).median(dim=2).values[:, :, None, None]
    contrast = ((shown - near) * inside[:, None]).clamp(min=0)
    return (contrast / contrast.flatten(1).amax(1).clamp(min=LEAST_CONTRAST)[:, None, None, None]).clamp(0, 1)
