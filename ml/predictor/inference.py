"""The only inference path: evaluation, service and command line all ask a Predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ml import media, models
from ml.config import UserError
from ml.extraction import load_extractor, query_of
from ml.features import LogMel, to_pictures
from ml.models import ImageCNN, SpeechCNN, SpeechRecurrent
from ml.predictor.answers import Extraction, Heard, Interval, Picture, PicturedObject, Recognition, Word
from ml.predictor.bundle import PARTS, GoldenRequest, models_digest, read_goldens, verify_bundle
from ml.predictor.locating import IntervalRule, active_intervals, ink_box, without_conflicts

IMAGE_KINDS = {"image_cnn": ImageCNN}
SPEECH_KINDS = {f"speech_{kind}": model for kind, model in models.SPEECH_MODELS.items()}
SILENCE = 1 / 32768  # peak below one step of 16 bits
PICTURES_PER_PASS = 256
CLIPS_PER_PASS = 32
SAMPLES_PER_PASS = 512_000
GOLDEN_TOLERANCE = 1e-4
GOLDEN_SAMPLES = 64


@dataclass(frozen=True)
class Separated:
    """What the extractor finds before any word is judged present or absent.

    estimates (n, samples) at the model's rate and the mixtures' level; presence (n,) and activity (n, frames)
    probabilities.
    """

    estimates: np.ndarray
    presence: np.ndarray
    activity: np.ndarray


class Predictor:
    """Answers about pictures and recordings with three models; keeps no state between calls, so threads may share it.

    Pictures are uint8 (h, w, c) of any size, grey or RGB; recordings float32 (samples,) of one channel at any rate.
    Decoding happens outside (ml.media). An answer is the same alone and in a batch, within 1e-5.
    """

    def __init__(
        self, image: Path, speech: Path, extractor: Path, digest: str, device: str, goldens: Sequence[GoldenRequest]
    ):
        eye, image_card = models.load_model(Path(image), device, IMAGE_KINDS)
        ear, speech_card = models.load_model(Path(speech), device, SPEECH_KINDS)
        self._image, self._speech = cast(ImageCNN, eye), cast(SpeechCNN | SpeechRecurrent, ear)
        self._extractor, extractor_card = load_extractor(Path(extractor), device)
        self.cards = dict(zip(PARTS, (image_card, speech_card, extractor_card), strict=True))
        self.digest, self.device = digest, device
        self.image_classes: tuple[str, ...] = tuple(image_card["classes"])
        self.speech_classes: tuple[str, ...] = tuple(speech_card["classes"])
        self.labels: tuple[str, ...] = self._extractor.labels
        self.sample_rate_hz: int = self._extractor.sample_rate_hz
        self.hop_s = self._extractor.hop_samples / self.sample_rate_hz
        self.presence_threshold: float = extractor_card["presence_threshold"]
        self._rule = IntervalRule.of(extractor_card["activity_threshold"])
        self._log_mel = LogMel(speech_card["sample_rate_hz"], speech_card["arguments"]["n_mels"]).to(device)
        self._goldens = tuple(goldens)
        self._require_one_rate(speech_card["sample_rate_hz"])

    @classmethod
    def from_models(cls, image: Path, speech: Path, extractor: Path, device: str = "cpu") -> Predictor:
        """A predictor over three model folders; UserError where one is incomplete, changed or does not fit the rest."""
        return cls(image, speech, extractor, models_digest(image, speech, extractor), device, ())

    @classmethod
    def load(cls, bundle: Path, device: str = "cpu") -> Predictor:
        """A predictor over a bundle, every file of which is verified first; UserError naming the file that fails."""
        digest = verify_bundle(bundle)["digest"]
        folders = [Path(bundle) / part for part in PARTS]
        return cls(*folders, digest=digest, device=device, goldens=read_goldens(bundle))

    def _require_one_rate(self, speech_rate_hz: int) -> None:
        if speech_rate_hz != self.sample_rate_hz:
            raise UserError(
                f"speech_classifier at {speech_rate_hz} Hz: expected the extractor's {self.sample_rate_hz} Hz"
            )

    # One picture, one recording, both

    def classify_image(self, pixels: np.ndarray) -> Picture:
        """What is pictured in pixels uint8 (h, w, c), where its ink lies, and the classifier's embedding."""
        posteriors, embeddings = self._see([checked_picture(pixels)])
        probabilities = dict(zip(self.image_classes, posteriors[0].tolist(), strict=False))
        best = int(posteriors[0].argmax())
        label = self.image_classes[best] if best < len(self.image_classes) else None
        box = ink_box(pixels)
        objects = [PicturedObject(label, probabilities[label], box)] if label is not None and box is not None else []
        return Picture(label, probabilities, objects, embeddings[0])

    def recognize_speech(self, waveform: np.ndarray, rate_hz: int) -> Recognition:
        """Which word a recording (samples,) says as a whole, and every word that the extractor finds in it.

        A silent recording has no label, equal probabilities and no words.
        """
        sound = self.at_model_rate(waveform, rate_hz)
        posteriors, embeddings = self._hear([sound])
        silent = _is_silent(sound)
        shares = np.full_like(posteriors[0], 1 / posteriors.shape[1]) if silent else posteriors[0]
        label = None if silent else self.speech_classes[int(shares.argmax())]
        words = [] if silent else self._words(sound, len(waveform) / rate_hz)
        return Recognition(label, dict(zip(self.speech_classes, shares.tolist(), strict=True)), words, embeddings[0])

    def extract(self, pixels: np.ndarray, waveform: np.ndarray, rate_hz: int) -> Extraction:
        """The pictured word's presence, intervals and own sound in a recording (samples,).

        The estimate has the recording's length, rate and level. What is not known, not spoken by anyone in training, or
        asked of silence is absent with presence 0.
        """
        pictured = self.classify_image(pixels)
        sound = self.at_model_rate(waveform, rate_hz)
        nothing = Extraction(pictured, False, 0.0, [], None, np.zeros(len(waveform), np.float32), rate_hz)
        if pictured.label not in self.labels or _is_silent(sound):
            return nothing
        query = np.array([[pictured.probabilities[label] for label in self.labels]], np.float32)
        found = self.separate(sound[None], query)
        presence, intervals = float(found.presence[0]), self.intervals(found.activity[0], len(waveform) / rate_hz)
        if presence <= self.presence_threshold or not intervals:
            return Extraction(pictured, False, presence, [], None, nothing.estimate, rate_hz)
        [heard] = self.heard(found.estimates, [intervals])
        estimate = _of_length(media.resample(found.estimates[0], self.sample_rate_hz, rate_hz), len(waveform))
        return Extraction(pictured, True, presence, intervals, heard, estimate, rate_hz)

    # Batches

    def classify_images(self, pixels: np.ndarray) -> np.ndarray:
        """Posteriors (n, classes + 1) of pixels uint8 (n, h, w, c); the last column is "nothing known"."""
        return self._see(pixels)[0]

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeddings (n, d) float32 of pixels uint8 (n, h, w, c)."""
        return self._see(pixels)[1]

    def recognize_batch(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Posteriors (n, classes) of waveforms (samples,) at the model's rate, of any lengths."""
        return self._hear(waveforms)[0]

    def embed_speech(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings (n, d) float32 of waveforms (samples,) at the model's rate, of any lengths."""
        return self._hear(waveforms)[1]

    def queries(self, posteriors: np.ndarray) -> np.ndarray:
        """Queries (n, labels) for `separate` from posteriors (n, classes + 1) of `classify_images`."""
        return query_of(torch.from_numpy(posteriors), self.image_classes, self.labels).numpy()

    @torch.inference_mode()
    def separate(self, mixtures: np.ndarray, queries: np.ndarray) -> Separated:
        """What the extractor finds in mixtures (n, samples) at the model's rate for queries (n, labels)."""
        per_pass = max(1, SAMPLES_PER_PASS // mixtures.shape[1])
        parts = []
        for start in range(0, len(mixtures), per_pass):
            mixture = self._tensor(mixtures[start : start + per_pass])
            output = self._extractor(mixture, self._tensor(queries[start : start + per_pass]))
            presence, activity = output.presence_logits.sigmoid(), output.activity_logits.sigmoid()
            parts.append((output.estimate.cpu(), presence.cpu(), activity.cpu()))
        return Separated(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))

    @torch.inference_mode()
    def listen(self, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Presence (labels,) and activity (labels, frames) of every label in a sound (samples,) at the model's rate.

        They are what `separate` finds for each label alone.
        """
        nothing = torch.zeros(1, len(self.labels), device=self.device)
        output = self._extractor(self._tensor(sound[None]), nothing)
        return output.word_presence[0].sigmoid().cpu().numpy(), output.word_activity[0].sigmoid().cpu().numpy()

    def intervals(self, activity: np.ndarray, duration_s: float) -> list[Interval]:
        """Intervals of the activity (frames,) of a recording of that length."""
        return active_intervals(activity, self.hop_s, duration_s, self._rule)

    def heard(self, estimates: np.ndarray, intervals: Sequence[Sequence[Interval]]) -> list[Heard | None]:
        """The word that each estimate (n, samples) says in its surest interval; None where it has none."""
        best = [max(spans, key=lambda span: span.score, default=None) for spans in intervals]
        cuts = [self._cut(estimate, span) for estimate, span in zip(estimates, best, strict=True) if span is not None]
        answers: Iterator[np.ndarray] = iter(self.recognize_batch(cuts) if cuts else ())
        return [None if span is None else self._heard_of(next(answers)) for span in best]

    # Golden requests

    def golden(self, picture: bytes, recording: bytes) -> GoldenRequest:
        """A picture and a recording, encoded, with this predictor's figures for them."""
        return GoldenRequest(picture, recording, self._golden_figures(picture, recording))

    def check_golden(self) -> None:
        """Raises UserError unless every golden request of the bundle gets the figures stored with it, within 1e-4."""
        if not self._goldens:
            raise UserError(f"bundle {self.digest[:12]}: holds no golden requests to check itself by")
        for index, golden in enumerate(self._goldens):
            _require_equal(
                self._golden_figures(golden.picture, golden.recording), golden.expected, f"golden request {index}"
            )

    def _golden_figures(self, picture: bytes, recording: bytes) -> dict[str, list[float]]:
        """The continuous figures behind an answer, from before any threshold."""
        posteriors = self.classify_images(media.decode_picture(picture)[None])
        sound = self.at_model_rate(*media.decode_recording(recording))
        found = self.separate(sound[None], self.queries(posteriors))
        places = np.linspace(0, len(sound) - 1, GOLDEN_SAMPLES).round().astype(int)
        return {
            "image_posteriors": posteriors[0].tolist(),
            "speech_posteriors": self.recognize_batch([sound])[0].tolist(),
            "presence": found.presence.tolist(),
            "activity": found.activity[0].tolist(),
            "estimate": found.estimates[0, places].tolist(),
        }

    # Parts

    def at_model_rate(self, waveform: np.ndarray, rate_hz: int) -> np.ndarray:
        """A recording, checked, at the model's rate and at least one window long."""
        sound = media.resample(checked_recording(waveform, rate_hz), rate_hz, self.sample_rate_hz)
        return _of_length(sound, max(len(sound), self._extractor.window_samples))

    @torch.inference_mode()
    def _see(self, pixels: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Posteriors and embeddings of pictures."""
        card = self.cards["image_classifier"]
        shape = card["arguments"]["side"], card["arguments"]["channels_in"]
        parts = []
        for start in range(0, len(pixels), PICTURES_PER_PASS):
            fitted = [fit_picture(one, *shape) for one in pixels[start : start + PICTURES_PER_PASS]]
            pictures = to_pictures(torch.from_numpy(np.stack(fitted)).to(self.device))
            parts.append(_answers(self._image.head, self._image.embed(pictures), card))
        return _joined(parts)

    @torch.inference_mode()
    def _hear(self, waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Posteriors and embeddings of recordings; those of like length share a pass, so that little is padded."""
        card = self.cards["speech_classifier"]
        order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        parts = []
        for start in range(0, len(order), CLIPS_PER_PASS):
            clips = [waveforms[index] for index in order[start : start + CLIPS_PER_PASS]]
            log_mel, frames = self._log_mel(*self._padded(clips))
            parts.append(_answers(self._speech.head, self._speech.embed(log_mel, frames), card))
        back = np.argsort(order)
        posteriors, embeddings = _joined(parts)
        return posteriors[back], embeddings[back]

    def _padded(self, clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        lengths = [len(clip) for clip in clips]
        batch = np.zeros((len(clips), max(lengths)), np.float32)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)] = clip
        return self._tensor(batch), torch.tensor(lengths, device=self.device)

    def _words(self, sound: np.ndarray, duration_s: float) -> list[Word]:
        """The words of a recording at the model's rate."""
        words = [
            Word(label, float(presence) * span.score, span.start_s, span.end_s)
            for label, presence, activity in zip(self.labels, *self.listen(sound), strict=True)
            if presence > self.presence_threshold
            for span in self.intervals(activity, duration_s)
        ]
        return without_conflicts(words)

    def _cut(self, estimate: np.ndarray, span: Interval) -> np.ndarray:
        start, end = (round(edge_s * self.sample_rate_hz) for edge_s in (span.start_s, span.end_s))
        return estimate[start:end]

    def _heard_of(self, posteriors: np.ndarray) -> Heard:
        best = int(posteriors.argmax())
        return Heard(self.speech_classes[best], float(posteriors[best]))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)


def checked_picture(pixels: np.ndarray) -> np.ndarray:
    """The picture itself; UserError unless it is uint8 (h, w, 1 or 3) with at least one pixel."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UserError("picture: expected an array of 8-bit pixels (height, width, channels)")
    if 0 in pixels.shape or pixels.shape[2] not in (1, 3):
        raise UserError(f"picture: expected pixels of 1 or 3 channels, got shape {pixels.shape}")
    return pixels


def checked_recording(waveform: np.ndarray, rate_hz: int) -> np.ndarray:
    """The recording as float32; UserError unless it is one channel of finite samples at a positive whole rate."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise UserError(f"recording: expected one channel (samples,), got shape {waveform.shape}")
    if not len(waveform):
        raise UserError("recording: expected at least one sample, got none")
    if not np.issubdtype(waveform.dtype, np.floating) or not np.isfinite(waveform).all():
        raise UserError(
            "recording: expected finite floating-point samples, got something else (NaN, infinity or integers)"
        )
    if int(rate_hz) != rate_hz or rate_hz < 1:
        raise UserError(f"recording: expected a rate in whole Hz from 1 up, got {rate_hz!r}")
    return waveform.astype(np.float32, copy=False)


def fit_picture(pixels: np.ndarray, side: int, channels: int) -> np.ndarray:
    """pixels uint8 (h, w, c) as (side, side, channels): grey by the luminance of ITU-R BT.601, colour by repetition."""
    if pixels.shape[2] == 3 and channels == 1:
        pixels = (pixels @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None]
    elif pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels if pixels.shape[:2] == (side, side) else media.resize_square(pixels, side)


def _answers(head: nn.Module, embedding: Tensor, card: Mapping) -> tuple[Tensor, Tensor]:
    """Calibrated posteriors and the embedding they come from."""
    posteriors = (head(embedding).float() / card["temperature"]).softmax(dim=1)
    return posteriors.cpu(), embedding.cpu()


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return first, second


def _is_silent(sound: np.ndarray) -> bool:
    return float(np.abs(sound).max()) < SILENCE


def _of_length(waveform: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` of a waveform, followed by zeros where it has fewer."""
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))


def _require_equal(got: Mapping, expected: Mapping, name: str) -> None:
    for key, value in expected.items():
        new, old = np.asarray(got[key]), np.asarray(value)
        if new.shape != old.shape or not np.allclose(new, old, rtol=0, atol=GOLDEN_TOLERANCE):
            raise UserError(
                f"{name}: {key} differs from the answer stored in the bundle by more than {GOLDEN_TOLERANCE}"
            )
