"""Data that comes from a remote, heals, and waits for its turn: DVC, git and a real S3 server on this machine."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import commit_all, copy_checkout, free_port, project_environment

from ml.config import Paths, UserError
from ml.datasets import load_images
from orchestration import dvc
from orchestration.dvc import DvcPipeline
from orchestration.evidence import new_labels
from orchestration.mending import Output, dvc_hash, release_dead_locks

STAGES = ("raw@images", "facts@images", "validated@images", "prepared@images")
BUCKET = "seehear"


def slowly(case: str):
    """A case that is run when time allows (pytest -m slow): each takes 3 to 10 s."""
    return pytest.param(case, marks=pytest.mark.slow)


def tool(root: Path, *words: str) -> subprocess.CompletedProcess:
    """`dvc WORDS` as a person calls it."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=True,
    )


def environment(root: Path) -> dict[str, str]:
    return project_environment(root) | {"SEEHEAR_PYTHON": sys.executable}


def clone(root: Path, to: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(root), str(to)], check=True)
    return to


def content(paths: Paths) -> dict[str, str]:
    places = (paths.raw("images"), paths.facts("images"), paths.validated("images"), paths.prepared("images"))
    return {place.name + place.parent.name: dvc_hash(place) for place in places}


def reproduced(root: Path, capfd, *stages: str) -> list[str]:
    """Bring stages up to date; those that were run."""
    capfd.readouterr()
    DvcPipeline(Paths(root, "starter")).reproduce(*(stages or STAGES))
    said = capfd.readouterr().err
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A project whose pictures of the source `starter` are made, with the lock that says so committed."""
    root = copy_checkout(tmp_path_factory.mktemp("remotes") / "origin")
    (root / "dvc.lock").unlink()
    commit_all(root)
    DvcPipeline(Paths(root, "starter")).reproduce(*STAGES)
    commit_all(root)
    return root


@pytest.fixture
def own(origin, tmp_path) -> Path:
    """A copy of that project to do harm to."""
    return Path(shutil.copytree(origin, tmp_path / "own", symlinks=True))


@pytest.fixture(scope="module")
def s3():
    """The address of a real S3 server with an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        yield f"http://{host}:{port}"
    server.stop()


def set_remote(root: Path, url: str, **options: str) -> None:
    """What a user does once, on every machine: nothing that git tracks changes."""
    tool(root, "remote", "add", "--local", "--default", "team", url)
    for name, value in options.items():
        tool(root, "remote", "modify", "--local", "team", name, value)


# a fresh clone


@pytest.mark.parametrize("kind", [slowly("folder"), "s3"])
def test_a_fresh_clone_pulls_what_the_remote_holds_and_runs_nothing(kind, origin, tmp_path, capfd, request):
    options = {"endpointurl": request.getfixturevalue("s3")} if kind == "s3" else {}
    url = f"s3://{BUCKET}/data" if kind == "s3" else str(tmp_path / "shared")
    own = clone(origin, tmp_path / "own")
    set_remote(origin, url, **options)
    try:
        tool(origin, "push", *STAGES)
    finally:
        tool(origin, "remote", "remove", "--local", "team")
    set_remote(own, url, **options)
    assert reproduced(own, capfd) == []
    assert content(Paths(own, "starter")) == content(Paths(origin, "starter"))
    assert len(load_images(Paths(own, "starter"))) > 1700


def test_what_was_added_comes_with_a_fresh_clone_and_its_absence_is_said(origin, own, tmp_path, s3, capfd):
    paths = Paths(own, "starter")
    shard = paths.added("images") / "20260101T000000Z-000000000000.parquet"
    shutil.copy(next(paths.raw("images").glob("*.parquet")), shard)
    pipeline = DvcPipeline(paths)
    pipeline.add(lambda: [shard])
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "add", "-A"], cwd=own, check=True)
    subprocess.run([*git, "commit", "-qm", "added"], cwd=own, check=True)
    fresh = clone(own, tmp_path / "fresh")
    again = DvcPipeline(Paths(fresh, "starter"))
    with pytest.raises(UserError, match=r"000000000000\.parquet: missing or damaged, and neither cache nor remote"):
        again.add(list)
    assert new_labels(Paths(fresh, "starter"), None) == 0
    for root in (own, fresh):
        set_remote(root, f"s3://{BUCKET}/added", endpointurl=s3)
    assert pipeline.push([shard]) is None
    assert again.add(list) == []  # with nothing to add: what is tracked has to be there
    assert dvc_hash(Paths(fresh, "starter").added("images") / shard.name) == dvc_hash(shard)


@pytest.mark.parametrize("trouble", [slowly("empty"), slowly("refuses"), "silent", slowly("none")])
def test_a_remote_that_does_not_help_neither_fails_nor_hangs(trouble, own, capfd, monkeypatch):
    monkeypatch.setattr(dvc, "REMOTE_ANSWERS_S", 8)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with silent_server() as silent:
        match trouble:
            case "refuses":
                set_remote(own, f"s3://{BUCKET}/x", endpointurl=f"http://127.0.0.1:{free_port()}")
            case "silent":
                set_remote(own, f"s3://{BUCKET}/x", endpointurl=f"http://127.0.0.1:{silent}")
            case "none":
                tool(own, "config", "--local", "core.remote", "")
        shutil.rmtree(own / ".dvc" / "cache")
        shutil.rmtree(Paths(own, "starter").raw("images"))
        pipeline = DvcPipeline(Paths(own, "starter"))
        began = time.monotonic()
        assert pipeline._on_remote(pipeline._outputs(["raw@images"])) == []
        assert time.monotonic() - began < 60
    assert ("going on without it" in capfd.readouterr().err) == (trouble != "empty")


