"""Who is let in, who waits, and who is turned away before anything is computed: the layer and its queue, in process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.admission import ARRIVING, Admission
from serving.http import EXCHANGE, HttpLayer
from serving.refusals import Refused
from serving.workers import computed_at_once, cores

GONE = {"type": "http.disconnect"}


class Kitchen:
    """An app whose one dish takes as long as the test says."""

    def __init__(self, at_once: int = 1, max_waiting: int = 2, deadline_s: float = 5, token: str | None = None):
        self.made: list[str] = []
        self.oven = threading.Event()
        self.admission = Admission(at_once, max_waiting, deadline_s)
        app = Starlette(routes=[Route("/dish", self._dish, methods=["POST"]), Route("/menu", self._menu)])
        self.layer = HttpLayer(app, 1000, self.admission, token, guarded=["/dish"], queued=["/dish"])

    async def _dish(self, request: Request):
        name = (await request.body()).decode()
        try:
            return JSONResponse(await self.admission.compute(EXCHANGE.get(), self._make, name))
        except Refused as refusal:
            return refusal.response()

    async def _menu(self, request: Request):
        return JSONResponse(["dish"])

    def _make(self, name: str) -> str:
        self.oven.wait(10)
        self.made.append(name)
        return name

    def order(self, name: str = "pie", **how) -> asyncio.Task[Reply]:
        return asyncio.ensure_future(asked(self.layer, "POST", "/dish", name.encode(), **how))


class Reply:
    def __init__(self, messages: list[dict], took_s: float, read: int):
        start = messages[0]
        self.status, self.took_s, self.read = start["status"], took_s, read
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.json = json.loads(b"".join(message.get("body", b"") for message in messages[1:]))

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


async def asked(
    app,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    gone: asyncio.Event | None = None,
    body_comes: Callable[[], Awaitable] | None = None,
) -> Reply:
    """What an ASGI app sends for one request; gone: set when the client hangs up; body_comes: waited for before it."""
    sent: list[dict] = []
    read = 0
    over = gone or asyncio.Event()

    async def receive() -> dict:
        nonlocal read
        read += 1
        if read > 1:
            await over.wait()
            return GONE
        if body_comes:
            await body_comes()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "query_string": b""}
    start = time.perf_counter()
    await app(scope, receive, send)
    return Reply(sent, time.perf_counter() - start, read)


async def settled() -> None:
    """Let everything that can go on go on."""
    await asyncio.sleep(0.05)


def test_what_comes_beyond_the_queue_is_refused_at_once_and_unread_and_the_rest_is_made_in_order():
    async def scene() -> None:
        kitchen = Kitchen(at_once=1, max_waiting=2)
        orders = [kitchen.order(name) for name in ("first", "second", "third")]
        await settled()
        fourth = await kitchen.order("fourth")
        assert (fourth.status, fourth.code, fourth.read) == (429, "too_many_requests", 0)
        assert int(fourth.headers["retry-after"]) >= 1
        assert fourth.took_s < 0.1
        assert (await asked(kitchen.layer, "GET", "/menu")).status == 200, "only what is computed has to queue"
        kitchen.oven.set()
        assert [reply.status for reply in await asyncio.gather(*orders)] == [200, 200, 200]
        assert kitchen.made == ["first", "second", "third"]
        assert (await kitchen.order("fifth")).status == 200
        assert (kitchen.admission.inside, kitchen.admission.waiting) == (0, 0)

    asyncio.run(scene())


def test_as_many_are_made_at_once_as_there_are_cores_for_them():
    async def scene() -> None:
        kitchen = Kitchen(at_once=3, max_waiting=0)
        orders = [kitchen.order(str(number)) for number in range(3)]
        await settled()
        assert (await kitchen.order()).status == 429
        kitchen.oven.set()
        assert {reply.status for reply in await asyncio.gather(*orders)} == {200}

    asyncio.run(scene())


def test_the_workers_together_have_work_for_every_core():
    assert cores() >= 1
    for machine in (1, 2, 7, 64):
        for workers in (1, 2, 3, 64):
            assert workers * computed_at_once(machine, workers) > machine


def test_whose_deadline_passes_in_the_queue_gets_504_and_nothing_is_made_for_it():
    async def scene() -> None:
        kitchen = Kitchen(deadline_s=0.2)
        first, late = kitchen.order("first"), kitchen.order("late")
        reply = await late
        assert (reply.status, reply.code) == (504, "deadline")
        assert int(reply.headers["retry-after"]) >= 1
        assert 0.15 < reply.took_s < 1
        kitchen.oven.set()
        assert (await first).status == 200, "what has begun is finished"
        assert kitchen.made == ["first"]

    asyncio.run(scene())


def test_for_whom_has_gone_nothing_is_made():
    async def scene() -> None:
        kitchen, gone = Kitchen(), asyncio.Event()
        first, left, third = kitchen.order("first"), kitchen.order("left", gone=gone), kitchen.order("third")
        await settled()
        gone.set()
        kitchen.oven.set()
        assert (await left).code == "disconnected"
        assert [(await order).status for order in (first, third)] == [200, 200]
        assert kitchen.made == ["first", "third"]

    asyncio.run(scene())


def test_a_body_that_does_not_come_in_time_is_a_408_and_leaves_its_place():
    async def scene() -> None:
        kitchen = Kitchen(deadline_s=0.1)
        reply = await kitchen.order(body_comes=asyncio.Event().wait)
        assert (reply.status, reply.code) == (408, "body_too_slow")
        assert kitchen.admission.inside == 0

    asyncio.run(scene())


def test_slow_senders_are_not_taken_in_without_end():
    async def scene() -> None:
        kitchen = Kitchen(at_once=1, max_waiting=2, deadline_s=0.5)
        slow = [kitchen.order(body_comes=asyncio.Event().wait) for _ in range(3 + ARRIVING)]
        await settled()
        assert (await kitchen.order()).status == 429
        await asyncio.gather(*slow)
        kitchen.oven.set()
        assert (await kitchen.order()).status == 200

    asyncio.run(scene())


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer no", "Bearer secreter", "Basic secret", "secret", "Bearer secret secret"]
)
def test_without_the_token_nothing_is_read(header):
    async def scene() -> None:
        kitchen = Kitchen(token="secret")
        kitchen.oven.set()
        reply = await kitchen.order(headers={} if header is None else {"Authorization": header})
        assert (reply.status, reply.code, reply.read) == (401, "unauthorized", 0)
        assert reply.headers["www-authenticate"] == "Bearer"
        for right in ("Bearer secret", "bearer  secret"):
            assert (await kitchen.order(headers={"Authorization": right})).status == 200

    asyncio.run(scene())


def test_no_websocket_is_opened():
    async def scene() -> None:
        sent: list[dict] = []

        async def receive() -> dict:
            return {"type": "websocket.connect"}

        async def send(message: dict) -> None:
            sent.append(message)

        await Kitchen().layer({"type": "websocket", "path": "/dish", "headers": []}, receive, send)
        assert sent == [{"type": "websocket.close"}]

    asyncio.run(scene())
