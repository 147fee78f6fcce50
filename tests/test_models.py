"""The classifiers: one alone equals one of many, padding is not heard, a tiny batch can be learnt, files are whole."""

import json

import pytest
import torch

from ml import features, models
from ml.config import UserError, load_settings

MODELS = {
    "image": lambda: models.ImageCNN(classes=3, side=12, channels_in=1, channels=8),
    "cnn": lambda: models.SpeechCNN(classes=3, n_mels=features.N_MELS, channels=12),
    "rnn": lambda: models.SpeechRNN(classes=3, n_mels=features.N_MELS, channels=12),
    "lstm": lambda: models.SpeechLSTM(classes=3, n_mels=features.N_MELS, channels=12),
}
SPEECH = tuple(models.SPEECH_MODELS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def inputs(name: str, n: int = 5) -> torch.Tensor:
    shape = (n, 1, 12, 12) if name == "image" else (n, features.N_MELS, 31)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_equals_a_batch_of_many(name):
    model, batch = MODELS[name]().eval(), inputs(name)
    alone = torch.cat([model(row[None]) for row in batch])
    assert torch.allclose(model(batch), alone, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_and_reach_every_weight(name):
    model = MODELS[name]()
    model(inputs(name)).square().mean().backward()
    for weight_name, weight in model.named_parameters():
        assert weight.grad is not None, weight_name
        assert torch.isfinite(weight.grad).all(), weight_name


@pytest.mark.parametrize("name", MODELS)
def test_a_tiny_batch_can_be_learnt_by_heart(name):
    model, batch, labels = MODELS[name](), inputs(name, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    assert (model(batch).argmax(1) == labels).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_are_a_linear_reading_of_the_features(name):
    model = MODELS[name]().eval()
    features = model.looks(inputs(name)).mean(0) if name in SPEECH else model.embed(inputs(name))
    assert torch.allclose(model.head(features), model(inputs(name)), atol=1e-5)


@pytest.mark.parametrize("kind", SPEECH)
def test_what_lies_behind_a_clips_own_frames_does_not_matter(kind):
    model, mel = MODELS[kind]().eval(), inputs(kind, 2)
    frames = torch.tensor([17, 31])
    mel[0, :, 17:] = 0
    padded = torch.nn.functional.pad(mel, (0, 9))
    alone = model(mel[:1, :, :17])
    assert torch.allclose(model(padded, frames)[:1], alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_recurrent_models_hear_order(kind):
    model, mel = MODELS[kind]().eval(), inputs(kind, 1)
    assert not torch.allclose(model(mel), model(mel.flip(2)), atol=1e-3)


def test_reversal_turns_each_row_round_within_its_own_length():
    assert models.reversal(torch.tensor([2, 4]), 4).tolist() == [[1, 0, 2, 3], [3, 2, 1, 0]]


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (64, 3), (5, 1)])
def test_the_picture_classifier_takes_any_side_and_has_one_output_more_than_classes(side, channels):
    model = models.ImageCNN(classes=4, side=side, channels_in=channels, channels=8).eval()
    assert model(torch.rand(2, channels, side, side)).shape == (2, 5)


@pytest.mark.parametrize("kind", SPEECH)
def test_the_speech_models_of_params_yaml_stay_within_100_000_parameters(kind):
    channels = load_settings().speech_classifier.of(kind).channels
    assert models.count_parameters(models.SPEECH_MODELS[kind](10, features.N_MELS, channels)) <= 100_000


def saved(folder, name="lstm"):
    model, kind = MODELS[name]().eval(), "image_cnn" if name == "image" else f"speech_{name}"
    arguments = {"classes": 3, "n_mels": features.N_MELS, "channels": 12}
    if name == "image":
        arguments = {"classes": 3, "side": 12, "channels_in": 1, "channels": 8}
    return model, models.save_model(folder, model, {"kind": kind, "arguments": arguments, "classes": ["a", "b", "c"]})


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_answers_as_before(tmp_path, name):
    model, card = saved(tmp_path / "m", name)
    loaded, read = models.load_model(tmp_path / "m")
    assert torch.equal(loaded(inputs(name)), model(inputs(name)))
    assert read == card
    assert not loaded.training


def test_a_saved_model_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    saved(tmp_path / "m")
    (tmp_path / "m" / "left over").write_text("from before")
    model, _ = saved(tmp_path / "m", "cnn")
    loaded, _ = models.load_model(tmp_path / "m")
    assert torch.equal(loaded(inputs("cnn")), model(inputs("cnn")))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["m", models.CARD, models.WEIGHTS]


def test_changed_weights_are_refused(tmp_path):
    saved(tmp_path / "m")
    weights = tmp_path / "m" / models.WEIGHTS
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(UserError, match=r"weights\.safetensors: sha256 .* expected"):
        models.load_model(tmp_path / "m")


def test_a_folder_without_a_card_or_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the card of a trained model"):
        models.load_model(tmp_path)
    saved(tmp_path / "m")
    (tmp_path / "m" / models.WEIGHTS).unlink()
    with pytest.raises(UserError, match="expected the weights of a trained model"):
        models.load_model(tmp_path / "m")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[]", b'{"kind": "cnn"}'])
def test_a_damaged_card_is_refused(tmp_path, content):
    saved(tmp_path / "m")
    (tmp_path / "m" / models.CARD).write_bytes(content)
    with pytest.raises(UserError, match="expected the card of a trained model"):
        models.load_model(tmp_path / "m")


def test_a_model_of_another_kind_is_refused(tmp_path):
    saved(tmp_path / "m")
    with pytest.raises(UserError, match="expected one of image_cnn"):
        models.load_model(tmp_path / "m", kinds={"image_cnn": models.ImageCNN})


def test_a_card_that_is_not_json_can_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        models.save_model(tmp_path / "m", MODELS["rnn"](), {"metrics": {"loss": float("nan")}})
    assert list(tmp_path.iterdir()) == []


def test_the_card_is_plain_json(tmp_path):
    _, card = saved(tmp_path / "m")
    assert json.loads((tmp_path / "m" / models.CARD).read_text()) == card
    assert set(card["digests"]) == {models.WEIGHTS}


@pytest.mark.parametrize("kind", models.SPEECH_MODELS)
def test_a_trained_recogniser_takes_the_mean_of_a_sound_moved_by_bands(kind):
    torch.manual_seed(0)
    model = models.SPEECH_MODELS[kind](classes=3, n_mels=40, channels=16)
    mel, frames = torch.randn(2, 40, 30), torch.tensor([30, 17])
    lower, higher = (
        torch.cat((mel[:, 2:], mel[:, -1:], mel[:, -1:]), 1),
        torch.cat((mel[:, :1], mel[:, :1], mel[:, :-2]), 1),
    )
    model.eval()
    each = [model.head(model.see(one, frames)) for one in (mel, higher, lower)]
    assert torch.allclose(model.looks(mel, frames)[0], model.see(mel, frames), atol=1e-5)
    assert torch.allclose(model(mel, frames), torch.stack(each).mean(0), atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    seen = []
    model.see = lambda log_mel, frames: seen.append(len(log_mel)) or torch.zeros(len(log_mel), model.head.in_features)
    model.train()(mel, frames)
    assert seen == [2], "while it learns it looks once"
