"""What waits for a free moment: all of it is done, whole where there is time, and nothing is held for long."""

import threading
import time

import pytest

from serving import spare
from serving.admission import Admission
from serving.spare import SpareTime


@pytest.fixture
def free() -> threading.Event:
    return threading.Event()


def done(spare_time: SpareTime, jobs: int, held_bytes: int = 1) -> list[tuple[int, bool]]:
    """Which of so many jobs were done, in order, and whether whole."""
    found: list[tuple[int, bool]] = []
    for number in range(jobs):
        spare_time.take(lambda whole, number=number: found.append((number, whole)), held_bytes)
    spare_time.close()
    return found


def test_with_time_to_spare_every_job_is_done_whole_and_in_order(free):
    free.set()
    assert done(SpareTime(free), spare.MOST) == [(number, True) for number in range(spare.MOST)]


def test_a_worker_that_is_never_free_does_a_sample_whole(free):
    spare_time, found = SpareTime(free), []
    begun = time.monotonic()
    for number in range(40):
        spare_time.take(lambda whole, number=number: found.append((number, whole)), 1)
    while len(found) < 40 and time.monotonic() < begun + 20:
        time.sleep(0.01)
    whole = [number for number, whole in found if whole]
    assert sorted(number for number, _ in found) == list(range(40))
    assert whole[-spare.MOST :] == list(range(40 - spare.MOST, 40))  # no more than these were ever held
    assert len(whole) <= spare.MOST + 1
    assert time.monotonic() - begun > (len(whole) - 1) * spare.PATIENCE_S


def test_large_jobs_are_not_held(free):
    found = done(SpareTime(free), 3, held_bytes=spare.MOST_BYTES)
    assert [number for number, _ in found] == [0, 1, 2]
    assert found[1:] == [(1, False), (2, True)]


def test_a_free_moment_ends_the_waiting(free, monkeypatch):
    monkeypatch.setattr(spare, "PATIENCE_S", 60)
    spare_time, finished = SpareTime(free), threading.Event()
    spare_time.take(lambda whole: finished.set(), 1)
    assert not finished.wait(0.1)
    free.set()
    assert finished.wait(5)
    spare_time.close()


def test_the_admission_is_free_when_nobody_is_inside():
    admission = Admission(at_once=1, max_waiting=4, deadline_s=1)
    assert admission.free.is_set()
    first, second = admission.enter(), admission.enter()
    first()
    first()
    assert not admission.free.is_set()
    second()
    assert admission.free.is_set()
