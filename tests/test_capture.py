"""The prediction log: whole files, nothing lost while it can be kept, never in a request's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.capture import FEEDBACK_SCHEMA, PREDICTION_SCHEMA, RowLog, log_folders, measured

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def row(number: int = 0, **fields) -> dict:
    return {"request_id": f"{number:032x}", "endpoint": "extract", "time": NOON, **fields}


def ids(folder: Path) -> list[str]:
    return sorted(pq.read_table(folder)["request_id"].to_pylist()) if folder.exists() else []


@pytest.fixture
def quiet_log(tmp_path):
    """A log that flushes only when it is told to."""
    log = RowLog(tmp_path / "log", PREDICTION_SCHEMA, flush_rows=10_000, flush_s=3600)
    yield log
    log.close()


def test_a_flush_writes_one_whole_file_of_the_schema_under_its_day(quiet_log):
    quiet_log.record(row(1, pictured="seven", present=None, image_embedding=[0.5, 1.0]))
    assert quiet_log.flush()
    (file,) = (path for path in quiet_log.folder.rglob("*") if path.is_file())
    assert file.parent.name == "date=2026-03-04"
    assert file.name == f"12-{os.getpid()}-0.parquet"
    table = pq.read_table(file, partitioning=None)
    assert table.schema.equals(PREDICTION_SCHEMA)
    written = table.to_pylist()[0]
    assert written["pictured"] == "seven"
    assert written["present"] is None
    assert written["image_embedding"] == [0.5, 1.0]
    assert written["time"] == NOON


def test_rows_of_two_days_lie_in_two_folders(quiet_log):
    quiet_log.record(row(1, time=NOON))
    quiet_log.record(row(2, time=NOON + timedelta(days=1)))
    quiet_log.flush()
    assert sorted(path.name for path in quiet_log.folder.iterdir()) == ["date=2026-03-04", "date=2026-03-05"]
    assert len(ids(quiet_log.folder)) == 2


def test_an_earlier_file_is_never_overwritten(tmp_path):
    for number in range(3):  # three logs of one process start counting at the same place
        log = RowLog(tmp_path, PREDICTION_SCHEMA, flush_s=3600)
        log.record(row(number))
        log.close()
    assert len(ids(tmp_path)) == 3


def test_many_rows_start_a_flush_and_so_does_time(tmp_path):
    by_rows = RowLog(tmp_path / "rows", PREDICTION_SCHEMA, flush_rows=3, flush_s=3600)
    by_time = RowLog(tmp_path / "time", PREDICTION_SCHEMA, flush_rows=1000, flush_s=0.05)
    for number in range(3):
        by_rows.record(row(number))
    by_time.record(row(0))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (by_rows.written, by_time.written) != (3, 1):
        time.sleep(0.02)
    assert (by_rows.written, by_time.written) == (3, 1)
    by_rows.close()
    by_time.close()


def test_closing_writes_what_is_left(tmp_path):
    log = RowLog(tmp_path, FEEDBACK_SCHEMA, flush_s=3600)
    log.record({"request_id": "a" * 32, "pictured": "one", "heard": None, "consent": True})
    log.close()
    assert ids(tmp_path) == ["a" * 32]


@settings(max_examples=5, deadline=None)
@given(writers=st.integers(1, 6), each=st.integers(1, 60))
def test_rows_from_many_threads_are_each_written_once(tmp_path_factory, writers, each):
    log = RowLog(tmp_path_factory.mktemp("threads"), PREDICTION_SCHEMA, flush_rows=7, flush_s=0.01)

    def write(writer: int) -> None:
        for number in range(each):
            log.record(row(writer * 1000 + number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert ids(log.folder) == sorted(row(w * 1000 + n)["request_id"] for w in range(writers) for n in range(each))


def test_a_log_that_cannot_be_written_keeps_rows_and_writes_them_later(tmp_path):
    place = tmp_path / "log"
    place.write_text("a file stands where the folder should be")
    log = RowLog(place, PREDICTION_SCHEMA, flush_s=3600)
    log.record(row(1))
    assert not log.flush()
    assert log.dropped == 0
    place.unlink()
    assert log.flush()
    assert ids(place) == [row(1)["request_id"]]
    log.close()


def test_rows_beyond_the_bound_are_dropped_oldest_first_and_counted(tmp_path):
    place = tmp_path / "log"
    place.write_text("a file stands where the folder should be")
    told: list[int] = []
    log = RowLog(place, PREDICTION_SCHEMA, flush_rows=10_000, flush_s=3600, max_rows=5, on_dropped=told.append)
    for number in range(8):
        log.record(row(number))
    assert log.dropped == sum(told) == 3
    place.unlink()
    log.close()
    assert ids(place) == [row(number)["request_id"] for number in range(3, 8)]


def test_a_row_that_does_not_fit_is_dropped_and_holds_up_no_other(quiet_log):
    for number, loudness in enumerate((-20.0, "loud", -30.0)):
        quiet_log.record(row(number, audio_loudness_db=loudness))
    assert quiet_log.flush()
    assert ids(quiet_log.folder) == [row(0)["request_id"], row(2)["request_id"]]
    assert (quiet_log.written, quiet_log.dropped) == (2, 1)


WRITER = """
import itertools, pathlib, sys, time
from serving.capture import PREDICTION_SCHEMA, RowLog
log = RowLog(pathlib.Path(sys.argv[1]), PREDICTION_SCHEMA, flush_rows=50, flush_s=0.2, max_rows=10**9)
for number in itertools.count():
    log.record({"request_id": f"{number:032x}"})
    if number % 100 == 0:
        print(log.written, flush=True)
        time.sleep(0.001)
