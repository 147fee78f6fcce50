"""Who may import whom: the contracts of pyproject.toml hold."""

import subprocess
import sys
from pathlib import Path

from orchestration.resources import sources

ROOT = Path(__file__).resolve().parents[1]


def test_what_an_asset_is_made_of_holds_all_that_it_runs():
    for whole in ("ml.training", "ml.evaluation", "ml.predictor"):
        code = f"import sys, {whole}; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('ml.')))"
        ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        files = {Path(name) for name in ran.stdout.split()}
        assert len(files) > 5
        assert {file for file in files if file.name != "__init__.py"} <= sources(whole)
    assert ROOT / "ml" / "spotting.py" in sources("ml.training.separation") - sources("ml.training.pictures")
    assert not {file for file in sources("serving") if file.is_relative_to(ROOT / "orchestration")}


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
