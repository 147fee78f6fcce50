"""Starting a served Bento and asking it: what `make run`, `make serve`, the tests and the benchmarks use.

`python -m serving.client --port N` serves the champion's Bento in the foreground.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import requests
import yaml

from ml.config import Paths, UserError, load_paths
from ml.config.reading import ENVIRONMENT
from serving.packaging import CODE, bento_folder, bento_of, read_champion

START_S = 120.0
STOP_S = 20.0
HOST = "127.0.0.1"


@contextmanager
def serve(
    bento_tag: str,
    paths: Paths,
    port: int = 0,
    env: Mapping[str, str] | None = None,
    start_s: float = START_S,
    workers: int = 1,
    python: str = sys.executable,
) -> Iterator[str]:
    """Serve a stored Bento in processes of its own on this machine; yields its address, http://127.0.0.1:<port>.

    It asks for no token. port 0 takes a free one; python is the interpreter whose environment has what the Bento needs;
    env is added to this process's environment, an empty value takes one out: with SEEHEAR_FOLLOW=1 the workers follow
    the champion of `paths`, else the Bento keeps its own model. On leaving, the server answers what is under way and
    stops, its children with it.
    Raises UserError with the end of its log where it does not get ready within start_s, refuses its model, or dies.
    """
    folder = bento_folder(bento_tag, paths)
    port = port or free_port()
    require_free(port)
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            _command(folder, port, python),
            cwd=paths.root,
            env=_environment(paths, {"SEEHEAR_WORKERS": str(workers), "SEEHEAR_TOKEN": "", **(env or {})}),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            url = f"http://{HOST}:{port}"
            _await_ready(url, process, log, start_s)
            yield url
        finally:
            end(process)


def ask(url: str, picture: bytes, recording: bytes) -> dict:
    """Post a picture and a recording to a running service.

    Returns {"extract": answer, "classify_image": answer} as JSON values. Raises UserError where the service refuses.
    """
    files = {"image": ("picture", picture), "audio": ("recording", recording)}
    return {
        "extract": _post(f"{url}/extract", files),
        "classify_image": _post(f"{url}/classify_image", {"image": files["image"]}),
    }


def _post(address: str, files: dict) -> dict:
    with direct() as session:
        answer = session.post(address, files=files, timeout=60)
    try:
        body = answer.json()
    except requests.JSONDecodeError:
        raise UserError(f"{address}: {answer.status_code}: expected JSON, got {answer.text[:60]!r}") from None
    if answer.status_code >= 400:
        raise UserError(f"{address}: {answer.status_code}: {body['error']['message']}")
    return body


def direct() -> requests.Session:
    """A session for addresses of this machine, which no proxy that the environment names can reach."""
    session = requests.Session()
    session.trust_env = False
    return session


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def require_free(port: int) -> None:
    """Raises UserError where something listens on the port already."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as fault:
            reason = getattr(fault, "strerror", None) or str(fault)
            raise UserError(f"port {port}: cannot be listened on ({reason}); choose another with PORT=") from None


def require_settings(folder: Path) -> None:
    """Raises UserError where a stored Bento serves by other settings than params.yaml has now, such as how long what
    people send is kept; what the environment sets holds for either."""
    built, wanted = (yaml.safe_load((place / "params.yaml").read_text("utf-8")) for place in (folder / "src", CODE))
    told = {key for name, (_, key) in ENVIRONMENT.items() if os.environ.get(name)}
    for key, value in wanted["serving"].items():
        if key not in told and built["serving"].get(key, value) != value:
            raise UserError(
                f"params.yaml: serving.{key}: {value}, but the service was built with {built['serving'][key]}; "
                "`make run` builds it anew"
            )


def _command(folder: Path, port: int, python: str = sys.executable) -> list[str]:
    return [python, "-m", "bentoml", "serve", str(folder), "--host", HOST, "--port", str(port)]


def _environment(paths: Paths, env: Mapping[str, str]) -> dict[str, str]:
    own = {"BENTOML_HOME": str(paths.bentoml), "BENTOML_DO_NOT_TRACK": "True", "SEEHEAR_ROOT": str(paths.root)}
    return {name: value for name, value in {**os.environ, **own, **env}.items() if env.get(name) != ""}


def _await_ready(url: str, process: subprocess.Popen, log, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"the service ended with {process.returncode} before it was ready:\n{_tail(log)}")
        ready, refused = _readiness(url)
        if ready:
            return
        if refused:
            raise UserError(f"the service refuses its model: {refused}")
        time.sleep(0.1)
    raise UserError(f"the service was not ready within {start_s:g} s:\n{_tail(log)}")


def _readiness(url: str) -> tuple[bool, str | None]:
    """Whether the service is ready, and why it never will be."""
    try:
        with direct() as session:
            answer = session.get(f"{url}/readyz", timeout=5)
        if answer.status_code == 200:
            return True, None
        error = answer.json()["error"]
    except requests.RequestException:  # nothing listens yet, or what does is not ours
        return False, None
    return False, error["message"] if error["code"] == "model_refused" else None


def _tail(log, lines: int = 25) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def end(process: subprocess.Popen) -> None:
    """End the server in order, and whatever is left of its session after STOP_S by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        print("the service did not stop in time and is ended", file=sys.stderr)
    if _group_lives(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@click.command()
@click.option("--port", default=3001, show_default=True, help="Where to listen on this machine.")
def main(port: int) -> None:
    """Serve the champion's Bento until interrupted; its workers follow every later champion."""
    try:
        paths = load_paths()
        tag = bento_of(read_champion(paths).tag, paths)
        require_settings(bento_folder(tag, paths))
        require_free(port)
    except UserError as fault:
        click.echo(f"serve: {fault}", err=True)
        sys.exit(2)
    click.echo(f"{tag} at http://{HOST}:{port}; the page is at http://{HOST}:{port}/app/", err=True)
    command = _command(bento_folder(tag, paths), port)
    os.execve(command[0], command, _environment(paths, {"SEEHEAR_FOLLOW": "1"}))


if __name__ == "__main__":
    main()
