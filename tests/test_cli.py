"""The `seehear` command: what it prints, and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
from click.testing import CliRunner

from ml import media
from ml.config import Paths, UserError
from serving import cli, client, packaging
from serving.cli.files import write_sound
from serving.cli.group import ended_in_order

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
        try:
            code = cli.main(list(arguments), prog_name="seehear")
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return int(code or 0), printed.out, printed.err

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


def test_search_can_be_narrowed(seehear):
    surest = seehear("search", "down.png", "talks", "--top", "1")[1].splitlines()
    assert len(surest) == 1
    assert seehear("search", "down.png", "talks", "--top", "0")[0] == 2
    code, _, err = seehear("search", "down.png", "talks", "--min-presence", "1")
    assert (code, err) == (1, "down: said in 2 of 2 recordings, in none with presence from 1\n")


def test_search_names_and_counts_what_it_cannot_read_and_goes_on(seehear, files, tmp_path):
    whole = (files / "talks" / "both.wav").read_bytes()
    for name, content in (("a.wav", whole), ("cut.wav", whole[:9000]), ("empty.wav", b""), ("junk.flac", b"junk")):
        (tmp_path / name).write_bytes(content)
    code, out, err = seehear("search", "down.png", str(tmp_path))
    assert code == 0
    assert [Path(line.split()[1]).name for line in out.splitlines()] == ["a.wav"]
    *named, counted = err.splitlines()
    assert [line.split("/")[-1].split(":")[0] for line in named] == ["cut.wav", "empty.wav", "junk.flac"]
    assert counted == "seehear: 3 of 4 recordings could not be read"


def test_search_follows_links_once_and_names_the_sounds_that_it_leaves_out(seehear, files, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "round").symlink_to(tmp_path)
    (tmp_path / "inside" / "talks").symlink_to(files / "talks")
    (tmp_path / "inside" / "talk.M4A").write_bytes(b"")
    code, out, err = seehear("search", "down.png", str(tmp_path))
    assert code == 0
    assert sorted(Path(line.split()[1]).name for line in out.splitlines()) == ["both.wav", "down.wav"]
    assert err == f"seehear: {tmp_path / 'inside' / 'talk.M4A'}: .m4a cannot be read; left out\n"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_search_draws_a_timeline(seehear, tmp_path, ending):
    target = tmp_path / f"timeline.{ending}"
    assert seehear("search", "down.png", "talks", "--plot", str(target))[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    if ending == "svg":
        assert "<svg" in target.read_text()
    else:
        pixels = media.decode_picture(target)
        assert pixels.shape[1] == 1500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_timeline_takes_any_name_as_it_is(seehear, tmp_path):
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / r"a$_\frac$寺.wav").write_bytes(tones.wav("down"))
    target = tmp_path / "timeline.svg"
    code, _, err = seehear("search", "down.png", str(tmp_path / "talks"), "--plot", str(target))
    assert (code, err) == (0, "")
    assert target.is_file()


def test_a_file_that_is_much_too_large_is_not_read(seehear, tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(513 * 2**20)
    code, _, err = seehear("classify", str(tmp_path / "huge.png"))
    assert (code, err.count("\n")) == (2, 1)
    assert "huge.png: 513 MiB; expected at most 512" in err


def test_json_keys_are_stable(seehear):
    answer = {"pictured", "present", "presence", "intervals", "heard"}
    for arguments, keys in (
        (["classify", "down.png"], {"file", "label", "probabilities", "objects"}),
        (["recognize", "talks/down.wav"], {"file", "label", "probabilities", "words"}),
        (["extract", "down.png", "talks/down.wav"], {"image", "audio", "out"} | answer),
        (["search", "down.png", "talks"], {"file", "duration_s"} | answer),
    ):
        for line in seehear(*arguments, "--json")[1].splitlines():
            assert set(json.loads(line)) == keys


def test_every_command_shows_examples(seehear):
    for command in ("classify", "recognize", "extract", "search"):
        code, out, _ = seehear(command, "-h")
        assert code == 0
        assert f"Examples:\n    seehear {command} " in out


def test_the_version_names_the_champion(seehear):
    code, out, _ = seehear("--version")
    assert code == 0
    assert out == "seehear 0.1.0\nchampion d\n"


def test_the_version_says_why_it_names_no_champion(seehear, monkeypatch, tmp_path):
    (tmp_path / "params.yaml").write_text((CODE / "params.yaml").read_text())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "champion.json").write_text("{")
    monkeypatch.setenv("SEEHEAR_ROOT", str(tmp_path))
    assert "champion none: " in (said := seehear("--version")[1])
    assert "champion.json: cannot be read" in said
    monkeypatch.setenv("SEEHEAR_SOURCE", "quatsch")
    assert "champion none: SEEHEAR_SOURCE: data.source: expected one of starter" in seehear("--version")[1]


def test_serving_with_a_wrong_setting_is_one_line(monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "quatsch")
    ended = CliRunner().invoke(client.main)
    assert ended.exit_code == 2
    assert ended.output.startswith("serve: SEEHEAR_SOURCE: data.source: expected one of starter")


def test_a_service_built_with_other_settings_is_not_started(tmp_path):
    (tmp_path / "src").mkdir()
    built = (CODE / "params.yaml").read_text()
    (tmp_path / "src" / "params.yaml").write_text(built)
    client.require_settings(tmp_path)
    (tmp_path / "src" / "params.yaml").write_text(built.replace("  looks: 2 ", "  glances: 2 "))
    client.require_settings(tmp_path)
    (tmp_path / "src" / "params.yaml").write_text(built.replace("keep_media_days: 0", "keep_media_days: 30"))
    with pytest.raises(UserError, match=r"serving\.keep_media_days: 0, but the service was built with 30; `make run`"):
        client.require_settings(tmp_path)


def test_the_help_names_every_command_in_full_and_the_exit_codes_apart(seehear):
    out = seehear("--help")[1]
    assert "\n\n  Exit codes: 0 done" in out
    for command in ("add", "classify", "extract", "recognize", "review", "rollback", "search"):
        (row,) = re.findall(rf"^  {command} +((?:.+\n {{5,}})*.+)$", out, re.MULTILINE)
        assert re.search(r"[a-z]\.$", row), row


def test_stereo_at_44100_hz_comes_back_at_its_own_rate_and_length(seehear, tmp_path):
    left = media.resample(tones.recording("down", seed=1), 8000, 44100)
    soundfile.write(tmp_path / "in.flac", np.stack([left, 0.5 * left], axis=1), 44100)
    code, _, _ = seehear("extract", "down.png", str(tmp_path / "in.flac"), "-o", str(tmp_path / "out.wav"))
    sound, rate_hz = soundfile.read(tmp_path / "out.wav")
    assert (code, rate_hz, len(sound)) == (0, 44100, len(left))
    assert np.corrcoef(sound, left)[0, 1] > 0.95


def test_a_sound_beyond_full_scale_is_written_as_floats(seehear, tmp_path):
    soundfile.write(tmp_path / "in.wav", 5 * tones.recording("down", seed=1), 8000, subtype="FLOAT")
    assert seehear("extract", "down.png", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"))[0] == 0
    assert soundfile.info(tmp_path / "out.wav").subtype == "FLOAT"
    assert np.abs(soundfile.read(tmp_path / "out.wav")[0]).max() > 1


def test_ten_milliseconds_and_a_picture_of_something_else_are_nothing_found(seehear, tmp_path):
    (tmp_path / "short.wav").write_bytes(media.encode_wav(tones.word("down")[1000:1080], 8000))
    assert seehear("extract", "across.png", str(tmp_path / "short.wav"))[0] == 1
    code, out, _ = seehear("extract", "noise.png", "talks/down.wav")
    assert code == 1
    assert out == "pictured: nothing known\nso nothing was looked for in talks/down.wav\n"
    code, out, err = seehear("search", "noise.png", "talks")
    assert (code, out) == (1, "")
    assert err == "seehear: noise.png: shows nothing that the model knows, so nothing was looked for\n"


@pytest.mark.parametrize("name", ["in.wav", "link.wav"])
def test_what_is_read_is_never_written_over(seehear, tmp_path, name):
    recording, picture = tones.wav("down"), tones.png("down")
    (tmp_path / "in.wav").write_bytes(recording)
    (tmp_path / "in.png").write_bytes(picture)
    (tmp_path / "link.wav").symlink_to("in.wav")
    code, _, err = seehear("extract", "down.png", str(tmp_path / "in.wav"), "-o", str(tmp_path / name))
    assert code == 2
    assert f"{name}: is the recording itself; expected another file" in err
    code, _, err = seehear("search", str(tmp_path / "in.png"), "talks", "--plot", str(tmp_path / "in.png"))
    assert code == 2
    assert "in.png: is the picture itself; expected another file" in err
    assert ((tmp_path / "in.wav").read_bytes(), (tmp_path / "in.png").read_bytes()) == (recording, picture)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_entered_is_bad_input(seehear, tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    code, _, err = seehear("extract", "down.png", "talks/down.wav", "-o", str(tmp_path / "closed" / "out.wav"))
    assert code == 2
    assert "out.wav: cannot be written: Permission denied" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_there_is_not_is_one_line(seehear, monkeypatch):
    monkeypatch.setenv("SEEHEAR_DEVICE", "cuda")
    code, _, err = seehear("classify", "down.png")
    assert code == 2
    assert err.startswith("seehear: training.device: cuda: this machine has no GPU")


def test_a_full_disk_under_what_is_printed_is_one_line(root):
    environment = {**os.environ, "SEEHEAR_ROOT": str(root), "PYTHONPATH": str(CODE)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--version"), env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "seehear: the disk is full\n")


def test_samples_that_are_not_numbers_are_bad_input(seehear, tmp_path):
    sound = tones.recording("down", seconds=12.0)
    sound[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, 8000, subtype="FLOAT")
    code, out, err = seehear("recognize", str(tmp_path / "nan.wav"))
    assert (code, out) == (2, "")
    assert "nan.wav: holds samples that are not finite" in err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving.cli", *arguments]


def test_a_reader_that_has_seen_enough_ends_it_quietly(root, files):
    many = ["down.png"] * 400
    environment = {**os.environ, "SEEHEAR_ROOT": str(root), "PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command("classify", *many, "--json"), cwd=files, env=environment, **pipes) as process:
        assert json.loads(process.stdout.readline())["label"] == "down"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


def test_a_name_that_is_no_text_goes_out_as_it_is(root, files, tmp_path):
    (tmp_path / os.fsdecode(b"\xc4\xe3.wav")).write_bytes(tones.wav("down"))
    environment = {**os.environ, "SEEHEAR_ROOT": str(root), "PYTHONPATH": str(CODE), "LC_ALL": "en_US.UTF-8"}
    environment["PYTHONIOENCODING"] = "utf-8:strict"  # as in a locale of words, where names are not let through
    done = subprocess.run(command("search", "down.png", str(tmp_path)), cwd=files, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\xc4\xe3.wav" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_extraction_leaves_what_was_there(number, code, root, files, tmp_path):
    sound = np.tile(tones.recording("down", "across"), 1800)  # an hour
    (tmp_path / "in.wav").write_bytes(media.encode_wav(sound, 8000))
    (tmp_path / "out.wav").write_bytes(b"before")
    environment = {**os.environ, "SEEHEAR_ROOT": str(root), "PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
    arguments = command("extract", "down.png", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"))
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job may not heed it
    with subprocess.Popen(arguments, cwd=files, env=environment, stderr=subprocess.PIPE, preexec_fn=heeding) as process:
        until = time.monotonic() + 60
        while not spooling(process.pid, tmp_path):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav"]
    assert (tmp_path / "out.wav").read_bytes() == b"before"


@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_whose_exception_a_callback_swallowed_still_ends_the_writing(number, end, tmp_path):
    (tmp_path / "out.wav").write_bytes(b"before")

    def blocks():
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            signal.raise_signal(number)
        return [np.zeros(100, np.float32)]

    with ended_in_order(), pytest.raises(end):
        write_sound(tmp_path / "out.wav", blocks, 100, 8000)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


JOB = """
import pathlib, time

