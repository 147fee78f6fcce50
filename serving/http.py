"""What every answer has in common: its form when it is an error, its request id, its limits and its log line.

`HttpLayer` stands outside everything else, BentoML's own middleware included. Inside it, `read_files` and `read_json`
never follow a URL: BentoML's own reader fetches a string given in a file field.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

import anyio
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.admission import Admission
from serving.refusals import Refused
from serving.workers import Drain

logger = logging.getLogger("seehear.access")

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
    504: "timeout",
}
MESSAGES = {
    404: "there is nothing at this address",
    405: "this address does not take that method",
    500: "something went wrong here; the log of the service says what, under this request's id",
    504: "the answer took too long",
}
QUIET = ("/livez", "/readyz", "/healthz", "/metrics")
KEPT = (b"allow", b"retry-after", b"www-authenticate")  # headers of an error that stay
MAX_FIELDS = 8


@dataclass
class Exchange:
    """One request on its way: what the log line, the headers of the answer and the admission need."""

    admission: Admission
    receive: Receive
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    code: str | None = None
    received_bytes: int = 0
    leave: Callable[[], None] = lambda: None

    @property
    def latency_ms(self) -> float:
        return round((time.perf_counter() - self.started) * 1000, 2)

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return self.admission.deadline_s - (time.perf_counter() - self.started)

    async def is_gone(self) -> bool:
        """Whether the client has hung up; to be asked only when the body is whole."""
        message: Message = {"type": ""}
        with anyio.CancelScope() as scope:
            scope.cancel()
            message = await self.receive()
        return message["type"] == "http.disconnect"


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


class HttpLayer:
    """The outermost ASGI layer.

    Gives every answer an X-Request-ID and every answer from 400 up the form {"error": {"code", "message"}}, and writes
    one JSON line per request. Before a body is buffered it refuses what lacks the token, is larger than
    max_body_bytes (by its declared length, and by counting what really comes), or finds the queue full.

    guarded: paths that need the token, where there is one; queued: those of them that `admission` lets in.
    on_end: called with the path and the exchange when it is over. caps: paths that take less than max_body_bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        admission: Admission | None = None,
        token: str | None = None,
        guarded: Collection[str] = (),
        queued: Collection[str] = (),
        drain: Drain | None = None,
        on_end: Callable[[str, Exchange], None] | None = None,
        caps: Mapping[str, int] = MappingProxyType({}),
    ):
        self.app, self.max_body_bytes, self.caps = app, max_body_bytes, caps
        self.admission = admission or Admission(1, 1, deadline_s=60)
        self.token, self.guarded, self.queued = token, frozenset(guarded), frozenset(queued)
        self.drain, self.on_end = drain or Drain(), on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "lifespan":
                self.drain.listen()
                await self.app(scope, receive, send)
            case _:  # nothing here speaks WebSocket
                await receive()
                await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self.admission, receive)
        EXCHANGE.set(exchange)
        answer = _Answer(exchange, send, scope["method"] == "HEAD", self.drain)
        try:
            self._admit(scope, exchange)
            await self.app(scope, self._counted(receive, exchange, answer, self._cap(scope)), answer.send)
        except Refused as refusal:
            await answer.refuse(refusal)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            await answer.fail()
        finally:
            exchange.leave()
            _log(scope, exchange)
            if self.on_end:
                self.on_end(scope["path"], exchange)

    def _admit(self, scope: Scope, exchange: Exchange) -> None:
        """Raises Refused for what must not get any further."""
        if scope["path"] == "/readyz" and self.drain.begun:
            raise Refused("draining", "no longer taking requests; what has come is still answered", 503)
        if self.token and scope["path"] in self.guarded and not _bears(scope, self.token):
            wrong = any(name == b"authorization" for name, _ in scope["headers"])
            what = "not this service's token" if wrong else "a token is needed"
            message = f"{what}: send the header `Authorization: Bearer <token>`"
            raise Refused("unauthorized", message, 401, headers={"WWW-Authenticate": "Bearer"})
        if _declared_bytes(scope) > (cap := self._cap(scope)):
            raise _too_large(cap)
        if scope["path"] in self.queued and scope["method"] == "POST":
            exchange.leave = self.admission.enter()

    def _cap(self, scope: Scope) -> int:
        return self.caps.get(scope["path"], self.max_body_bytes)

    def _counted(self, receive: Receive, exchange: Exchange, answer: _Answer, cap: int) -> Receive:
        """Counts what comes, and gives it no longer than the deadline."""
        whole = False

        async def counted() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(exchange.left_s):
                    message = await receive()
            except TimeoutError:
                answer.instead = Refused("body_too_slow", "the body did not come in time", 408)
                raise answer.instead from None
            whole = not message.get("more_body")
            exchange.received_bytes += len(message.get("body", b""))
            if exchange.received_bytes > cap:
                answer.instead = _too_large(cap)
                raise answer.instead
            return message

        return counted


def _too_large(cap: int) -> Refused:
    size = f"{cap / 1e6:g} MB" if cap >= 1e6 else f"{cap / 1e3:g} kB"
    return Refused("body_too_large", f"the body is larger than the {size} taken here", 413)


