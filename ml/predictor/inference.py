"""The only inference path: evaluation, service and command line all ask a Predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ml import media
from ml.config import UserError
from ml.extraction import query_of
from ml.predictor.answers import Extraction, Finding, Heard, Interval, Picture, Recognition, Word
from ml.predictor.bundle import PARTS, GoldenRequest, models_digest, read_goldens, verify_bundle
from ml.predictor.classifying import PictureClassifier, SpeechClassifier
from ml.predictor.separating import Located, Separated, Separator
from ml.predictor.spans import SpanTracker, located, told
from ml.predictor.streaming import LONGEST_WORD_S, Sound, SurestStretch, of_length, resampled, stretch
from ml.spotting import FIRST_SCORE

GOLDEN_TOLERANCE = 1e-4
GOLDEN_SAMPLES = 64


class Predictor:
    """Answers about pictures and recordings with three models; keeps no state between calls, so threads may share it.

    Pictures are uint8 (h, w, c) of any size, grey or RGB; recordings float32 (samples,) of one channel at any rate, of
    any length. Decoding happens outside (ml.media). An answer is the same alone and in a batch, within 1e-5; and the
    same in one piece and block by block, within 1e-4.
    """

    def __init__(
        self, image: Path, speech: Path, extractor: Path, digest: str, device: str, goldens: Sequence[GoldenRequest]
    ):
        if torch.device(device).type == "cuda":  # its ten bits of mantissa would not give the answers of a processor
            torch.backends.cudnn.allow_tf32 = False
        self.see, self.hear = PictureClassifier(image, device), SpeechClassifier(speech, device)
        self._separator = Separator(extractor, device)
        cards = self.see.card, self.hear.card, self._separator.card
        self.cards = dict(zip(PARTS, cards, strict=True))
        self.digest, self.device = digest, device
        self.image_classes: tuple[str, ...] = tuple(self.see.card["classes"])
        self.speech_classes: tuple[str, ...] = tuple(self.hear.card["classes"])
        self.labels: tuple[str, ...] = self._separator.labels
        self.sample_rate_hz: int = self._separator.sample_rate_hz
        self.hop_s = self._separator.hop_s
        self.presence_threshold, self._interval_threshold, self._word_threshold = self._separator.thresholds
        self._goldens = tuple(goldens)
        self._require_one_rate(self.hear.card["sample_rate_hz"])

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
        """What is pictured in pixels uint8 (h, w, c), each object and where it lies, and the classifier's embedding."""
        return self.see.picture(pixels)

    def recognize_speech(self, waveform: np.ndarray, rate_hz: int) -> Recognition:
        """`recognize_stream` of a recording (samples,) in one block."""
        return self.recognize_stream([waveform], rate_hz)

    def extract(self, pixels: np.ndarray, waveform: np.ndarray, rate_hz: int, number: int | None = None) -> Extraction:
        """The pictured word's presence, intervals and own sound in a recording (samples,).

        number: which of the picture's objects is asked for; the largest where it is None.
        The estimate has the recording's length, rate and level. What is not known, not spoken by anyone in training, or
        asked of silence is absent with presence 0.
        """
        blocks: list[np.ndarray] = []
        pictured = self.classify_image(pixels)
        pictured = pictured if number is None else pictured.of_object(number)
        found = self.extract_stream(pictured, [waveform], rate_hz, blocks.append)
        estimate = np.zeros(len(waveform), np.float32)
        if found.present:
            estimate = np.concatenate(list(self.restored(blocks, int(rate_hz), len(waveform))))
        return Extraction(**vars(found), estimate=estimate, rate_hz=int(rate_hz))

    # A recording of any length, in constant memory

    def recognize_stream(self, blocks: Iterable[np.ndarray], rate_hz: int) -> Recognition:
        """Which word a recording says as a whole, and every word that the extractor finds in it.

        blocks: as `streaming.Sound` takes them; gone through up to three times. A silent recording has no label, equal
        probabilities and no words. One of more than a minute is not one word: its label and probabilities are those of
        the surest word in it, and where there is none they are those of silence.
        """
        sound = self._sound(blocks, rate_hz)
        words = [] if sound.is_silent else self._words(sound)
        label_it = not sound.is_silent and bool(sound.is_short or words)
        posteriors, embeddings = self.hear([self._to_classify(sound, words)])
        shares = posteriors[0] if label_it else np.full_like(posteriors[0], 1 / posteriors.shape[1])
        label = self.speech_classes[int(shares.argmax())] if label_it else None
        return Recognition(label, dict(zip(self.speech_classes, shares.tolist(), strict=True)), embeddings[0], words)

    def extract_stream(
        self,
        pictured: Picture,
        blocks: Iterable[np.ndarray],
        rate_hz: int,
        write: Callable[[np.ndarray], object] | None = None,
    ) -> Finding:
        """Whether and when a recording says what is pictured, an answer of `classify_image`.

        blocks: as `streaming.Sound` takes them; gone through twice. write is handed the word's own sound in blocks of
        float32 (samples,) at the model's rate, for `restored`; it is to be silence where the word turns out absent.
        """
        sound = self._sound(blocks, rate_hz)
        if pictured.label not in self.labels or sound.is_silent:
            return Finding(pictured, False, 0.0, [], None, sound.duration_s)
        query = np.array([pictured.probabilities[label] for label in self.labels], np.float32)
        tracker = SpanTracker(self.hop_s, sound.duration_s, FIRST_SCORE)
        surest, presence = SurestStretch(self.sample_rate_hz), 0.0
        intervals: list[Interval] = []
        for part in self._separator.stream(sound, query):
            closed = tracker.feed(part.places)
            if part.last:
                closed += tracker.finish()
            surest.feed(part.estimate, closed, tracker.settled_s)
            intervals += [span for span in closed if span.score > self._interval_threshold]
            presence = part.presence
            if write:
                write(part.estimate)
        if presence <= self.presence_threshold or surest.span is None:
            return Finding(pictured, False, presence, [], None, sound.duration_s)
        heard = self._heard_of(self.recognize_batch([surest.samples])[0])
        spans = told(intervals or [surest.span], self._interval_threshold)
        return Finding(pictured, True, presence, spans, heard, sound.duration_s)

    def restored(self, blocks: Iterable[np.ndarray], rate_hz: int, samples: int) -> Iterator[np.ndarray]:
        """What `extract_stream` wrote, in blocks at the recording's rate and with as many samples as it."""
        return of_length(resampled(blocks, self.sample_rate_hz, rate_hz), samples)

    # Batches

    def classify_images(self, pixels: np.ndarray) -> np.ndarray:
        """Posteriors (n, classes + 1) of pixels uint8 (n, h, w, c); the last column is "nothing known"."""
        return self.see(pixels)[0]

    def recognize_batch(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Posteriors (n, classes) of waveforms (samples,) at the model's rate, of any lengths."""
        return self.hear(waveforms)[0]

    def embed_recording(self, waveform: np.ndarray, rate_hz: int) -> np.ndarray:
        """Embedding (d,) float32 of a whole recording (samples,), whatever it holds; it is to be under a minute."""
        return self.hear([self.at_model_rate(waveform, rate_hz)])[1][0]

    def queries(self, posteriors: np.ndarray) -> np.ndarray:
        """Queries (n, labels) for `separate` from posteriors (n, classes + 1) of `classify_images`."""
        return query_of(torch.from_numpy(posteriors), self.image_classes, self.labels).numpy()

    def separate(self, mixtures: np.ndarray, queries: np.ndarray) -> Separated:
        """What the extractor finds in mixtures (n, samples) at the model's rate for queries (n, labels)."""
        return self._separator.separate(mixtures, queries)

    def locate(self, mixtures: np.ndarray, queries: np.ndarray) -> Located:
        """Whether and where mixtures (n, samples) say what is asked for: `separate` without the sounds."""
        return self._separator.locate(mixtures, queries)

    def listen(self, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Presence (labels,) and places (labels, 4, frames) of every label in a sound (samples,) at the model's rate.

        They are what `separate` finds for each label alone.
        """
        parts = list(self._separator.listen(self._sound([sound], self.sample_rate_hz)))
        return parts[-1].word_presence, np.concatenate([part.word_places[:, :4] for part in parts], axis=2)

    def words(self, sound: np.ndarray) -> list[Word]:
        """Every word that is found in a sound (samples,) at the model's rate, as `recognize_speech` gives them."""
        return self._words(self._sound([sound], self.sample_rate_hz))

    def candidates(self, places: np.ndarray, duration_s: float) -> list[Interval]:
        """All that may be a word in the places (4, frames) of a recording of that length, however unsure."""
        return located(places, self.hop_s, duration_s, FIRST_SCORE)

    def intervals(self, places: np.ndarray, duration_s: float) -> list[Interval]:
        """Of `candidates` those that are told of a word that is present."""
        return told(self.candidates(places, duration_s), self._interval_threshold)

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
            "centres": found.places[0, 0].tolist(),
            "estimate": found.estimates[0, places].tolist(),
        }

    # Parts

    def at_model_rate(self, waveform: np.ndarray, rate_hz: int) -> np.ndarray:
        """A recording, checked, at the model's rate and at least one window long."""
        return self._sound([waveform], rate_hz).whole()

    def _sound(self, blocks: Iterable[np.ndarray], rate_hz: int) -> Sound:
        return Sound(blocks, rate_hz, self.sample_rate_hz, self._separator.window_samples)

    def _words(self, sound: Sound) -> list[Word]:
        """The words of a recording in order of time; several may lie on one stretch, for words may be said at once."""
        trackers = [SpanTracker(self.hop_s, sound.duration_s, self._word_threshold) for _ in self.labels]
        words: list[Word] = []
        for part in self._separator.listen(sound):
            for label, tracker, places in zip(self.labels, trackers, part.word_places, strict=True):
                found = tracker.feed(places) + (tracker.finish() if part.last else [])
                words += [Word(label, span.score, span.start_s, span.end_s) for span in found]
        return sorted(words, key=lambda word: (word.start_s, word.end_s, word.label))

    def _to_classify(self, sound: Sound, words: list[Word]) -> np.ndarray:
        if sound.is_short:
            return sound.whole()
        surest = max(words, key=lambda word: word.probability, default=Word("", 0.0, 0.0, LONGEST_WORD_S))
        return sound.between(*stretch(surest.start_s, surest.end_s, self.sample_rate_hz))

    def _cut(self, estimate: np.ndarray, span: Interval) -> np.ndarray:
        return estimate[slice(*stretch(span.start_s, span.end_s, self.sample_rate_hz))]

    def _heard_of(self, posteriors: np.ndarray) -> Heard:
        best = int(posteriors.argmax())
        probabilities = dict(zip(self.speech_classes, posteriors.tolist(), strict=True))
        return Heard(self.speech_classes[best], float(posteriors[best]), probabilities)


def _require_equal(got: Mapping, expected: Mapping, name: str) -> None:
    for key, value in expected.items():
        new, old = np.asarray(got[key]), np.asarray(value)
        if new.shape != old.shape or not np.allclose(new, old, rtol=0, atol=GOLDEN_TOLERANCE):
            raise UserError(
                f"{name}: {key} differs from the answer stored in the bundle by more than {GOLDEN_TOLERANCE}"
            )
