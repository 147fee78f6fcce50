"""A few extractions to look at and listen to, with a page that plays them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml import media
from ml.files import whole_file


@dataclass(frozen=True)
class Example:
    """One scene with its answer; waveforms (samples,) float32 at rate_hz, intervals in seconds, picture (h, w, c)."""

    label: str
    bucket: str
    picture: np.ndarray
    mixture: np.ndarray
    target: np.ndarray
    estimate: np.ndarray
    rate_hz: int
    true_s: Sequence[tuple[float, float]]
    found_s: Sequence[tuple[float, float]]
    presence: float
    heard: str | None
    improvement_db: float


def write_examples(examples: Sequence[Example], out: Path) -> Path:
    """Write NN_picture.png, NN_{mixture,target,estimate}.wav and index.html to `out`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples):
        _write(out / f"{number:02d}_picture.png", media.encode_png(example.picture))
        for name in ("mixture", "target", "estimate"):
            sound = media.encode_wav(getattr(example, name), example.rate_hz)
            _write(out / f"{number:02d}_{name}.wav", sound)
    page = out / "index.html"
    _write(page, _page(examples).encode())
    return page


def _write(file: Path, content: bytes) -> None:
    with whole_file(file) as new:
        new.write_bytes(content)


def _page(examples: Sequence[Example]) -> str:
    rows = "\n".join(_row(number, example) for number, example in enumerate(examples))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SeeHear: extractions to listen to</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
img {{ width: 4.5rem; image-rendering: pixelated }} td, th {{ padding: .4rem .7rem; text-align: left }}
audio {{ width: 13rem }} table {{ border-collapse: collapse }} tr + tr {{ border-top: 1px solid #ccc }}
</style>
<h1>Extractions to listen to</h1>
<p>The picture says which word to look for in the mixture. The estimate is what the extractor gave back; the target is
the word as it was before it was mixed.</p>
<table>
<tr><th>picture<th>scene<th>mixture<th>estimate<th>target<th>found
{rows}
</table></html>
"""


def _row(number: int, example: Example) -> str:
    players = "".join(
        f'<td><audio controls preload="none" src="{number:02d}_{name}.wav"></audio>'
        for name in ("mixture", "estimate", "target")
    )
    label, heard = html.escape(example.label), html.escape(example.heard or "nothing")
    spans = ", ".join(f"{start:.2f}–{end:.2f} s" for start, end in example.found_s) or "nowhere"
    return (
        f'<tr><td><img src="{number:02d}_picture.png" alt="{label}"><td>{label}, {example.bucket}{players}'
        f"<td>{spans}; heard {heard}; presence {example.presence:.2f}; {example.improvement_db:+.1f} dB"
    )
