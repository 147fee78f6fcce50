"""What waits for a free moment: all of it is done, whole where there is time, and nothing is held for long."""

import threading
import time

import pytest

from serving import spare
from serving.admission import Admission
from serving.spare import SpareTime


@pytest.fixture
def idle() -> threading.Event:
    return threading.Event()


def done(spare_time: SpareTime, jobs: int, held_bytes: int = 1) -> list[tuple[int, bool]]:
    """Which of so many jobs were done, in order, and whether whole."""
    found: list[tuple[int, bool]] = []
    for number in range(jobs):
        spare_time.take(lambda whole, number=number: found.append((number, whole)), held_bytes)
    while len(found) < jobs:
        time.sleep(0.01)
    spare_time.close()
    return found


def test_with_time_to_spare_every_job_is_done_whole_and_in_order(idle):
    idle.set()
    assert done(SpareTime(idle), spare.MOST) == [(number, True) for number in range(spare.MOST)]


def test_a_worker_that_is_never_idle_does_a_sample_whole(idle, monkeypatch):
    monkeypatch.setattr(spare, "PATIENCE_S", 0.1)
    spare_time, found = SpareTime(idle), []
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
    spare_time.close()


def test_large_jobs_are_not_held(idle):
    found = done(SpareTime(idle), 3, held_bytes=spare.MOST_BYTES)
    assert [number for number, _ in found] == [0, 1, 2]
    assert found[1:] == [(1, False), (2, True)]


def test_at_the_end_what_waits_is_done_at_once_and_not_whole(idle, monkeypatch):
    monkeypatch.setattr(spare, "PATIENCE_S", 60)
    spare_time, found = SpareTime(idle), []
    for _ in range(5):
        spare_time.take(found.append, 1)
    threading.Timer(0.2, idle.set).start()  # the first has begun to wait
    spare_time.close()
    assert found[1:] == [False] * 4


def test_one_job_alone_may_be_as_large_as_it_likes(idle):
    idle.set()
    assert done(SpareTime(idle), 1, held_bytes=2 * spare.MOST_BYTES) == [(0, True)]


def test_a_free_moment_ends_the_waiting(idle, monkeypatch):
    monkeypatch.setattr(spare, "PATIENCE_S", 60)
    spare_time, finished = SpareTime(idle), threading.Event()
    spare_time.take(lambda whole: finished.set(), 1)
    assert not finished.wait(0.1)
    idle.set()
    assert finished.wait(5)
    spare_time.close()


def test_the_admission_is_idle_when_nobody_is_inside():
    admission = Admission(at_once=1, max_waiting=4, deadline_s=1)
    assert admission.idle.is_set()
    first, second = admission.enter(), admission.enter()
    first()
    first()
    assert not admission.idle.is_set()
    second()
    assert admission.idle.is_set()