@contextlib.contextmanager
def silent_server():
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_remote_that_answers_is_waited_for_however_much_it_is_asked(slow, monkeypatch):
    monkeypatch.setattr(dvc, "REMOTE_ANSWERS_S", 10)
    with slow_server(0.25) as address:
        set_remote(slow, address)
        asked = [Output(f"{n}.dvc", slow / f"{n}", f"{n:032x}") for n in range(60)]
        assert DvcPipeline(Paths(slow, "starter"))._on_remote(asked) == asked


@contextlib.contextmanager
def slow_server(takes_s: float):
    """A server that has everything, and takes its time for every answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(takes_s)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/data"
        server.shutdown()


# healing


def flip(file: Path) -> None:
    """Change one byte and leave size and times as they were, as a failing disk does."""
    before = file.stat()
    file.chmod(0o644)
    spoilt = bytearray(file.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    file.write_bytes(spoilt)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cached(root: Path, file: Path) -> Path:
    md5 = dvc_hash(file)
    return root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


@pytest.mark.parametrize("kept", [slowly("nowhere"), "in the remote"])
def test_damage_in_cache_and_workspace_is_healed_and_never_learnt_from(kept, own, capfd):
    paths = Paths(own, "starter")
    former = content(paths)
    if kept == "in the remote":
        tool(own, "push", *STAGES)
    pixels, shard = paths.prepared("images") / "pixels.npy", next(paths.raw("images").glob("*.parquet"))
    for file in (cached(own, pixels), cached(own, shard), pixels, shard):
        flip(file)
    with pytest.raises(UserError, match=r"pixels\.npy: is not the file that was prepared"):
        load_images(paths)
    ran = reproduced(own, capfd)
    assert ran == ([] if kept == "in the remote" else ["raw@images", "prepared@images"])
    assert content(paths) == former
    assert len(load_images(paths)) > 1700
    assert dvc_hash(cached(own, pixels)) == dvc_hash(pixels)


@pytest.mark.slow
def test_a_damaged_cache_is_refilled_from_the_intact_workspace_and_never_handed_out(own, capfd):
    paths = Paths(own, "starter")
    pixels = paths.prepared("images") / "pixels.npy"
    place = cached(own, pixels)
    flip(place)
    assert reproduced(own, capfd, "prepared@images") == []
    assert dvc_hash(place) == dvc_hash(pixels)
    flip(place)
    shutil.rmtree(paths.prepared("images"))
    assert reproduced(own, capfd, "prepared@images") == ["prepared@images"]
    assert len(load_images(paths)) > 1700


# locks


@pytest.fixture
def slow(tmp_path) -> Path:
    """A repository with one stage that takes its time, and says when it has begun."""
    root = tmp_path / "slow"
    root.mkdir()
    stage = {"cmd": "touch begun && sleep ${SLEEP_S:-0} && echo done > out", "outs": ["out"]}
    stage["cmd"] = stage["cmd"].replace("${", r"\${")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"slow": stage}}))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    tool(root, "init", "-q")
    return root


def busy(root: Path, sleep_s: int) -> subprocess.Popen:
    """A real `dvc repro` in the middle of its stage, holding its locks."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=root,
        env=environment(root) | {"SLEEP_S": str(sleep_s)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (root / "begun").exists():  # by then every lock is taken
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [slowly("free"), "taken by another process", slowly("cut off")])
def test_what_a_killed_dvc_held_is_released(number, slow, capfd):
    process = busy(slow, 60)
    rwlock = slow / ".dvc" / "tmp" / "rwlock"
    held = rwlock.read_text()
    os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: a zombie still has its number
    if number == "cut off":
        rwlock.write_text(held[: len(held) // 2])
    if number == "taken by another process":
        rwlock.write_text(held.replace(str(process.pid), str(os.getppid())))
    DvcPipeline(Paths(slow, "starter")).reproduce("slow")
    assert "released a lock that a dead process held" in capfd.readouterr().err
    assert (slow / "out").read_text() == "done\n"
    process.wait()


def test_a_living_dvc_is_waited_for_and_named_once(slow, capfd):
    process = busy(slow, 4)
    assert release_dead_locks(slow / ".dvc" / "tmp") == []
    DvcPipeline(Paths(slow, "starter")).reproduce("slow")
    assert process.wait() == 0
    said = capfd.readouterr().err
    assert said.count("seehear: waiting for another DVC process: (PID") == 1


@pytest.mark.slow
def test_a_dvc_that_lives_too_long_ends_in_one_line(slow, monkeypatch):
    monkeypatch.setattr(dvc, "PATIENCE_S", 1)
    process = busy(slow, 60)
    with pytest.raises(UserError, match=rf"another DVC process works on this data: \(PID {process.pid}\): .*repro"):
        DvcPipeline(Paths(slow, "starter")).reproduce("slow")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_list_of_locks_keeps_the_living(slow):
    process = busy(slow, 60)
    rwlock = slow / ".dvc" / "tmp" / "rwlock"
    tree = json.loads(rwlock.read_text())
    tree.setdefault("read", {})["x"] = [{"pid": 2**22 - 1, "cmd": "dvc gone"}]
    rwlock.write_text(json.dumps(tree))
    assert release_dead_locks(rwlock.parent) == ["dvc gone"]
    assert str(process.pid) in rwlock.read_text()
    assert "gone" not in rwlock.read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
