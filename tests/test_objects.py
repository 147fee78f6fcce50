"""Several objects in one picture: composed, found, cut out and named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_models import CLASSES, image_recipe, toy_images

from ml import collage, detection, models, training
from ml.collage import BENCHMARK, Span, Stock, Truth
from ml.config import Training, UserError
from ml.datasets import ImageSet
from ml.features import to_pictures
from ml.finding import working_picture
from ml.predictor.answers import PicturedObject
from ml.predictor.classifying import PictureClassifier
from ml.training import objects

SIDE, FRAME = 112, 28.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stock_of(images: ImageSet) -> Stock:
    return collage.stock_of(torch.from_numpy(np.array(images.pixels)), torch.from_numpy(np.array(images.labels)))


@pytest.fixture(scope="module")
def stock() -> Stock:
    return stock_of(toy_images().where("train"))


@pytest.fixture(scope="module")
def see(tmp_path_factory) -> PictureClassifier:
    """The picture classifier with its finder, trained in a few seconds on shapes."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("image") / "image_classifier"
    recipe = dataclasses.replace(image_recipe(150, 8, 160), detector_batch_size=12, detector_channels=16)
    training.train_image_classifier(toy_images(), recipe, Training("quick", "cpu", 0), out, out.parent / "notes", False)
    return PictureClassifier(out, "cpu")


# Composing


@pytest.mark.parametrize("span", [Span(), BENCHMARK])
def test_composed_things_lie_inside_apart_and_as_many_as_asked_for(stock, span):
    plan = collage.draw_plan(stock, 60, SIDE, FRAME, span, seeded())
    assert plan.named.sum(1).max() <= span.objects
    assert torch.equal(plan.there.sum(1) == 0, plan.photograph)
    assert plan.photograph.float().mean() == pytest.approx(span.photographs, abs=0.1)
    for row in (~plan.photograph).nonzero()[:, 0].tolist():
        boxes = plan.boxes[row, plan.there[row]]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= SIDE).all()
        overlaps = detection.pair_iou(boxes[:, None], boxes[None]) - torch.eye(len(boxes))
        assert overlaps.max() <= 0.05


def test_a_composed_thing_is_where_its_box_says(stock):
    clean = dataclasses.replace(BENCHMARK, noise=0.0, level=0.0, clouds=0.0)
    plan = dataclasses.replace(
        collage.draw_plan(stock, 40, SIDE, FRAME, clean, seeded(1)), slope=torch.zeros(40, 2), ink=torch.ones(40, 5)
    )
    for row, picture in enumerate(collage.compose(stock, plan, seeded(2))):
        inked = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for x0, y0, x1, y1 in Truth.of(plan, stock, row).boxes.round().astype(int):
            assert picture[0, y0:y1, x0:x1].amax() > 0.5
            inked[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2] = True
        assert picture[0][~inked].max() < 0.5


def test_the_same_seed_composes_the_same_pictures_and_another_one_others(stock):
    def made(seed: int) -> torch.Tensor:
        generator = seeded(seed)
        return collage.compose(stock, collage.draw_plan(stock, 4, 60, FRAME, Span(), generator), generator)

    assert torch.equal(made(3), made(3))
    assert not torch.equal(made(3), made(4))


def test_pictures_that_hold_no_thing_at_all_are_composed_as_well(stock):
    plan = collage.draw_plan(stock, 3, 60, FRAME, dataclasses.replace(Span(), photographs=1.0), seeded())
    pictures = collage.compose(stock, plan, seeded())
    assert pictures.shape == (3, 1, 60, 60)
    assert (pictures.flatten(1).std(1) > 0.01).all()


def test_colour_photographs_are_laid_down_whole_and_things_on_plain_ground_cut_out():
    draw = np.random.default_rng(0)
    photographs = draw.integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    things = np.full((6, 20, 20, 3), 240, np.uint8)
    things[:, 5:15, 8:18] = (200, 30, 30)
    for pixels, box, plain in ((photographs, [0, 0, 1, 1], False), (things, [0.4, 0.25, 0.9, 0.75], True)):
        made = collage.stock_of(torch.from_numpy(pixels), torch.zeros(6, dtype=torch.long))
        assert made.plain is plain
        assert made.boxes[0].tolist() == pytest.approx(box)
        plan = collage.draw_plan(made, 3, SIDE, FRAME, Span(), seeded())
        assert collage.compose(made, plan, seeded()).shape == (3, 3, SIDE, SIDE)


