"""The extractor: aligned, bounded, exact in pieces, and told by the query which word to give back."""

import numpy as np
import pytest
import torch

from ml import extraction, models, objectives
from ml.config import UserError

LABELS = ("bar", "ring", "slash")
RATE_HZ = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def extractor() -> extraction.Extractor:
    torch.manual_seed(0)
    return extraction.Extractor(LABELS, RATE_HZ, channels=24, blocks=3).eval()


def mixtures(n: int = 3, samples: int = 3000, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(n, samples, generator=generator(seed))


def queries(n: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(n, len(LABELS), generator=generator(seed)), dim=1)


def test_the_estimate_has_the_mixtures_length_and_every_frame_a_score():
    model = extractor()
    for samples in (1, 63, 64, 3000, 3001):
        output = model(mixtures(2, samples), queries(2))
        assert output.estimate.shape == (2, samples)
        assert output.presence_logits.shape == (2,)
        assert output.places.shape == (2, 4, -(-samples // model.hop_samples) + 1)
        assert torch.isfinite(output.estimate).all()


def test_analysis_and_synthesis_give_the_waveform_back():
    model, mixture = extractor(), mixtures()
    assert torch.allclose(model.invert(model.transform(mixture), 3000), mixture, atol=1e-6)


@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (3, 8)])
def test_a_convolution_over_frames_is_that_of_torch_with_the_channels_of_a_frame_side_by_side(size, dilation):
    ours = extraction.FrameConv(6, 4, size, padding=dilation * (size // 2), dilation=dilation)
    usual = torch.nn.Conv1d(6, 4, size, padding=dilation * (size // 2), dilation=dilation)
    usual.load_state_dict(ours.state_dict())
    for frames in (1, 2, 20):
        states = torch.randn(3, 6, frames, generator=torch.Generator().manual_seed(frames))
        assert torch.allclose(ours(states), usual(states), atol=1e-6)
    assert ours(states).stride(1) == 1


def test_a_last_sample_in_a_window_of_its_own_does_not_turn_a_recording_down():
    sound = torch.cat((mixtures(1, 256 * 8)[0], torch.tensor([0.9])))[None]
    gain = extraction.recording_gain(sound, 256)
    assert torch.equal(gain, extraction.recording_gain(torch.nn.functional.pad(sound, (0, 255)), 256))


def test_the_level_of_a_recording_scales_the_estimate_and_nothing_else():
    model, mixture, query = extractor(), mixtures(), queries()
    loud, quiet = model(mixture, query), model(0.01 * mixture, query)
    assert torch.allclose(loud.estimate, 100 * quiet.estimate, atol=1e-5)
    assert torch.allclose(loud.presence_logits, quiet.presence_logits, atol=1e-3)


def test_looks_are_taken_at_even_shares_of_a_hop_and_only_by_a_trained_extractor():
    one, mixture, query = extractor(), mixtures(), queries()
    torch.manual_seed(0)
    four = extraction.Extractor(LABELS, RATE_HZ, channels=24, blocks=3, looks=4).eval()
    estimates = [
        one(torch.nn.functional.pad(mixture, (shift, 0)), query, extraction.recording_gain(mixture, 128)).estimate
        for shift in (0, 16, 32, 48)
    ]
    apart = [estimate[:, -3000:] for estimate in estimates]
    answer = four(mixture, query)
    assert torch.allclose(answer.estimate, sum(apart) / 4, atol=1e-6)
    assert not torch.allclose(answer.estimate, apart[0], atol=1e-4)
    assert torch.equal(answer.places, one(mixture, query).places)
    assert torch.equal(four.train()(mixture, query).estimate, one(mixture, query).estimate)


def test_disguised_every_scene_of_training_is_heard_through_another_microphone_and_once_trained_as_it_is():
    model = extraction.Hearing(65, RATE_HZ, disguised=True)
    scene = torch.randn(1, 65, 30, dtype=torch.complex64, generator=generator()).expand(4, -1, -1)
    plain = model.eval()(scene)
    assert plain.shape == (4, extraction.HEARD_BANDS, 30)
    assert torch.equal(plain, model(-scene)), "upside down it is the same sound"
    assert torch.equal(plain, extraction.Hearing(65, RATE_HZ, disguised=False).train()(scene))
    torch.manual_seed(0)
    others = model.train()(scene)
    torch.manual_seed(0)
    assert torch.equal(others, model(scene)), "as dropout, it is drawn by the global generator"
    hidden = (others == 0).all(2)
    assert 0 < hidden.sum() < 0.4 * hidden.numel()
    apart = (others - plain).abs().mean((1, 2))
    assert (apart > 0.02).all()
    assert len(set(apart.tolist())) == 4
    told = [
        torch.corrcoef(torch.stack((a[~h].flatten(), b[~h].flatten())))[0, 1]
        for a, b, h in zip(others, plain, hidden, strict=True)
    ]
    assert min(told) > 0.5, "and yet the same words"


def test_two_words_that_leave_nothing_else_share_what_neither_explains():
    answer, others, rest = (torch.randn(1, 9, 20, dtype=torch.complex64, generator=generator(k)) for k in (1, 2, 3))
    heard = torch.zeros(1, 3, 20)
    heard[:, 1, :10] = 1
    small = extraction.shared_rest(answer + others + 1e-3 * rest, answer, others, heard)
    assert torch.allclose(small[:, :, :10], 0.5e-3 * rest[:, :, :10], atol=1e-5)
    assert not small[:, :, 10:].any(), "no other word is heard there"
    large = extraction.shared_rest(answer + others + 10 * rest, answer, others, heard)
    assert large.abs().mean() < 0.02 * (10 * rest).abs().mean(), "so much is noise, and neither's"


def test_of_the_other_words_the_surest_is_asked_for_where_it_is_heard():
    active = torch.full((1, 3, 4), -5.0)
    active[0, 0] = 3.0
    active[0, 1, 1:] = 2.0
    active[0, 2, 3] = 4.0
    query = torch.tensor([[1.0, 0.0, 0.0]])
    found = extraction.others_heard(query, active)
    assert found[0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_asking_for_others_too_changes_the_answer_of_a_trained_extractor_alone():
    plain, mixture, query = extractor(), mixtures(), queries()
    torch.manual_seed(0)
    both = extraction.Extractor(LABELS, RATE_HZ, channels=24, blocks=3, others=True).eval()
    with torch.no_grad():
        for model in (plain, both):
            model.scores[-1].bias[3:6] = 4.0  # every word seems to sound all the time
    assert not torch.allclose(both(mixture, query).estimate, plain(mixture, query).estimate, atol=1e-4)
    assert torch.equal(both(mixture, query).places, plain(mixture, query).places)
    assert torch.equal(both.train()(mixture, query).estimate, plain.train()(mixture, query).estimate)


def test_a_long_recording_in_overlapping_pieces_gives_the_same_answer():
    model, mixture, query = extractor(), mixtures(1, 64 * 100), queries(1)
    gain = extraction.recording_gain(mixture, model.window_samples)
    whole, margin = model(mixture, query, gain=gain), 64 * (model.context_frames + 1)
    left = model(mixture[:, : 64 * 50 + margin], query, gain=gain)
    right = model(mixture[:, 64 * 50 - margin :], query, gain=gain)
    joined = torch.cat((left.estimate[:, : 64 * 50], right.estimate[:, margin:]), dim=1)
    assert torch.allclose(joined, whole.estimate, atol=1e-5)
    frames = torch.cat((left.places[:, :, :50], right.places[:, :, margin // 64 :]), dim=2)
    assert torch.allclose(frames, whole.places, atol=1e-4)


def test_the_soft_maximum_of_pieces_is_that_of_the_whole():
    scores = torch.randn(2, 40, generator=generator())
    parts = torch.stack([extraction.soft_maximum(part) for part in scores.split([13, 27], dim=1)], dim=1)
    assert torch.allclose(extraction.soft_maximum(parts), extraction.soft_maximum(scores), atol=1e-5)
    assert (extraction.soft_maximum(scores) >= scores.amax(1)).all()


def test_presence_and_places_are_those_of_the_words_the_picture_asks_for():
    model, mixture = extractor(), mixtures(1)
    output = model(mixture, torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.allclose(output.presence_logits, output.word_presence[:, 1])
    assert torch.allclose(output.places, output.word_places[:, 1])
    split = model(mixture, torch.tensor([[0.5, 0.5, 0.0]]))
    assert torch.allclose(split.presence_logits, output.word_presence[:, :2].mean(1), atol=1e-6)
    assert torch.allclose(split.places, output.word_places[:, :2].mean(1), atol=1e-5)


def test_several_questions_about_one_mixture_are_answered_as_if_each_were_asked_alone():
    model, mixture, query, about = extractor(), mixtures(2), queries(5), torch.tensor([0, 1, 1, 0, 1])
    together, alone = model(mixture, query, about=about), model(mixture[about], query)
    for name in ("estimate", "presence_logits", "places"):
        assert torch.allclose(getattr(together, name), getattr(alone, name), atol=1e-5), name
    assert torch.allclose(together.word_presence[about], alone.word_presence, atol=1e-5)


def test_a_picture_of_nothing_known_finds_nothing():
    output = extractor()(mixtures(), torch.zeros(3, 3))
    assert (output.presence_logits.sigmoid() < 0.01).all()
    assert (extraction.probable(output.places)[:, 0] < 0.01).all()


def test_the_mask_is_bounded():
    model, states = extractor(), 1000 * torch.randn(1, 24, 10, generator=generator())
    mask = model.bounded_mask(states)
    assert mask.real.abs().max() <= extraction.MASK_LIMIT
    assert mask.imag.abs().max() <= extraction.MASK_LIMIT


def test_silence_gives_silence():
    output = extractor()(torch.zeros(1, 2000), queries(1))
    assert (output.estimate == 0).all()
    assert torch.isfinite(output.presence_logits).all()


def test_gradients_are_finite_and_reach_every_weight():
    model = extractor()
    output = model(mixtures(), queries())
    (output.estimate.square().mean() + output.presence_logits.sum() + output.places.mean()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def test_swapping_the_picture_swaps_the_word():
    """Two tones at once, learnt by heart: whichever is asked for comes back, and a third is known to be absent."""
    time = torch.arange(2000) / RATE_HZ
    words = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (300, 1200)]) * torch.hann_window(2000)
    mixture, query = words.sum(0).expand(3, -1), torch.eye(3)
    target = torch.cat((words, torch.zeros(1, 2000)))
    present = torch.tensor([True, True, False])
    model = extractor().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        output = model(mixture, query)
        loss = objectives.separation_loss(output.estimate, target, mixture, present)
        loss = loss + objectives.presence_loss(output.presence_logits, present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    output = model(mixture, query)
    assert (objectives.si_sdr_db(output.estimate[:2], words) > 10).all()
    assert (objectives.si_sdr_db(output.estimate[:2], words.flip(0)) < 0).all()
    assert ((output.presence_logits > 0) == present).all()


def test_the_shared_labels_are_those_both_pictured_and_heard():
    assert extraction.shared_labels(("cat", "dog", "owl"), ("owl", "dog", "cow")) == ("dog", "owl")


def test_the_query_keeps_the_posterior_of_the_shared_labels_only():
    posteriors = torch.tensor([[0.5, 0.2, 0.1, 0.2]])  # cat, dog, owl, nothing known
    assert extraction.query_of(posteriors, ("cat", "dog", "owl"), ("dog", "owl")).tolist() == [
        pytest.approx([0.2, 0.1])
    ]


def test_a_saved_extractor_answers_as_before(tmp_path):
    model = extractor()
    arguments = {"labels": list(LABELS), "sample_rate_hz": RATE_HZ, "channels": 24, "blocks": 3}
    models.save_model(tmp_path / "e", model, {"kind": "speech_extractor", "arguments": arguments})
    loaded, _ = extraction.load_extractor(tmp_path / "e")
    assert np.array_equal(
        loaded(mixtures(), queries()).estimate.detach(), model(mixtures(), queries()).estimate.detach()
    )
    with pytest.raises(UserError, match="kind 'speech_extractor'"):
        models.load_model(tmp_path / "e")
