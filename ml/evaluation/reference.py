"""Tables for others: the classifiers' answers on the test split, and the reference for live answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.datasets import ImageSet, SpeechSet
from ml.evaluation.recognition import Answers
from ml.files import whole_file
from ml.predictor import Predictor

REFERENCE_ROWS = 500  # of every endpoint
REFERENCE_SPLITS = ("validation", "gate")  # nothing was trained on either
VECTOR = pa.list_(pa.float32())
PROBABILITIES = pa.map_(pa.string(), pa.float32())
IMAGE_FACTS = {
    "image_brightness": "brightness",
    "image_bright_share": "bright_share",
    "image_contrast": "contrast",
    "image_blur": "blur",
}
AUDIO_FACTS = {
    "audio_loudness_db": "loudness_db",
    "audio_snr_db": "snr_db",
    "audio_bandwidth_hz": "bandwidth_hz",
    "audio_clipping": "clipping_share",
    "audio_duration_s": "duration_s",
}
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        *[(name, pa.string()) for name in ("endpoint", "model", "pictured")],
        ("pictured_confidence", pa.float64()),
        ("heard", pa.string()),
        ("heard_confidence", pa.float64()),
        ("presence", pa.float64()),
        ("present", pa.bool_()),
        *[(name, pa.float64()) for name in IMAGE_FACTS],
        ("image_objects", pa.int64()),
        *[(name, pa.float64()) for name in AUDIO_FACTS],
        ("image_embedding", VECTOR),
        ("speech_embedding", VECTOR),
        ("pictured_probabilities", PROBABILITIES),
        ("heard_probabilities", PROBABILITIES),
        ("latency_ms", pa.float64()),
        ("corrected_pictured", pa.string()),  # what the answers should have been, as corrections would say it
        ("corrected_heard", pa.string()),
    ]
)


def write_predictions(all_answers: Iterable[Answers], file: Path) -> None:
    """One row per item: modality, model, id, label, predicted (null: nothing known), confidence, split."""
    tables = [_predictions(answers) for answers in all_answers]
    with whole_file(file) as draft:
        pq.write_table(pa.concat_tables(tables), draft)


def _predictions(answers: Answers) -> pa.Table:
    names = [*answers.classes, None]  # -1, a class the model does not know, is the last one too
    count = len(answers.labels)
    columns = {
        "modality": [answers.modality] * count,
        "model": [answers.model] * count,
        "id": answers.ids.tolist(),
        "label": [names[label] for label in answers.labels],
        "predicted": [names[label] for label in answers.predicted],
        "confidence": answers.confidences.astype(float).tolist(),
        "split": [answers.split] * count,
    }
    types = {name: pa.float64() if name == "confidence" else pa.string() for name in columns}
    return pa.table(columns, pa.schema(types))


def write_reference(
    predictor: Predictor,
    images: ImageSet,
    speech: SpeechSet,
    seed: int,
    file: Path,
    facts: Mapping[str, pa.Table] | None = None,
) -> None:
    """The predictor's answers to items of validation and gate, in the schema of the prediction log, with their labels.

    Up to 500 rows each of classify_image, recognize_speech and extract; half of the last ask for the word that is
    spoken. facts: the measured facts of "images" and "audio", by their column `id`; without them these columns are
    null, as are time and latency always.
    """
    rng = np.random.default_rng(seed)
    images, speech = images.where(*REFERENCE_SPLITS), speech.where(*REFERENCE_SPLITS)
    pictures, clips = _some(rng, len(images)), _some(rng, len(speech))
    known = {name: _by_id(table) for name, table in (facts or {}).items()}
    measured = (
        [_measured(known, "images", str(images.ids[row]), IMAGE_FACTS) for row in pictures],
        [_measured(known, "audio", str(speech.ids[row]), AUDIO_FACTS) for row in clips],
    )
    answers = predictor.hear([speech.clip(clip) for clip in clips])
    rows = [
        *_seen(predictor, images, pictures, measured[0]),
        *_heard(predictor, speech, clips, answers, measured[1]),
        *_extracted(predictor, images, speech, pictures, clips, answers[1], measured),
    ]
    for number, row in enumerate(rows):
        row |= {"model": predictor.digest, "request_id": f"reference-{number}"}
    with whole_file(file) as draft:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), draft)


def _some(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.permutation(count)[:REFERENCE_ROWS]


def _by_id(facts: pa.Table) -> dict[str, dict]:
    wanted = [name for name in ("id", *IMAGE_FACTS.values(), *AUDIO_FACTS.values()) if name in facts.column_names]
    return {row["id"]: row for row in facts.select(wanted).to_pylist()}


def _measured(known: Mapping[str, dict], modality: str, item: str, names: Mapping[str, str]) -> dict:
    facts = known.get(modality, {}).get(item, {})
    return {column: facts.get(name) for column, name in names.items()}


def _seen(predictor: Predictor, images: ImageSet, rows: np.ndarray, measured: list[dict]) -> Iterator[dict]:
    pixels, names = np.asarray(images.pixels)[rows], (*predictor.image_classes, None)
    posteriors, embeddings = predictor.see(pixels)
    for row, known, embedding, facts in zip(rows, posteriors, embeddings, measured, strict=True):
        yield {
            "endpoint": "classify_image",
            "pictured": names[known.argmax()],
            "pictured_confidence": float(known[:-1].max()),
            "pictured_probabilities": list(zip(predictor.image_classes, known[:-1].tolist(), strict=True)),
            "image_embedding": embedding,
            "corrected_pictured": images.classes[images.labels[row]],
            **facts,
        }


def _heard(
    predictor: Predictor,
    speech: SpeechSet,
    rows: np.ndarray,
    answers: tuple[np.ndarray, np.ndarray],
    measured: list[dict],
) -> Iterator[dict]:
    """answers: posteriors (n, classes) and embeddings (n, d) of the clips."""
    for row, known, embedding, facts in zip(rows, *answers, measured, strict=True):
        yield {
            "endpoint": "recognize_speech",
            "heard": predictor.speech_classes[known.argmax()],
            "heard_confidence": float(known.max()),
            "heard_probabilities": list(zip(predictor.speech_classes, known.tolist(), strict=True)),
            "speech_embedding": embedding,
            "corrected_heard": speech.classes[speech.labels[row]],
            **facts,
        }


def _extracted(
    predictor: Predictor,
    images: ImageSet,
    speech: SpeechSet,
    pictures: np.ndarray,
    clips: np.ndarray,
    embeddings: np.ndarray,
    measured: tuple[list[dict], list[dict]],
) -> Iterator[dict]:
    """embeddings (n, d): of the whole clips, as the service logs them."""
    names = np.array(images.classes)[images.labels[pictures]]
    for number, clip in enumerate(clips):
        spoken = np.flatnonzero(names == speech.classes[speech.labels[clip]])
        place = spoken[number % len(spoken)] if number % 2 and len(spoken) else number % len(pictures)
        pixels = np.asarray(images.pixels[pictures[place]])
        answer = predictor.extract(pixels, speech.clip(clip), speech.sample_rate_hz)
        yield {
            "endpoint": "extract",
            "pictured": answer.pictured.label,
            "pictured_confidence": max(answer.pictured.probabilities.values()),
            "pictured_probabilities": list(answer.pictured.probabilities.items()),
            "image_embedding": answer.pictured.embedding,
            "speech_embedding": embeddings[number],
            "heard": answer.heard.label if answer.heard else None,
            "heard_confidence": answer.heard.probability if answer.heard else None,
            "heard_probabilities": list(answer.heard.probabilities.items()) if answer.heard else None,
            "presence": answer.presence,
            "present": answer.present,
            "corrected_pictured": str(names[place]),
            "corrected_heard": speech.classes[speech.labels[clip]] if answer.heard else None,
            **measured[0][place],
            **measured[1][number],
        }
