"""Data Docs that open without a network: what Great Expectations' pages load from elsewhere is taken out or put in."""

from __future__ import annotations

import fcntl
import html
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_checks.expectations.verdicts import Result, Verdict, read_verdict, write_verdict
from ml.files import whole_file, whole_folder

HERE = Path(__file__).parent
STYLE = HERE / "data_docs.css"
SCRIPT = HERE / "data_docs.js"
ELSEWHERE = re.compile(
    r'<script\b[^>]*\bsrc="https?://[^>]*>\s*</script>'  # libraries
    r'|<link\b[^>]*\bhref="https?://[^>]*>'  # style sheets
    r'|<link rel="shortcut icon"[^>]*>'
    r"|<script>\s*try \{\s*if \(localStorage.*?</script>"  # a walkthrough that needs those libraries
    r"|<footer\b.*?</footer>",  # advertising
    re.DOTALL,
)
PICTURE = re.compile(r"url\(['\"]https?://[^)]*\)")
LOGO = re.compile(r'<img\b[^>]*\bsrc="https?://[^>]*>', re.DOTALL)


def publish(site: Path, place: Path, source: str, suite: str, verdict: Verdict) -> None:
    """Move the pages of one suite's site to `place`, able to be read offline, with an index of their own.

    Beside them stands the verdict, from which the front page of all suites is written anew.
    """
    root = place.parents[1]
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root), whole_folder(place) as folder:
        for kind in ("validations", "expectations"):
            shutil.copytree(site / kind, folder / kind)
        for page in folder.rglob("*.html"):
            page.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
        write_verdict(folder, verdict)
        (folder / "index.html").write_text(_suite_page(folder, source, suite, verdict), encoding="utf-8")
    with _alone(root):
        _write_front_page(root)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time: images and audio may be validated together, and the front page lists them all."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def offline(page: str) -> str:
    """A page of Great Expectations without anything it would load from a network, its style and switches inside it."""
    page = PICTURE.sub("none", LOGO.sub("<strong>SeeHear data docs</strong>", ELSEWHERE.sub("", page)))
    page = page.replace("</head>", f"<style>{STYLE.read_text(encoding='utf-8')}</style></head>", 1)
    return page.replace("</body>", f"<script>{SCRIPT.read_text(encoding='utf-8')}</script></body>", 1)


def _suite_page(folder: Path, source: str, suite: str, verdict: Verdict) -> str:
    links = {
        f"{page.relative_to(folder).parts[0]}: {page.relative_to(folder).parts[1].removesuffix('.html')}": page
        for page in sorted(folder.glob("*/**/*.html"))
    }
    listed = "".join(f'<li><a href="{page.relative_to(folder)}">{name}</a></li>' for name, page in links.items())
    table = "".join(_row(result) for result in verdict.results)
    head = "<tr><th></th><th>expectation</th><th>observed</th><th>why it is expected</th></tr>"
    body = (
        f'<p><a href="../../index.html">all data docs</a></p><h1>{source}: {suite}</h1>'
        f"<p>{_state(verdict)}, {verdict.rows} rows, {verdict.quarantined} set aside.</p>"
        f"<h2>Great Expectations</h2><ul>{listed}</ul><h2>Every expectation</h2>"
        f'<table class="table">{head}{table}</table>'
    )
    return _page(f"{source}: {suite}", body)


def _write_front_page(root: Path) -> None:
    rows = ""
    for file in sorted(root.glob("*/*/verdict.json")):
        source, suite = file.parent.parts[-2:]
        if source.startswith(".") or suite.startswith("."):
            continue
        verdict = read_verdict(file.parent)
        link = f'<a href="{source}/{suite}/index.html">{source}: {suite}</a>'
        rows += (
            f"<tr><td>{_state(verdict)}</td><td>{link}</td><td>{verdict.rows}</td><td>{verdict.quarantined}</td></tr>"
        )
    head = "<tr><th></th><th>suite</th><th>rows</th><th>set aside</th></tr>"
    with whole_file(root / "index.html") as new:
        new.write_text(_page("Data docs", f'<h1>Data docs</h1><table class="table">{head}{rows}</table>'), "utf-8")


def _state(verdict: Verdict) -> str:
    return '<b class="text-success">passed</b>' if verdict.passed else '<b class="text-danger">failed</b>'


def _row(result: Result) -> str:
    kind = "success" if result.success else {"error": "danger"}.get(result.severity, "warning")
    word = "held" if result.success else result.severity
    cells = (result.name, _observed(result.observed), result.reason)
    told = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
    return f'<tr><td class="text-{kind}">{word}</td>{told}</tr>'


def _observed(observed) -> str:
    if not isinstance(observed, dict):
        return str(observed)
    examples = f" ({', '.join(observed['examples'])} …)" if observed["examples"] else ""
    return f"{observed['failing_rows']} of {observed['of']} fail{examples}"


def _page(title: str, body: str) -> str:
    style = STYLE.read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"><title>{title}</title>'
        f"<style>{style}</style></head>"
        f'<body><main class="container-fluid">{body}</main></body></html>'
    )
