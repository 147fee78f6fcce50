"""From corrections to data: only what was corrected with consent, is still kept and was reviewed becomes an item."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import commit_all, copy_checkout, project_environment
from test_adding import picture, sound, stored

from data_checks.drift.log import FEEDBACK_SCHEMA, LOG_SCHEMA
from ml.config import Paths, UserError
from ml.sources.shards import Item, Listing, added_shards, write_shards
from orchestration import feedback, reviewing
from orchestration.feedback import Correction
from orchestration.resources import CODE, Project
from serving.cli import apart
from serving.cli.group import end_with
from serving.keeping import KeptMedia

LABELS = {"images": ("a", "b"), "audio": ("a", "b")}
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def request(number: int) -> str:
    return f"{number:032x}"


def write_rows(folder: Path, rows: list[dict], schema: pa.Schema) -> None:
    file = folder / "date=2026-03-02" / "12-1-0.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"time": NOON, **row} for row in rows], schema), file)


def fill(paths: Paths) -> KeptMedia:
    """Answers 1 to 4 with kept pictures, 5 a word, 6 an extraction, 7 without what was sent, 9 of three things; all of
    them corrected."""
    media = KeptMedia(paths.prediction_log.parent / "media", 30)
    for number in range(1, 5):
        media.keep(request(number), {"image": picture(number + 60)})
    media.keep(request(5), {"audio": sound(65)})
    media.keep(request(6), {"image": picture(66), "audio": sound(66)})
    endpoint = dict.fromkeys(range(1, 5), "classify_image") | {5: "recognize_speech", 6: "extract", 7: "classify_image"}
    endpoint[9] = "classify_image"
    answers = [
        {"request_id": request(n), "endpoint": kind, "pictured": "a", "heard": "a", "image_objects": 3 if n == 9 else 1}
        for n, kind in endpoint.items()
    ]
    write_rows(paths.prediction_log, answers, LOG_SCHEMA)
    given = [
        {"request_id": request(1), "pictured": "b", "consent": True},
        {"request_id": request(2), "pictured": "b", "consent": False},
        {"request_id": request(3), "pictured": "zebra", "consent": True},
        {"request_id": request(4), "pictured": "a", "consent": True},
        {"request_id": request(5), "heard": "b", "consent": True},
        {"request_id": request(6), "heard": "b", "consent": True},
        {"request_id": request(7), "pictured": "b", "consent": True},
        {"request_id": request(8), "pictured": "b", "consent": True},
        {"request_id": request(9), "pictured": "b", "consent": True},
    ]
    write_rows(paths.prediction_log.parent / "feedback", given, FEEDBACK_SCHEMA)
    return media


def states(paths: Paths, media: KeptMedia) -> dict[int, str]:
    return {int(one.request_id, 16): one.state for one in feedback.corrections(paths, media, LABELS)}


def test_every_correction_has_a_state_that_says_why(tmp_path):
    paths = Paths(tmp_path, "folder")
    media = fill(paths)
    assert states(paths, media) == {
        1: "waiting",
        2: "no consent",
        3: "unknown label 'zebra'",
        4: "waiting",
        5: "waiting",
        6: "not one word: the recording came to /extract",
        7: "what was sent is not kept",
        8: "no such answer in the log",
        9: "not one thing: 3 were found in the picture",
    }
    assert states(paths, KeptMedia(tmp_path / "elsewhere", 30))[1] == "what was sent is not kept"


def test_a_decision_stays_whatever_comes_after(tmp_path):
    paths = Paths(tmp_path, "folder")
    media = fill(paths)
    first, second = (one for one in feedback.corrections(paths, media, LABELS) if int(one.request_id, 16) in (1, 4))
    feedback.decide(paths, feedback.REJECTED, [first])
    feedback.decide(paths, feedback.ACCEPTED, [second])
    assert {n: state for n, state in states(paths, media).items() if n in (1, 4, 5)} == {
        1: "rejected",
        4: "accepted",
        5: "waiting",
    }


def test_decisions_taken_at_once_are_all_remembered(tmp_path):
    paths = Paths(tmp_path, "folder")
    chosen = [Correction(request(n), "images", "a", "b", "now", feedback.WAITING) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: feedback.decide(paths, feedback.ACCEPTED, [one]), chosen))
    lines = (tmp_path / "data" / "feedback" / "decisions.jsonl").read_text().splitlines()
    assert {json.loads(line)["request_id"] for line in lines} == {one.request_id for one in chosen}


def test_a_file_of_corrections_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    paths = Paths(tmp_path, "folder")
    fill(paths)
    (damaged,) = (paths.prediction_log.parent / "feedback").rglob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:100])
    shutil.copy(CODE / "params.yaml", tmp_path)
    monkeypatch.setenv("SEEHEAR_ROOT", str(tmp_path))
    monkeypatch.setenv("SEEHEAR_SOURCE", "folder")
    assert reviewing.main(["list"]) == 1
    told = capsys.readouterr()
    assert told.out == "no corrections yet\n"
    assert damaged.name in told.err
    assert "what it holds is not seen" in told.err


@pytest.mark.parametrize("line", ["[]", "{}", "no JSON"])
def test_a_decision_that_cannot_be_read_is_named_with_its_line(tmp_path, line):
    paths = Paths(tmp_path, "folder")
    media = fill(paths)
    feedback.decide(paths, feedback.REJECTED, feedback.corrections(paths, media, LABELS)[:1])
    with (tmp_path / "data" / "feedback" / "decisions.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"decisions\.jsonl, line 2: expected a JSON object"):
        feedback.corrections(paths, media, LABELS)


@pytest.mark.parametrize(
    ("module", "words"),
    [("adding", ["remove", "images", "0"]), ("reviewing", ["list"]), ("rolling_back", ["a reason"])],
)
def test_a_fault_of_ours_is_not_taken_for_nothing_done(monkeypatch, module, words):
    monkeypatch.setattr(f"orchestration.{module}.project_root", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["apart", f"orchestration.{module}", *words])
    with pytest.raises(SystemExit) as end:
        end_with(apart.main)
    assert end.value.code == 70


def test_the_asset_shows_what_waits_and_why_the_rest_does_not(tmp_path):
    from orchestration.assets.monitoring import feedback as asset

    (tmp_path / "params.yaml").write_text((Path(__file__).resolve().parents[1] / "params.yaml").read_text())
    paths = Paths(tmp_path, "starter")
    fill(paths)
    meta = paths.prepared("images") / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"classes": ["a", "b"]}))
    result = dg.materialize([asset], resources={"project": Project(root=str(tmp_path))})
    (made,) = result.get_asset_materialization_events()
    shown = made.materialization.metadata
    assert shown["dagster/row_count"].value == 9
    rows = {record.data["state"]: record.data["corrections"] for record in shown["states"].records}
    assert rows["waiting"] == 2, "keep_media_days is 0 here, but only the service deletes"
    assert rows["what was sent is not kept"] == 1
    assert rows["no consent"] == 1


def seehear(root: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "serving.cli", "review", *words],
        cwd=root,
        env=project_environment(root) | {"SEEHEAR_SOURCE": "folder", "SEEHEAR_KEEP_MEDIA_DAYS": "30"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path) -> Path:
    """A fresh clone with two stored pictures and recordings, prepared labels, and what `fill` leaves."""
    root = copy_checkout(tmp_path / "project")
    commit_all(root)
    paths = Paths(root, "folder")
    for modality, content in (("images", picture), ("audio", sound)):
        items = [Item(f"{n}", content(n), "ab"[n % 2]) for n in range(2)]
        write_shards(paths.raw(modality), "folder", Listing(items, 2, "own"), shard_rows=4)
        paths.prepared(modality).mkdir(parents=True)
        (paths.prepared(modality) / "meta.json").write_text(json.dumps({"classes": ["a", "b"]}))
    fill(paths)
    return root


def test_the_command_lists_what_waits_and_refuses_what_cannot_be_accepted(project, monkeypatch, capsys):
    for name, value in {"ROOT": str(project), "SOURCE": "folder", "KEEP_MEDIA_DAYS": "30"}.items():
        monkeypatch.setenv(f"SEEHEAR_{name}", value)
    dead = project / "var" / ".review-dead" / "audio" / "a"
    dead.mkdir(parents=True)
    with feedback.as_folder(Paths(project, "folder"), feedback.kept_media(Paths(project, "folder")), []) as living:
        assert reviewing.main(["list"]) == 0
        assert list((project / "var").glob(".review-*")) == [living], "what a killed review left goes"
    listed = capsys.readouterr().out
    assert f"{request(1)}  images  a → b  2026-03-02T12:00:00+00:00" in listed
    assert "unknown label 'zebra': 1" in listed
    assert apart.main(["orchestration.reviewing", "accept", request(2), request(8)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"seehear: {request(2)}: no consent",
        f"seehear: {request(8)}: no such answer in the log",
    ]
    assert reviewing.main(["reject", request(2), request(1)]) == 0
    assert apart.main(["orchestration.reviewing", "accept", request(1)]) == 2
    assert capsys.readouterr().err == f"seehear: {request(1)}: rejected\n"


def test_what_is_accepted_is_a_labelled_item_under_dvc(project):
    done = seehear(project, "--accept", "all", "--new-label", "zebra")
    assert done.returncode == 0, done.stderr
    assert "images: 3 added (a 1, b 1, zebra 1)" in done.stdout
    assert "audio: 1 added (b 1)" in done.stdout
    paths = Paths(project, "folder")
    (shard,) = added_shards(paths, "images")
    assert shard.with_name(f"{shard.name}.dvc").exists()
    new = {name.rpartition("/")[2]: content for name, content in stored(paths).items() if "/" in name}
    assert new[request(1)] == (picture(61), "b")
    assert not list((project / "var").glob(".review-*"))
    decisions = [json.loads(line) for line in (project / "data" / "feedback" / "decisions.jsonl").open()]
    assert {row["request_id"]: row["decision"] for row in decisions} == {request(n): "accepted" for n in (1, 3, 4, 5)}
