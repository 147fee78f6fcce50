"""Data Docs that open without a network: what Great Expectations' pages load from elsewhere is taken out or put in."""

from __future__ import annotations

import base64
import html
import re
import shutil
from pathlib import Path

from data_checks.comparisons.columns import LABEL_ERRORS, SIMILAR
from data_checks.expectations.quarantine import QUARANTINE, RELEASED, how_to_release
from data_checks.expectations.verdicts import Result, Verdict, read_verdict, write_verdict
from ml.files import turn_at, whole_file, whole_folder

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
LISTED = 200
LOGO = re.compile(r'<img\b[^>]*\bsrc="https?://[^>]*>', re.DOTALL)


def publish(site: Path, place: Path, source: str, suite: str, verdict: Verdict, listings: str = "") -> None:
    """Move the pages of one suite's site to `place`, able to be read offline, with an index of their own.

    listings: HTML that follows the expectations. Beside the pages stands the verdict, from which the front page of all
    suites is written anew.
    """
    root = place.parents[1]
    alone = root / ".lock"  # images and audio may be validated together, and the front page lists them all
    with turn_at(alone), whole_folder(place) as folder:
        for kind in ("validations", "expectations"):
            shutil.copytree(site / kind, folder / kind)
        for page in folder.rglob("*.html"):
            page.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
        write_verdict(folder, verdict)
        (folder / "index.html").write_text(_suite_page(folder, source, suite, verdict, listings), encoding="utf-8")
    with turn_at(alone):
        _write_front_page(root)


def offline(page: str) -> str:
    """A page of Great Expectations without anything it would load from a network, its style and switches inside it."""
    page = PICTURE.sub("none", LOGO.sub("<strong>SeeHear data docs</strong>", ELSEWHERE.sub("", page)))
    page = page.replace("</head>", f"<style>{STYLE.read_text(encoding='utf-8')}</style></head>", 1)
    return page.replace("</body>", f"<script>{SCRIPT.read_text(encoding='utf-8')}</script></body>", 1)


def _suite_page(folder: Path, source: str, suite: str, verdict: Verdict, listings: str) -> str:
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
        f'<table class="table">{head}{table}</table>{listings}'
    )
    return _page(f"{source}: {suite}", body)


def listings(validated: Path, source: str, modality: str) -> str:
    """What a validated folder lists, as HTML: items set aside and released, near copies, likely label errors."""
    import pyarrow.parquet as pq

    aside, released, doubted, similar = (
        pq.read_table(validated / name).to_pylist() for name in (QUARANTINE, RELEASED, LABEL_ERRORS, SIMILAR)
    )
    copies: dict[int, list[str]] = {}
    for one in similar:
        copies.setdefault(one["cluster"], []).append(one["id"])
    return (
        f'<h2 id="set-aside">Set aside</h2><p>{html.escape(how_to_release(source, modality))}</p>'
        + _table(("preview", "id", "shard", "label", "reason"), aside)
        + '<h2 id="released">Released</h2>'
        + _table(("id", "shard", "label", "reason", "review"), released)
        + '<h2 id="label-errors">Labels that are likely wrong</h2>'
        + _table(("id", "shard", "label", "suggested", "quality"), doubted)
        + '<h2 id="near-copies">Near copies, kept on one side of the split</h2>'
        + _table(("near copies",), [{"near copies": ", ".join(ids)} for ids in copies.values()])
    )


def _table(columns: tuple[str, ...], rows: list[dict]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row[name])}</td>' for name in columns)}</tr>" for row in rows[:LISTED])
    more = f"<p>and {len(rows) - LISTED} more</p>" if len(rows) > LISTED else ""
    return f'<table class="table"><tr>{head}</tr>{body}</table>{more}'


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return f'<img alt="preview" height="64" src="data:image/png;base64,{base64.b64encode(value).decode()}">'
    return "" if value is None else html.escape(str(value))


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
