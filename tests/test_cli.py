"""The `seehear` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones

from ml import media
from ml.config import Paths
from serving import cli, packaging

CODE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project root whose champion is the small bundle."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "params.yaml").write_text((CODE / "params.yaml").read_text())
    paths = Paths(folder, "starter")
    tag = packaging.save_bundle_as_bento_model(tones.bundle(), paths)
    paths.champion.write_text(json.dumps({"tag": tag, "digest": "d"}))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "talks").mkdir()
    for label in tones.WORDS:
        (folder / f"{label}.png").write_bytes(tones.png(label))
    (folder / "noise.png").write_bytes(tones.png(None))
    (folder / "junk.png").write_bytes(b"junk")
    (folder / "silence.wav").write_bytes(media.encode_wav(np.zeros(8000, np.float32), 8000))
    (folder / "talks" / "both.wav").write_bytes(tones.wav("across", "down"))
    (folder / "talks" / "down.wav").write_bytes(tones.wav("down"))
    (folder / "talks" / "notes.txt").write_text("not a recording")
    return folder


@pytest.fixture
def seehear(root, files, monkeypatch, capsys):
    """Runs the command inside the folder of files: (exit code, standard output, standard error)."""
    monkeypatch.setenv("SEEHEAR_ROOT", str(root))
    monkeypatch.chdir(files)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments), prog_name="seehear")
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_classify_says_what_each_picture_shows(seehear):
    code, out, err = seehear("classify", "across.png", "slanted.png", "noise.png")
    assert (code, err) == (0, "")
    assert [line.split(" (")[0] for line in out.splitlines()] == [
        *("across.png: across", "slanted.png: slanted", "noise.png: nothing known"),
    ]


def test_classify_json_is_one_object_a_line(seehear):
    code, out, _ = seehear("classify", "--json", "across.png", "down.png")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(record["file"], record["label"]) for record in records] == [("across.png", "across"), ("down.png", "down")]
    assert set(records[0]) == {"file", "label", "probabilities", "objects"}


def test_nothing_known_is_exit_code_1(seehear):
    assert seehear("classify", "noise.png")[0] == 1
    assert seehear("recognize", "silence.wav")[0] == 1


def test_recognize_says_the_words_and_when(seehear):
    code, out, _ = seehear("recognize", "talks/both.wav")
    assert code == 0
    assert out.index("across 0.") < out.index("down 0.")


def test_extract_writes_the_word_s_own_sound(seehear, tmp_path):
    code, out, _ = seehear("extract", "down.png", "talks/both.wav", "-o", str(tmp_path / "out.wav"))
    assert code == 0
    assert "heard: down" in out
    sound, rate_hz = soundfile.read(tmp_path / "out.wav")
    assert (len(sound), rate_hz) == (16000, 8000)
    assert np.abs(sound[6400:9600]).mean() > 5 * np.abs(sound[1600:4800]).mean()
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_extract_of_an_absent_word_is_exit_code_1_and_silence(seehear, tmp_path):
    code, out, _ = seehear("extract", "slanted.png", "talks/both.wav", "--json", "-o", str(tmp_path / "out.wav"))
    answer = json.loads(out)
    assert code == 1
    assert (answer["present"], answer["intervals"], answer["heard"]) == (False, [], None)
    assert not soundfile.read(tmp_path / "out.wav")[0].any()


def test_search_ranks_the_recordings_that_say_it_and_when(seehear):
    code, out, err = seehear("search", "across.png", "talks")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert "both.wav" in line
    assert " 0.2" in line or " 0.1" in line
    found = [json.loads(line) for line in seehear("search", "down.png", "talks", "--json")[1].splitlines()]
    assert {Path(hit["file"]).name for hit in found} == {"both.wav", "down.wav"}
    assert found[0]["presence"] >= found[1]["presence"]


def test_search_without_a_hit_is_exit_code_1(seehear):
    code, out, err = seehear("search", "slanted.png", "talks")
    assert (code, out) == (1, "")
    assert err == "slanted: said in none of 2 recordings\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["classify", "gone.png"], "gone.png: no such file"),
        (["classify", "talks"], "talks: not a file"),
        (["classify", "junk.png"], "junk.png: cannot be decoded"),
        (["recognize", "down.png"], "down.png: cannot be decoded"),
        (["extract", "junk.png", "talks/both.wav"], "junk.png: cannot be decoded"),
        (["extract", "down.png", "gone.wav"], "gone.wav: no such file"),
        (["extract", "down.png", "talks/both.wav", "-o", "out.mp3"], "out.mp3: expected a name that ends in .wav"),
        (["extract", "down.png", "talks/both.wav", "-o", "gone/out.wav"], "gone/out.wav: cannot be written"),
        (["search", "down.png", "gone"], "gone: not a folder"),
        (["search", "noise.png", "talks"], "noise.png: shows nothing"),
        (["extract", "down.png"], "Missing argument 'AUDIO'"),
        (["sing"], "No such command 'sing'"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line_that_names_it(seehear, arguments, named):
    code, out, err = seehear(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("seehear: ")
    assert named in err
    assert err.count("\n") == 1


def test_one_bad_file_among_good_ones_is_reported_and_the_rest_answered(seehear):
    code, out, err = seehear("classify", "junk.png", "down.png")
    assert code == 2
    assert out.startswith("down.png: down")
    assert err.startswith("seehear: junk.png")


def test_without_a_champion_it_says_what_to_run(seehear, monkeypatch, tmp_path):
    (tmp_path / "params.yaml").write_text((CODE / "params.yaml").read_text())
    monkeypatch.setenv("SEEHEAR_ROOT", str(tmp_path))
    code, _, err = seehear("classify", "down.png")
    assert code == 2
    assert "run `make run` first" in err


def test_a_fault_of_the_program_is_not_taken_for_nothing_found(seehear, monkeypatch):
    monkeypatch.setattr(cli, "load_settings", lambda: 1 / 0)
    assert seehear("classify", "down.png")[0] == 70


def test_it_starts_without_the_heavy_libraries():
    heavy = "{'torch', 'bentoml', 'scipy', 'numpy', 'pandas'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, serving.cli; print({heavy})"],
        cwd=CODE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