def _bears(scope: Scope, token: str) -> bool:
    """Whether a request carries the token; compared in a time that says nothing about where the two differ."""
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, bearer = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(bearer.strip(), token.encode())


class _Answer:
    """Passes a good answer on as it comes; holds an error back until it is whole and gives it the common form."""

    def __init__(self, exchange: Exchange, send: Send, head: bool, drain: Drain):
        self.exchange, self._send, self.head, self._drain = exchange, send, head, drain
        self.instead: Refused | None = None
        self._held: Message | None = None
        self._body = b""
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._held is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._release()
        elif self._held is None and not self.instead:
            await self._send(message)

    async def refuse(self, refusal: Refused) -> None:
        """Answer with a refusal where nothing has been sent yet."""
        if not self._started:
            self.instead = refusal
            await self._start({"type": "http.response.start", "status": refusal.status, "headers": []})
            await self._release()

    async def fail(self) -> None:
        await self.refuse(self.instead or Refused(CODES[500], MESSAGES[500], 500))

    async def _start(self, message: Message) -> None:
        if self.instead or message["status"] >= 400:
            self._held = message
            return
        await self._begin(message)

    async def _release(self) -> None:
        assert self._held is not None
        refusal = self.instead or _refusal(self._held, self._body)
        body = json.dumps(refusal.body).encode()
        headers = [pair for pair in self._held["headers"] if pair[0].lower() in KEPT]
        headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        self._held = None
        self.exchange.code = refusal.code
        await self._begin({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self.head else body})

    async def _begin(self, message: Message) -> None:
        self._started = True
        self.exchange.status = message["status"]
        headers = [*message.get("headers", []), (b"x-request-id", self.exchange.request_id.encode())]
        headers.append((b"server-timing", f"app;dur={self.exchange.latency_ms}".encode()))  # the page shows it
        if self._drain.begun:
            headers.append((b"connection", b"close"))
        await self._send({**message, "headers": headers})


def _refusal(start: Message, body: bytes) -> Refused:
    """The common form of an error that some inner layer answered in its own words."""
    status = start["status"]
    code = CODES.get(status, "error" if status < 500 else "internal_error")
    try:
        inner = json.loads(body)["error"]
        return Refused(inner["code"], inner["message"], status)
    except (ValueError, TypeError, KeyError):
        return Refused(code, MESSAGES.get(status, HTTPStatus(status).phrase), status)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _log(scope: Scope, exchange: Exchange) -> None:
    if scope["path"] in QUIET:
        return
    line = {
        "time": round(time.time(), 3),
        "request_id": exchange.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": exchange.status,
        "latency_ms": exchange.latency_ms,
        "received_bytes": exchange.received_bytes,
    }
    logger.info(json.dumps(line))


async def read_files(
    request: Request, names: tuple[str, ...], words: tuple[str, ...] = ()
) -> dict[str, bytes | str | None]:
    """The bytes of the named files of a multipart form, and its words, None where one is not given.

    Raises Refused (400) where the body is no such form, a file is missing or given twice, or text stands in its field;
    and where a word is given twice, or as a file.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused("not_a_form", f"expected multipart/form-data with a file in each of: {', '.join(names)}")
    try:
        async with request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS) as form:
            files = {name: await _file(form.getlist(name), name) for name in names}
            return files | {name: _word(form.getlist(name), name) for name in words}
    except (MultiPartException, HTTPException, FormParserError, UnicodeError, KeyError) as fault:
        reason = getattr(fault, "detail", None) or getattr(fault, "message", None) or str(fault)
        raise Refused("not_a_form", f"the multipart form cannot be read: {reason}") from None
    except ClientDisconnect:
        raise Refused("disconnected", "the connection ended before the body did") from None


async def _file(values: list, name: str) -> bytes:
    if not values:
        raise Refused("missing_file", f"{name}: no file; expected one in the form field {name!r}")
    if len(values) > 1:
        raise Refused("too_many_files", f"{name}: {len(values)} values; expected one file")
    if not isinstance(values[0], UploadFile):
        raise Refused("not_a_file", f"{name}: text; expected a file (a form part that has a filename)")
    return await values[0].read()


def _word(values: list, name: str) -> str | None:
    if len(values) > 1 or any(not isinstance(value, str) for value in values):
        raise Refused("bad_field", f"{name}: {len(values)} values or a file; expected text, once")
    return values[0] if values else None


async def read_json(request: Request) -> dict:
    """The JSON object a request carries. Raises Refused (400) for anything else, NaN and Infinity included."""
    try:
        body = await request.body()
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:
        raise Refused("bad_json", f"the body is not JSON: {fault}") from None
    except ClientDisconnect:
        raise Refused("disconnected", "the connection ended before the body did") from None
    if not isinstance(value, dict):
        raise Refused("bad_json", f"expected a JSON object, got {type(value).__name__}")
    return value


def _no_constant(name: str):
    raise ValueError(f"{name} is not JSON")
