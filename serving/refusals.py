"""The one form that every error of the service takes."""

from __future__ import annotations

import json

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

MOST_NAMED = 100


def shortened(name: str) -> str:
    """What a client made up, fit to stand in a message of one line."""
    return " ".join(name.split())[:MOST_NAMED]


class Refused(Exception):
    """A request that cannot be served, with the answer it gets.

    status: HTTP status; code: short snake_case word; message: one line for a person.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    @property
    def body(self) -> dict:
        return {"error": {"code": self.code, "message": self.message}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)

    def as_http(self) -> HTTPException:
        """The same for places where only Starlette's exception is understood."""
        return HTTPException(self.status, json.dumps(self.body), self.headers)
