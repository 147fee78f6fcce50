"""Words as centres and edges: what a head is to say of them, what is read from it, and how found spans are matched."""

import numpy as np
import pytest
import torch

from ml import spotting

SPANS = torch.tensor([[[3.0, 13.0], [8.0, 17.0], [30.0, 38.0]]])
LABELS = torch.tensor([[1, 1, 0]])


def perfect(frames: int = 50) -> torch.Tensor:
    """Places (1, 2, 4, frames) that say exactly where SPANS are: logits of the bells, and the nearer word's edges."""
    bell = spotting.bells(SPANS, LABELS >= 0, frames)
    time = torch.arange(frames)
    places = torch.zeros(1, 2, 4, frames)
    for label in (0, 1):
        mine = LABELS[0] == label
        height, owner = bell[0, mine].max(0)
        nearest = SPANS[0, mine][owner]  # (frames, 2)
        places[0, label, :3] = torch.stack((torch.logit(height, eps=1e-4), time - nearest[:, 0], nearest[:, 1] - time))
    return places


def read(places: np.ndarray) -> list[list[float]]:
    centres = spotting.peaks(places)
    spans = spotting.spans_at(places, centres)
    scores = spotting.own_scores(spans.tolist(), places[0, centres].tolist())
    return spans[np.array(scores) > 0.5].tolist()


def test_a_word_said_twice_over_itself_is_read_as_two():
    places = perfect()[0].clone()
    places[:, 0] = places[:, 0].sigmoid()
    assert read(places[1].numpy()) == [[3, 13], [8, 17]]
    assert read(places[0].numpy()) == [[30, 38]]


def test_edges_lie_halfway_to_where_activity_passes_if_that_is_near():
    places = np.zeros((4, 60), np.float32)
    places[:3, 20] = 0.9, 8, 9
    places[3, 13:50] = 1  # passes its level at 12.5 and 49.5
    assert spotting.spans_at(places, np.array([20])).tolist() == [[12.25, 29]]
    places[3] = 0
    assert spotting.spans_at(places, np.array([20])).tolist() == [[12, 29]]
    assert spotting.spans_at(places, np.array([], int)).shape == (0, 2)


def test_the_loss_is_least_for_the_truth_and_names_what_is_wrong():
    best = spotting.spotting_loss(perfect(), SPANS, LABELS)
    assert best < 0.6
    late, elsewhere, unsure = perfect(), perfect(), perfect()
    late[:, :, 1:3] += 3
    elsewhere[:, :, 0] = elsewhere[:, :, 0].roll(12, dims=-1)
    unsure[:, :, 0] = 0
    assert spotting.spotting_loss(late, SPANS, LABELS) == pytest.approx(float(best) + 2 * 3 * spotting.EDGE_WEIGHT)
    assert spotting.spotting_loss(elsewhere, SPANS, LABELS) > best + 3
    assert spotting.spotting_loss(unsure, SPANS, LABELS) > best + 1


def test_words_without_a_label_teach_only_that_nothing_is_there():
    silent = torch.full((1, 2, 4, 50), -12.0, requires_grad=True)
    loss = spotting.spotting_loss(silent, SPANS, torch.full((1, 3), -1))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert silent.grad is not None
    assert torch.isfinite(silent.grad).all()
    assert (silent.grad[:, :, 1:] == 0).all()


def test_distances_are_positive_and_bounded():
    found = spotting.distances(torch.tensor([-1e4, 0.0, 1e4]))
    assert 0 < found[0] < 1
    assert found[1:].tolist() == pytest.approx([spotting.TYPICAL_FRAMES, spotting.LONGEST_FRAMES], rel=1e-5)


def test_a_span_counts_the_less_the_more_it_shares_with_a_surer_one():
    spans = [(0.0, 1.0), (0.05, 1.0), (0.5, 1.5), (3.0, 4.0)]
    scores = spotting.own_scores(spans, [0.6, 0.9, 0.7, 0.1])
    assert scores == pytest.approx([0.6 * 0.05, 0.9, 0.7 * (1 - 0.5 / 1.45), 0.1])
    assert spotting.own_scores([(0.0, 1.0), (0.0, 1.0)], [0.5, 0.5]) == [0.5, 0]
    assert spotting.own_scores([], []) == []


def test_spans_are_matched_one_to_one_and_the_surest_first():
    true = [(0.0, 1.0), (2.0, 3.0)]
    found = [(0.1, 1.0), (0.0, 1.0), (2.4, 3.0), (5.0, 6.0)]
    assert spotting.matched(found, [0.9, 0.8, 0.7, 1.0], true) == {0: 0, 2: 1}
    assert spotting.iou((0, 2), (1, 3)) == pytest.approx(1 / 3)
    assert spotting.iou((0, 1), (1, 2)) == 0