# The parts of the finder


def test_a_finder_that_says_what_it_is_taught_finds_every_box(stock):
    plan = collage.draw_plan(stock, 30, SIDE, FRAME, Span(others=0.0, photographs=0.0), seeded(5))
    boxes = plan.boxes / detection.CELL
    bells, owner = detection.centre_targets(boxes, plan.named, SIDE // detection.CELL)
    x, y = detection.cell_grid(SIDE // detection.CELL, SIDE // detection.CELL)
    own = torch.gather(boxes, 1, owner.flatten(1)[:, :, None].expand(-1, -1, 4)).unflatten(1, owner.shape[1:])
    distances = torch.stack((x - own[..., 0], y - own[..., 1], own[..., 2] - x, own[..., 3] - y), dim=1)
    for row in range(30):
        found, scores = detection.peaks(torch.logit(bells[row], eps=1e-6), distances[row])
        wanted = boxes[row, plan.named[row]]
        assert (scores[: len(wanted)] > 0.99).all()
        assert detection.pair_iou(wanted[:, None], found[None]).amax(1).min() > 0.99
    perfect = detection.detection_loss(torch.logit(bells, eps=1e-4), distances, boxes, plan.named)
    assert perfect < detection.detection_loss(torch.zeros_like(bells), distances, boxes, plan.named) / 10


def test_resampling_leaves_a_picture_as_it_is_and_a_plain_one_plain():
    picture = torch.rand(1, 12, 12, generator=seeded())
    zero, one = torch.zeros(()), torch.ones(())
    assert torch.allclose(detection.resampling(zero, one, 12, 12) @ picture[0], picture[0])
    for step in (0.3, 2.5):
        count = int(8 / step)
        weights = detection.resampling(one * 2, one * step, count, 12)
        assert weights.sum(1) == pytest.approx(torch.ones(count), abs=0.05)


def test_a_thing_cut_out_of_a_larger_picture_looks_as_in_its_own(stock):
    own = to_pictures(stock.pixels[:1])[0]  # (1, 14, 14)
    large = torch.zeros(1, 90, 120)
    large[0, 30:58, 50:78] = own[0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    x0, y0, x1, y1 = (stock.boxes[0] * 28).tolist()
    box = torch.tensor([[50 + x0, 30 + y0, 50 + x1, 30 + y1]])
    [shown] = detection.crops(large, box, collage.window_of(stock), 14, ink=True)
    assert np.corrcoef(shown.flatten(), own.flatten())[0, 1] > 0.8


@pytest.mark.parametrize("size", [(300, 40), (40, 300), (112, 112), (1, 1), (5, 900)])
def test_a_picture_of_any_size_becomes_a_working_picture(size):
    working, scale = working_picture(torch.full((1, *size), 0.3), SIDE)
    assert working.shape == (1, SIDE, SIDE)
    assert scale == SIDE / max(size)
    assert torch.allclose(working[:, 1:-1, 1:-1], torch.tensor(0.3), atol=0.01)


# What is found


def test_several_things_in_one_picture_are_found_and_named_on_dark_and_light_ground(see):
    held = stock_of(toy_images().where("test"))
    plan = collage.draw_plan(held, 60, 112, 28.0, BENCHMARK, seeded(7))
    pixels = collage.as_pixels(collage.compose(held, plan, seeded(8)))
    right = kept = wanted = 0
    for row, picture in enumerate(pixels):
        found = see.picture(picture).objects
        truth = Truth.of(plan, held, row)
        boxes = np.array([one.box for one in found], float).reshape(-1, 4)
        right += truth.right(boxes, np.array([CLASSES.index(one.label) for one in found], int)).sum()
        kept, wanted = kept + len(found), wanted + len(truth.boxes)
        assert all(0 < one.probability <= 1 for one in found)
        assert all(0 <= x0 < x1 <= 112 and 0 <= y0 < y1 <= 112 for x0, y0, x1, y1 in (one.box for one in found))
    assert 2 * right / (kept + wanted) >= 0.9


def test_what_is_found_beside_the_picture_is_no_object_of_it(see, monkeypatch):
    outside, inside = [100.0, 10.0, 110.0, 20.0], [5.0, 10.0, 25.0, 40.0]
    boxes = torch.tensor([outside, inside]) / detection.CELL
    monkeypatch.setattr(detection, "peaks", lambda *maps: (boxes, torch.tensor([0.9, 0.8])))
    found = see._detector(np.zeros((112, 56, 1), np.uint8))
    assert found.boxes.tolist() == [inside]


def test_the_largest_of_several_is_what_is_pictured_unless_another_is_asked_for(see):
    picture = np.zeros((100, 160, 1), np.uint8)
    for label, side, left in (("ring", 56, 10), ("bar", 42, 100)):
        one = toy_images().where("test")
        row = np.flatnonzero(one.labels == CLASSES.index(label))[0]
        picture[20 : 20 + side, left : left + side] = np.kron(one.pixels[row], np.ones((side // 14,) * 2 + (1,)))
    answer = see.picture(picture)
    assert [one.label for one in answer.objects] == ["ring", "bar"]
    assert answer.label == "ring"
    other = answer.of_object(1)
    assert (other.label, other.asked, other.objects) == ("bar", 1, answer.objects)
    assert other.probabilities["bar"] == max(other.probabilities.values())
    with pytest.raises(UserError, match="object 2: expected one of the picture's objects, 0 to 1"):
        answer.of_object(2)


def test_pictures_of_the_trained_size_are_judged_as_a_whole(see):
    test = toy_images().where("test")
    for pixels in test.pixels[:6]:
        answer = see.picture(pixels)
        assert list(answer.probabilities.values()) == pytest.approx(see([pixels])[0][0, :-1].tolist())
        assert len(answer.objects) <= 1


@pytest.mark.parametrize("size", [(40, 40), (300, 30), (29, 500), (600, 600)])
@pytest.mark.parametrize("channels", [1, 3])
def test_blank_paper_of_any_size_shows_nothing(see, size, channels):
    for level in (0, 120, 255):
        answer = see.picture(np.full((*size, channels), level, np.uint8))
        assert (answer.label, answer.objects) == (None, [])


def test_the_model_is_one_file_that_says_how_it_finds(see):
    assert see.card["arguments"]["detector_channels"] == 16
    decided = {"calibration", "threshold", "unknown_share", "validation_f1"}
    assert see.card["detector"].keys() == {"window", "ink", *decided}
    assert see.card["detector"]["ink"] is True


@pytest.mark.parametrize(("side", "by_the_whole"), [(50, True), (20, False)])
def test_one_found_thing_answers_for_the_picture_unless_it_is_most_of_what_is_drawn(
    see, monkeypatch, side, by_the_whole
):
    """The finder's answer is a stand-in: a part of a square of 70 pixels that fills the picture."""
    label = CLASSES[0]
    found = PicturedObject(label, 0.9, (15, 15, 15 + side, 15 + side), dict.fromkeys(CLASSES, 0.3))
    monkeypatch.setattr(see, "_objects", lambda *_: [found])
    pixels = np.zeros((100, 100, see.card["channels"]), np.uint8)
    pixels[15:85, 15:85] = 255
    answer = see.picture(pixels)
    assert (answer.objects == [found]) is not by_the_whole
    if by_the_whole:
        assert answer.probabilities[label] == pytest.approx(see([pixels])[0][0][0])


def test_a_model_without_a_finder_still_answers(tmp_path):
    model = models.ImageCNN(classes=3, side=14, channels_in=1, channels=8)
    card = {"kind": "image_cnn", "arguments": {"classes": 3, "side": 14, "channels_in": 1, "channels": 8}}
    models.save_model(tmp_path / "m", model, {**card, "classes": list(CLASSES), "temperature": 1.0})
    assert len(PictureClassifier(Path(tmp_path / "m"), "cpu").picture(np.zeros((90, 90, 1), np.uint8)).objects) <= 1


def test_platt_scaling_finds_the_slope_and_offset():
    logits = 3 * torch.randn(20_000, generator=seeded(), dtype=torch.float64)
    truth = torch.rand(20_000, generator=seeded(1)) < (1.7 * logits - 0.6).sigmoid()
    assert objects.platt(logits.sigmoid(), truth) == pytest.approx([1.7, -0.6], abs=0.1)