"""


def test_a_killed_process_loses_only_what_was_not_flushed_and_leaves_whole_files(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    written = next(int(line) for line in writer.stdout if int(line) >= 500)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    kept = ids(tmp_path / "log")  # reads every file whole
    assert len(kept) >= written
    assert kept == [f"{number:032x}" for number in range(len(kept))]


def test_closing_a_log_that_cannot_be_written_counts_its_rows_as_dropped(tmp_path):
    place = tmp_path / "log"
    place.write_text("a file stands where the folder should be")
    log = RowLog(place, PREDICTION_SCHEMA, flush_s=3600)
    log.record(row(1))
    log.close()
    assert (log.written, log.dropped) == (0, 1)


def test_a_column_that_the_schema_lacks_is_refused(quiet_log):
    with pytest.raises(KeyError, match="voice"):
        quiet_log.record(row(1, voice=b"..."))


def test_a_reader_sees_only_finished_files(quiet_log):
    quiet_log.record(row(1))
    quiet_log.flush()
    assert [path.suffix for path in quiet_log.folder.rglob("*") if path.is_file()] == [".parquet"]


def test_the_folders_follow_the_environment(monkeypatch, tmp_path):
    assert log_folders() == (None, None)
    monkeypatch.setenv("SEEHEAR_ROOT", str(tmp_path))
    assert log_folders() == (tmp_path / "var" / "prediction_log", tmp_path / "var" / "feedback")
    monkeypatch.setenv("SEEHEAR_LOG", str(tmp_path / "elsewhere"))
    assert log_folders() == (tmp_path / "elsewhere" / "prediction_log", tmp_path / "elsewhere" / "feedback")


def test_without_a_folder_nothing_is_kept():
    log = RowLog(None, PREDICTION_SCHEMA)
    log.record(row(1))
    log.close()
    assert (log.written, log.dropped) == (0, 0)


def test_inputs_are_measured_under_the_log_s_names():
    loud = np.full((8, 8, 1), 200, np.uint8)
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.float32)
    columns = measured(loud, tone, 8000)
    assert columns.keys() <= set(PREDICTION_SCHEMA.names)
    assert columns["image_brightness"] == pytest.approx(200 / 255, abs=1e-3)
    assert columns["audio_duration_s"] == 1
    assert columns["audio_loudness_db"] == pytest.approx(-9.03, abs=0.2)
    assert measured(None, None) == {}
