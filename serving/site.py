"""The static page at /app and its ready examples, which are the golden requests of the model that answers."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.refusals import Refused, shortened

PAGE = Path(__file__).with_name("page")
FRESH = {"Cache-Control": "no-cache"}  # the examples are the model's, and a promotion brings other ones
SECURITY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; frame-ancestors 'self'"


def page_app() -> Starlette:
    """The page; `state.golden` has to name the folder of golden requests once there is a model."""

    async def to_page(_: Request) -> Response:
        return RedirectResponse("app/")  # from / and /app alike, and behind a proxy that adds a prefix

    routes = [
        Route("/examples", _examples),
        Route("/examples/{name}", _example),
        Mount("/", _Page(directory=PAGE, html=True)),
    ]
    app = Starlette(routes=[Route("/", to_page), Route("/app", to_page), Mount("/app", routes=routes)])
    app.state.golden = None
    return app


class _Page(StaticFiles):
    async def get_response(self, path: str, scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = SECURITY
        response.headers.update(FRESH)
        return response


def _rows(folder: Path | None) -> list[dict]:
    return json.loads((folder / "golden.json").read_text()) if folder else []


def _examples(request: Request) -> Response:
    rows = _rows(request.app.state.golden)
    examples = [{kind: f"examples/{row[kind]}" for kind in ("picture", "recording")} for row in rows]
    return JSONResponse(examples, headers=FRESH)


def _example(request: Request) -> Response:
    name, folder = request.path_params["name"], request.app.state.golden
    if name not in {row[kind] for row in _rows(folder) for kind in ("picture", "recording")}:
        return Refused("not_found", f"{shortened(name)}: there is no such example", 404).response()
    return FileResponse(folder / name, headers=FRESH)