def main(words):
    try:
        pathlib.Path("begun").touch()
        time.sleep(60)
    finally:
        time.sleep(0.5)
        pathlib.Path("begun").rename("ended")
"""
COMMAND = """
import click
from serving.adding import run_apart
from serving.cli.group import OneLine

OneLine(commands=[click.Command("go", callback=lambda: run_apart("job"))]).main(["go"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_job_run_apart_ends_in_order_before_its_command_does(number, code, tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "params.yaml").write_text((CODE / "params.yaml").read_text())
    environment = {**os.environ, "SEEHEAR_ROOT": str(tmp_path), "PYTHONPATH": str(CODE)}
    heeding = partial(signal.signal, number, signal.SIG_DFL)
    arguments = [sys.executable, "-c", COMMAND]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, preexec_fn=heeding, start_new_session=True
    ) as process:
        until = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        if number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        assert process.wait(60) == code
    assert (tmp_path / "ended").exists()


def test_a_job_that_is_killed_ends_its_command_as_a_shell_would_say_it(tmp_path):
    (tmp_path / "job.py").write_text("import os\n\ndef main(words):\n    os.kill(os.getpid(), 9)\n")
    (tmp_path / "params.yaml").write_text((CODE / "params.yaml").read_text())
    environment = {**os.environ, "SEEHEAR_ROOT": str(tmp_path), "PYTHONPATH": str(CODE)}
    assert subprocess.run([sys.executable, "-c", COMMAND], cwd=tmp_path, env=environment).returncode == 137


def test_a_rollback_to_an_empty_version_is_refused(seehear):
    for empty in ("", " "):
        code, out, err = seehear("rollback", "--reason", "none", "--to", empty)
        assert (code, out) == (2, "")
        assert err == "seehear: --to: empty; expected a former champion's version, or no --to for the one before\n"


def test_a_setting_that_only_the_job_reads_is_one_line_as_well(root, tmp_path):
    wrong = (CODE / "params.yaml").read_text().replace('drift_cron: "15 2 * * *"', 'drift_cron: "every day at two"')
    (tmp_path / "params.yaml").write_text(wrong)
    for command in (["review"], ["add", "."], ["rollback", "--reason", "none"]):
        done = subprocess.run(
            [sys.executable, "-m", "serving.cli", *command],
            cwd=CODE, env={**os.environ, "SEEHEAR_ROOT": str(tmp_path)}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("seehear: params.yaml: monitoring.drift_cron: expected a cron schedule")
        assert len(done.stderr.splitlines()) == 1


def spooling(pid: int, folder: Path) -> bool:
    """Whether the process has a nameless file open in the folder that holds something already."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            named = os.readlink(link)
            if str(folder) in named and "deleted" in named:
                return link.stat().st_size > 0
    return False


@pytest.mark.slow
def test_two_hours_need_no_more_memory_than_ten_minutes(root, files, tmp_path):
    """Takes about a minute."""
    minute = np.tile(tones.recording("down", "across"), 30)
    peaks_mb = {}
    for minutes in (10, 120):
        with soundfile.SoundFile(tmp_path / "in.wav", "w", 8000, 1, subtype="PCM_16") as file:
            for seed in range(minutes):
                file.write(minute + np.random.default_rng(seed).normal(0, 0.002, len(minute)))
        environment = {**os.environ, "SEEHEAR_ROOT": str(root), "PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
        arguments = command("extract", "down.png", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"))
        with subprocess.Popen(arguments, cwd=files, env=environment, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert soundfile.info(tmp_path / "out.wav").frames == minutes * len(minute)
        peaks_mb[minutes] = used.ru_maxrss / 1024
    assert peaks_mb[120] < peaks_mb[10] + 40


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
        (["search", "down.png", "talks", "--min-presence", "nan"], "'--min-presence': nan is no number from 0 to 1"),
        (["extract", "down.png", "talks/both.wav", "-o", "n" * 300 + ".wav"], "n.wav: cannot be written: File name"),
        (["extract", "down.png", "talks/both.wav", "--object", "1"], "object 1: expected 0, the picture's only object"),
        (["extract", "noise.png", "talks/both.wav", "--object", "1"], "object 1: expected none, since nothing known"),
        (["classify", ""], "'': expected the name of a file"),
        (["search", "down.png", ""], "'': not a folder"),
        (["extract", "down.png"], "Missing argument 'AUDIO'"),
        (["sing"], "No such command 'sing'"),
        (["search", "down.png", "talks", "--plot", "t.gif"], "t.gif: expected a name that ends in .png or .svg"),
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
    monkeypatch.setattr(cli.files, "load_settings", lambda: 1 / 0)
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
