"""Two workers that follow the champion: a model changes, a worker dies, the server ends, and nobody notices."""

from __future__ import annotations

import signal
import time

import pytest
import requests
from served import another_model, asking, first_champion, metric, point_at, supervisor_of, until

from ml.config import Paths, UserError
from serving import packaging
from serving.client import serve
from serving.following import Champions
from serving.packaging import Champion


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Paths:
    return Paths(tmp_path_factory.mktemp("following"), "starter")


@pytest.fixture(scope="module")
def first(paths) -> Champion:
    return first_champion(paths)


@pytest.fixture(scope="module")
def url(paths, first):
    with serve(packaging.build_bento(first.tag, paths), paths, env={"SEEHEAR_FOLLOW": "1"}, workers=2) as address:
        until(lambda: workers_with(address, first) == 2, 60)
        yield address


def workers_with(url: str, champion: Champion) -> float:
    return metric(url, "seehear_model_info").get(f'{{digest="{champion.digest}"}}', 0)


def test_a_promoted_model_takes_over_and_a_rollback_takes_back_without_a_failed_request(url, paths, first, tmp_path):
    second = another_model(tmp_path, paths, 1.5)
    with asking(url) as clients:
        for champion in (second, first):
            point_at(champion, paths)
            until(lambda champion=champion: workers_with(url, champion) == 2, 60)
            time.sleep(0.3)
    assert not clients.failed
    assert {one.model for one in clients.asked} == {first.digest, second.digest}
    assert clients.asked[-1].model == first.digest
    assert workers_with(url, second) == 0


def test_a_champion_that_misses_its_golden_requests_or_is_damaged_is_refused_and_the_old_one_goes_on(
    url, paths, first, tmp_path
):
    missed = another_model(tmp_path, paths, 2.5, fit=False)
    damaged = another_model(tmp_path, paths, 3.5)
    with (packaging.stored_bundle(damaged.tag, paths) / "image_classifier" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    with asking(url, clients=1) as clients:
        for number, champion in enumerate((missed, damaged), 1):
            point_at(champion, paths)
            until(lambda number=number: metric(url, "seehear_models_refused_total").get("") == 2 * number, 60)
    point_at(first, paths)
    assert not clients.failed
    assert {one.model for one in clients.asked} == {first.digest}
    assert requests.get(f"{url}/readyz", timeout=60).status_code == 200


def test_a_killed_worker_comes_back_and_nobody_goes_without_answers_meanwhile(url, first):
    worker = supervisor_of(url).children()[0]
    with asking(url, clients=2) as clients:
        time.sleep(0.5)
        worker.kill()
        until(lambda: workers_with(url, first) == 1, 30)
        until(lambda: workers_with(url, first) == 2, 60)
        time.sleep(0.5)
    assert len(clients.failed) <= 2, "only what the worker was answering"
    assert clients.longest_gap_s < 3
    assert {one.status for one in clients.asked} <= {200, None}, "a worker that has just started refuses nobody"


def test_the_pointer_is_read_again_only_when_it_was_replaced(tmp_path):
    paths = Paths(tmp_path, "starter")
    champions = Champions(paths)
    assert not champions.changed()
    paths.champion.parent.write_text("a file, for now: it cannot be looked into")
    assert not champions.changed()
    paths.champion.parent.unlink()
    paths.champion.parent.mkdir()
    point_at(Champion("seehear:one", "1"), paths)
    assert champions.changed()
    assert not champions.changed()
    point_at(Champion("seehear:one", "1"), paths)
    assert champions.changed()
    with pytest.raises(UserError, match="seehear:one: no such model"):
        champions.bundle()


def test_told_to_end_the_server_says_so_at_once_and_answers_what_has_come(url):
    """The last in this file: it ends the server that the others share."""
    server = supervisor_of(url)
    with asking(url) as clients:
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        told = time.monotonic()
        until(lambda: requests.get(f"{url}/readyz", timeout=5).status_code == 503, 5)
        noticed_s = time.monotonic() - told
        answer = requests.get(f"{url}/readyz", timeout=5)
        assert (answer.json()["error"]["code"], answer.headers["Connection"]) == ("draining", "close")
        server.wait(20)
    assert noticed_s < 0.5
    came_before_the_door_closed = [one for one in clients.asked if one.began < told + 0.7]
    assert {one.status for one in came_before_the_door_closed} == {200}
