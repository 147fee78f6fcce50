"""A failed run tells a webhook once, in one message; a webhook that is down holds nothing up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from conftest import free_port
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor
from renewal import Simulated, simulated_project

from orchestration import alerts
from orchestration.definitions import defs


@pytest.fixture
def webhook() -> Iterator[SimpleNamespace]:
    """A server on this machine that keeps what it is told."""
    told: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            time.sleep(server.delay_s)
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = SimpleNamespace(told=told, status=200, delay_s=0.0)
    listener = HTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}/secret-path"
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    listener.shutdown()
    listener.server_close()


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A rollback without a reason, run and failed, and the instance that recorded it."""
    project = simulated_project(tmp_path_factory.mktemp("alerts") / "project")
    with dg.instance_for_test() as instance:
        result = defs.resolve_job_def("rollback").execute_in_process(
            instance=instance,
            raise_on_error=False,
            resources={"project": project},
            run_config={"ops": {"champion": {"config": {"roll_back_to": "previous", "reason": ""}}}},
            tags={"seehear/reason": "tried by a test"},
        )
        assert not result.success
        (event,) = (event for event in result.all_events if event.is_failure and not event.is_step_event)
        yield project, instance, result.dagster_run, event


def set_webhook(project: Simulated, webhook: str | None, timeout_s: float = 5.0) -> None:
    file = project.paths.root / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["alerts"] = {"webhook": webhook, "timeout_s": timeout_s}
    file.write_text(yaml.safe_dump(tree))


def alerted(failed, webhook: str | None, timeout_s: float = 5.0) -> dg.SkipReason | None:
    project, instance, run, event = failed
    set_webhook(project, webhook, timeout_s)
    context = dg.build_run_status_sensor_context(
        "alert_on_failure", event, instance, run, resources={"project": Simulated(root=project.root)}
    ).for_run_failure()
    return alerts.alert_on_failure(context)


def test_a_failed_run_is_told_with_its_job_its_reason_and_why_it_was_started(failed, webhook):
    assert alerted(failed, webhook.url) is None
    (message,) = webhook.told
    assert message["job"] == "rollback"
    assert "a rollback needs a reason" in message["reason"]
    assert message["started_because"] == "tried by a test"
    assert message["text"].startswith("SeeHear: rollback failed")
    assert "\n" not in message["text"]


def test_the_daemon_hears_of_a_run_that_a_terminal_started(failed, webhook):
    project, instance, *_ = failed
    set_webhook(project, webhook.url)
    before = RunStatusSensorCursor(record_id=-1).to_json()
    with dg.build_sensor_context(
        instance, before, repository_name="__repository__", resources={"project": project}
    ) as context:
        alerts.alert_on_failure.evaluate_tick(context)
    assert [message["job"] for message in webhook.told] == ["rollback"]


def test_without_a_webhook_nothing_is_told_and_that_is_said(failed):
    assert "no webhook is set" in alerted(failed, None).skip_message


def test_a_webhook_that_is_down_is_one_line_without_its_secret_path(failed):
    said = alerted(failed, f"http://127.0.0.1:{free_port()}/secret-path").skip_message
    assert "not told of the failure of rollback: ConnectionError" in said
    assert "secret-path" not in said


def test_a_webhook_that_does_not_answer_is_given_up_after_the_timeout(failed, webhook):
    webhook.delay_s = 1.0
    assert "ReadTimeout" in alerted(failed, webhook.url, timeout_s=0.1).skip_message


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_said(failed, webhook, status):
    webhook.status = status
    assert f"answered {status}" in alerted(failed, webhook.url).skip_message


def test_an_address_that_is_none_is_one_line(failed):
    assert "MissingSchema" in alerted(failed, "hooks.example/secret-path").skip_message
