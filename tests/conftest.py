"""What every test may rely on: no telemetry, and no settings from the shell that runs it."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from ml.config import MODALITIES, SOURCES, Paths

os.environ.update(
    BENTOML_DO_NOT_TRACK="True",
    DO_NOT_TRACK="1",
    GX_ANALYTICS_ENABLED="false",
    DAGSTER_DISABLE_TELEMETRY="yes",
    DVC_NO_ANALYTICS="1",
)
if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side: threads that wait for each other would only spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("SEEHEAR_")]:
    os.environ.pop(_name)
for _name in ("DAGSTER_HOME", "BENTOML_HOME"):
    os.environ.pop(_name, None)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background job; Dagster hands it on to SIGTERM
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
LONGEST = ("test_end_to_end.py", "test_remotes.py", "test_pipeline.py", "test_service.py", "test_expectations.py")
SMALL = {  # every model trained for real, but briefly
    "image_classifier": {"steps": 120, "detector_steps": 30},
    "speech_classifier": {"cnn": {"steps": 60}, "rnn": {"steps": 60}, "lstm": {"steps": 60}},
    "speech_extractor": {"steps": 40},
    "evaluation": {"scenes": 20},
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Dagster remembers the instance of a context that is only closed when it is collected, however late."""
    if kept := sys.modules.get("dagster._core.storage.defs_state.base"):
        kept._current_storage.set(None)


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """The longest files first: begun last, one of them would keep one process busy while the others have nothing."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.path.name) in LONGEST else len(LONGEST))


def copy_checkout(to: Path) -> Path:
    """The files a fresh clone would have, as a git repository of its own with this environment."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    (to / ".venv").symlink_to(Path(sys.prefix))
    return to


def data_stages(root: Path) -> Path:
    """A repository with nothing but the data stages of this one: their code, settings and empty places."""
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local", "dvc.lock")
    for name in ("ml", "data_checks", "sources", ".dvc"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root)
    for source in set(SOURCES) - {"starter"}:
        (root / "sources" / source / ".dvcignore").write_text("!dvc.yaml\n")  # as if it had been used
    for source, modality in itertools.product(SOURCES, MODALITIES):
        Paths(root, source).added(modality).mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def commit_all(project: Path) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *command], cwd=project, check=True)


def shrink(project: Path) -> None:
    """Set the quick budget of every model to a few steps."""
    file = project / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    for section, changes in SMALL.items():
        for key, value in changes.items():
            target = tree[section] if not isinstance(value, dict) else tree[section][key]
            for name, number in (value if isinstance(value, dict) else {key: value}).items():
                target[name]["quick"] = number
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def project_environment(project: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SEEHEAR_ROOT": str(project),
        "DAGSTER_HOME": str(project / "var" / "dagster"),
        "BENTOML_HOME": str(project / "models" / "bentoml"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def small_project():
    """A fresh clone whose models are small; tests that run the lineage share it."""
    with tempfile.TemporaryDirectory(prefix="seehear-") as folder:
        project = copy_checkout(Path(folder) / "project")
        shrink(project)
        commit_all(project)
        yield project
