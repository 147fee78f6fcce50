"""The packaged service over real HTTP: the contract, what is refused and how, and the log it leaves."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import requests
import soundfile
import tones
from PIL import Image
from served import metric, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from ml import media
from ml.config import Paths, UserError
from ml.predictor import Predictor, write_bundle
from ml.predictor.bundle import read_goldens
from serving import packaging
from serving.client import _readiness, ask, free_port, require_free, serve
from serving.http import HttpLayer, read_files
from serving.refusals import Refused

TOKEN = "a token äöü"
PICTURE, RECORDING = tones.png("down"), tones.wav("across", "down")


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Paths:
    return Paths(tmp_path_factory.mktemp("service"), "starter")


@pytest.fixture(scope="module")
def bento(paths) -> str:
    return packaging.build_bento(packaging.save_bundle_as_bento_model(tones.bundle(), paths), paths)


@pytest.fixture(scope="module")
def url(paths, bento):
    (paths.var / "media" / "date=2026-01-01").mkdir(parents=True)  # kept by an earlier setting
    with serve(bento, paths) as address:
        yield address


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(tones.bundle())


def extract(url: str, picture: bytes = PICTURE, recording: bytes = RECORDING, **words: str) -> requests.Response:
    return requests.post(f"{url}/extract", words, files={"image": picture, "audio": recording}, timeout=60)


def sound_of(answer: dict) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(answer["audio_wav_base64"])), dtype="float32")


def error(answer: requests.Response | httpx.Response) -> dict:
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["message"].strip() == " ".join(body["error"]["message"].split()), "one line"
    assert "\n" not in body["error"]["message"]
    return body["error"]


def rows_with(folder: Path, ids: list[str], wait_s: float = 15) -> dict[str, dict]:
    """The rows of these requests, once the log has been flushed."""
    deadline = time.monotonic() + wait_s
    while True:
        rows = pq.read_table(folder).to_pylist() if folder.exists() else []
        found = {row["request_id"]: row for row in rows if row["request_id"] in ids}
        if len(found) == len(ids) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ the contract


def test_extract_answers_with_the_contract_s_keys_and_the_word_s_own_sound(url, predictor):
    answer = extract(url).json()
    assert set(answer) == {
        *("request_id", "pictured", "present", "presence", "intervals", "heard"),
        *("audio_wav_base64", "sample_rate_hz", "model"),
    }
    assert set(answer["pictured"]) == {"label", "probabilities"}
    assert set(answer["heard"]) == {"label", "probability"}
    assert [set(interval) for interval in answer["intervals"]] == [{"start_s", "end_s", "score"}]
    assert (answer["pictured"]["label"], answer["present"], answer["heard"]["label"]) == ("down", True, "down")
    assert answer["model"] == predictor.digest
    sound, rate_hz = sound_of(answer)
    assert (len(sound), rate_hz, answer["sample_rate_hz"]) == (16000, 8000, 8000)


def test_which_object_is_asked_for_may_be_said_and_then_all_are_listed(url, predictor):
    [object_] = predictor.classify_image(tones.picture("down")).objects
    for asked in ("", "0"):
        answer = extract(url, object=asked).json()
        assert answer["object"] == 0
        assert answer["objects"] == [
            {"label": "down", "probability": pytest.approx(object_.probability, abs=1e-4), "box": list(object_.box)}
        ]
        assert answer["pictured"]["label"] == "down"
    for asked, said in (("1", "object 1: expected 0, the picture's only object"), ("down", "object: expected")):
        refused = extract(url, object=asked)
        assert refused.status_code == 400
        assert said in error(refused)["message"]
    twice = [("object", (None, "0")), ("object", (None, "0")), ("image", PICTURE), ("audio", RECORDING)]
    assert error(requests.post(f"{url}/extract", files=twice, timeout=60))["code"] == "bad_field"


def test_served_equals_the_offline_predictor(url, predictor):
    answer = extract(url).json()
    found = predictor.extract(tones.picture("down"), soundfile.read(io.BytesIO(RECORDING), dtype="float32")[0], 8000)
    assert answer["presence"] == pytest.approx(found.presence, abs=1e-4)
    assert answer["pictured"]["probabilities"] == pytest.approx(found.pictured.probabilities, abs=1e-4)
    assert np.abs(sound_of(answer)[0] - found.estimate).max() < 1e-4


def test_an_absent_word_gives_no_interval_nothing_heard_and_silence(url):
    answer = extract(url, tones.png("slanted")).json()
    assert (answer["pictured"]["label"], answer["present"]) == ("slanted", False)
    assert (answer["intervals"], answer["heard"]) == ([], None)
    sound, rate_hz = sound_of(answer)
    assert (len(sound), rate_hz) == (16000, 8000)
    assert not sound.any()


def test_a_picture_of_nothing_known_has_no_label_and_no_presence(url):
    noise = tones.png(None)
    assert requests.post(f"{url}/classify_image", files={"image": noise}, timeout=60).json()["label"] is None
    answer = extract(url, noise).json()
    assert (answer["pictured"]["label"], answer["present"]) == (None, False)


def test_the_sound_has_the_recording_s_own_rate_and_length(url):
    spoken = tones.recording("down", seconds=1.3)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(spoken, 2)[:-1], 16000, format="FLAC")
    sound, rate_hz = sound_of(extract(url, recording=file.getvalue()).json())
    assert (len(sound), rate_hz) == (2 * len(spoken) - 1, 16000)


def test_classify_image_answers_with_the_contract_s_keys(url):
    answer = requests.post(f"{url}/classify_image", files={"image": PICTURE}, timeout=60).json()
    assert set(answer) == {"request_id", "label", "probabilities", "objects", "model"}
    assert answer["label"] == "down"
    assert set(answer["probabilities"]) == set(tones.WORDS)
    (pictured,) = answer["objects"]
    assert set(pictured) == {"label", "probability", "box"}
    x0, y0, x1, y1 = pictured["box"]
    assert 0 <= x0 < x1 <= tones.SIDE
    assert 0 <= y0 < y1 <= tones.SIDE


def test_recognize_speech_answers_with_the_contract_s_keys(url):
    answer = requests.post(f"{url}/recognize_speech", files={"audio": RECORDING}, timeout=60).json()
    assert set(answer) == {"request_id", "label", "probabilities", "words", "model"}
    assert [word["label"] for word in answer["words"]] == ["across", "down"]
    assert set(answer["words"][0]) == {"label", "probability", "start_s", "end_s"}


def test_every_answer_carries_an_id_of_its_own_in_body_and_header(url):
    answers = [extract(url) for _ in range(3)]
    ids = {answer.json()["request_id"] for answer in answers}
    assert len(ids) == 3
    assert {answer.headers["X-Request-ID"] for answer in answers} == ids
    assert requests.get(f"{url}/nowhere", timeout=60).headers["X-Request-ID"]


def test_probes_and_metrics_answer(url, predictor):
    extract(url)
    assert requests.get(f"{url}/livez", timeout=60).status_code == 200
    assert requests.get(f"{url}/readyz", timeout=60).status_code == 200
    metrics = requests.get(f"{url}/metrics", timeout=60).text
    assert f'seehear_model_info{{digest="{predictor.digest}"}} 1.0' in metrics
    assert "seehear_log_dropped_rows_total 0.0" in metrics
    assert 'seehear_answers_total{endpoint="extract"' in metrics


def test_openapi_describes_every_field_in_and_out_and_every_error(url):
    document = requests.get(f"{url}/docs.json", timeout=60).json()
    assert {"/classify_image", "/recognize_speech", "/extract", "/feedback"} <= set(document["paths"])
    call = document["paths"]["/extract"]["post"]
    form = call["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"image", "audio"}
    assert set(form["properties"]) == {"image", "audio", "object"}
    assert {"200", "400", "401", "408", "413", "429", "500", "503", "504"} == set(call["responses"])
    schemas = document["components"]["schemas"]
    assert set(schemas["Correction"]["properties"]) == {"request_id", "pictured", "heard", "consent"}
    fields = {**schemas, "form": form}
    undescribed = [
        f"{name}.{field}"
        for name, schema in fields.items()
        for field, about in schema["properties"].items()
        if not {"description", "$ref"} & about.keys()
    ]
    assert undescribed == []


def test_schemathesis_finds_nothing_wrong_by_the_document(url, tmp_path):
    """By the document any bytes are a file, so a 400 for one is no finding."""
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/docs.json", "--seed=1"]
    command += ["--max-examples=15", "--exclude-checks=positive_data_acceptance"]
    done = subprocess.run(
        [*command, "--phases=examples,coverage,fuzzing"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_page_and_its_examples_are_there_and_the_root_leads_to_it(url):
    for address in ("", "/app", "/app/"):
        answer = requests.get(f"{url}{address}", timeout=60)
        assert (answer.status_code, answer.url) == (200, f"{url}/app/")
        assert "<h1>SeeHear</h1>" in answer.text
        for step in answer.history:
            assert step.headers["Location"] == "app/", "relative, so that a prefix of a proxy stays"
    first = requests.get(f"{url}/app/examples", timeout=60).json()[0]
    golden = read_goldens(tones.bundle())[0]
    picture = requests.get(f"{url}/app/{first['picture']}", timeout=60)
    assert picture.content == golden.picture
    assert picture.headers["Cache-Control"] == "no-cache", "another champion has other examples"
    assert requests.get(f"{url}/app/{first['recording']}", timeout=60).content == golden.recording


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("files", "code", "named"),
    [
        ({}, "not_a_form", "image"),
        ({"other": b"x"}, "missing_file", "image"),
        ({"image": PICTURE}, "missing_file", "audio"),
        ({"image": (None, "http://127.0.0.1:9/secret"), "audio": RECORDING}, "not_a_file", "image"),
        ({"image": b"junk", "audio": RECORDING}, "bad_content", "image"),
        ({"image": PICTURE, "audio": b"junk"}, "bad_content", "audio"),
        ({"image": b"", "audio": RECORDING}, "bad_content", "image"),
        ({"image": PICTURE[:200], "audio": RECORDING}, "bad_content", "image"),
        ({"image": PICTURE, "audio": RECORDING[:-1000]}, "bad_content", "audio"),
        ({"image": RECORDING, "audio": PICTURE}, "bad_content", "image"),
    ],
)
def test_what_cannot_be_used_is_a_400_that_names_the_field(url, files, code, named):
    answer = requests.post(f"{url}/extract", files=files, timeout=60)
    assert answer.status_code == 400
    assert error(answer)["code"] == code
    assert named in error(answer)["message"]


def test_two_files_in_one_field_are_refused(url):
    answer = requests.post(f"{url}/classify_image", files=[("image", PICTURE), ("image", PICTURE)], timeout=60)
    assert answer.status_code == 400
    assert error(answer) == {"code": "too_many_files", "message": "image: 2 values; expected one file"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"abc", "multipart/form-data"),
        (b"abc", "multipart/form-data; boundary=q"),
        (
            b'--q\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=q",
        ),
        (b'"http://127.0.0.1:9/secret"', "application/json"),
        (b"image=http%3A%2F%2F127.0.0.1%3A9", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_form_is_a_400(url, body, kind):
    answer = requests.post(f"{url}/classify_image", data=body, headers={"Content-Type": kind}, timeout=60)
    assert answer.status_code == 400
    assert error(answer)


def test_a_pickle_is_refused(url):
    kind = {"Content-Type": "application/vnd.bentoml+pickle"}
    answer = requests.post(f"{url}/classify_image", data=b"x", headers=kind, timeout=60)
    assert answer.status_code == 415
    assert error(answer)["code"] == "unsupported_media_type"


def test_a_picture_of_too_many_pixels_is_a_400_and_one_just_within_is_answered(url):
    def png(width: int, height: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (width, height)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    too_large = requests.post(f"{url}/classify_image", files={"image": png(5001, 5000)}, timeout=60)
    assert too_large.status_code == 400
    assert "25 megapixels" in error(too_large)["message"]
    assert requests.post(f"{url}/classify_image", files={"image": png(5000, 5000)}, timeout=60).status_code == 200


def test_a_recording_that_is_too_long_is_a_400(url):
    answer = requests.post(f"{url}/recognize_speech", files={"audio": tones.wav(seconds=60.5)}, timeout=60)
    assert answer.status_code == 400
    assert "60 s" in error(answer)["message"]


def test_a_body_that_says_it_is_too_large_is_a_413(url):
    answer = requests.post(f"{url}/classify_image", files={"image": bytes(24_100_000)}, timeout=60)
    assert answer.status_code == 413
    assert error(answer)["code"] == "body_too_large"


def test_a_body_that_turns_out_too_large_while_it_comes_is_a_413(url):
    def endless():
        yield b'--q\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(26):
            yield bytes(1_000_000)

    kind = {"Content-Type": "multipart/form-data; boundary=q"}
    answer = requests.post(f"{url}/classify_image", data=endless(), headers=kind, timeout=60)
    assert answer.status_code == 413
    assert error(answer)["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/app/nowhere", 404, "not_found"),
        ("GET", "/app/examples/..%2F..%2Fmanifest.json", 404, "not_found"),
        ("GET", "/extract", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("DELETE", "/feedback", 405, "method_not_allowed"),
    ],
)
def test_wrong_addresses_and_methods_have_the_common_form(url, method, path, status, code):
    answer = requests.request(method, f"{url}{path}", timeout=60)
    assert answer.status_code == status
    assert error(answer)["code"] == code


# ----------------------------------------------------------------------------------------- feedback and the log


def test_paths_that_anybody_makes_up_leave_nothing_in_the_metrics(url):
    for path in ("/made-up-17", "/app/made-up-17", "/app/examples/made-up-17", "/extract/made-up-17"):
        assert requests.get(f"{url}{path}", timeout=60).status_code == 404
    assert "made-up-17" not in requests.get(f"{url}/metrics", timeout=60).text


def test_every_answer_is_logged_with_its_id_and_model_and_feedback_joins_it(url, paths, predictor):
    present, absent = extract(url).json(), extract(url, tones.png("slanted")).json()
    spoken = requests.post(f"{url}/recognize_speech", files={"audio": RECORDING}, timeout=60).json()
    correction = {"request_id": absent["request_id"], "pictured": "down", "consent": True}
    assert requests.post(f"{url}/feedback", json=correction, timeout=60).status_code == 202

    rows = rows_with(paths.prediction_log, [answer["request_id"] for answer in (present, absent, spoken)])
    row = rows[present["request_id"]]
    assert (row["endpoint"], row["model"], row["pictured"], row["heard"]) == (
        *("extract", predictor.digest, "down", "down"),
    )
    assert row["presence"] == pytest.approx(present["presence"])
    assert row["pictured_confidence"] == pytest.approx(present["pictured"]["probabilities"]["down"])
    assert row["present"] is True
    assert row["audio_duration_s"] == 2
    assert row["image_brightness"] == pytest.approx(tones.picture("down").mean() / 255, abs=1e-3)
    assert row["latency_ms"] > 0
    assert len(row["image_embedding"]) == len(predictor.classify_image(tones.picture("down")).embedding)
    whole = predictor.embed_recording(*media.decode_recording(RECORDING))
    np.testing.assert_allclose(row["speech_embedding"], whole, atol=1e-4)
    assert dict(row["pictured_probabilities"]) == pytest.approx(present["pictured"]["probabilities"])
    assert dict(row["heard_probabilities"])["down"] == pytest.approx(present["heard"]["probability"])
    assert not list((paths.var / "media").iterdir()), "no raw media unless switched on, and what was kept goes"
    assert rows[absent["request_id"]]["present"] is False
    assert rows[absent["request_id"]]["heard"] is None
    assert rows[spoken["request_id"]]["image_brightness"] is None
    assert rows[spoken["request_id"]]["speech_embedding"]

    joined = rows_with(paths.var / "feedback", [absent["request_id"]])[absent["request_id"]]
    assert (joined["pictured"], joined["heard"], joined["consent"]) == ("down", None, True)


@pytest.mark.slow
def test_a_log_and_media_that_cannot_be_written_fail_no_request_and_are_counted(bento, paths, tmp_path, monkeypatch):
    (tmp_path / "no-folder").write_text("a file stands where the folder should be")
    monkeypatch.setenv("SEEHEAR_LOG", str(tmp_path / "no-folder"))
    monkeypatch.setenv("SEEHEAR_KEEP_MEDIA_DAYS", "1")
    with serve(bento, paths) as address:
        assert [extract(address).status_code for _ in range(5)] == [200] * 5
        until(lambda: sum(metric(address, "seehear_log_dropped_rows_total").values()) >= 5, 30)


def test_refused_requests_leave_no_row(url, paths):
    bad = requests.post(f"{url}/classify_image", files={"image": b"junk"}, timeout=60).headers["X-Request-ID"]
    good = extract(url).json()["request_id"]
    assert set(rows_with(paths.prediction_log, [good])) == {good}
    assert not rows_with(paths.prediction_log, [bad], wait_s=0)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        "null",
        '{"consent": true}',
        '{"request_id": "%s"}',
        '{"request_id": "%s", "consent": 1}',
        '{"request_id": "%s", "consent": NaN}',
        '{"request_id": "%s", "consent": true, "pictured": 7}',
        '{"request_id": "%s", "consent": true, "pictured": ""}',
        '{"request_id": "%s", "consent": true, "sound": "x"}',
        '{"request_id": "../../etc", "consent": true}',
        "[" * 60_000,
    ],
)
def test_feedback_that_is_not_a_correction_is_a_400(url, body):
    answer = requests.post(f"{url}/feedback", data=body.replace("%s", "0" * 32), timeout=60)
    assert answer.status_code == 400
    assert error(answer)["code"] in ("bad_json", "bad_feedback")


def test_what_a_client_makes_up_is_named_in_one_short_line(url):
    name = "made\nup\n" * 60
    correction = {"request_id": "0" * 32, "consent": True, name: 1}
    for answer, code in (
        (requests.post(f"{url}/feedback", json=correction, timeout=60), "bad_feedback"),
        (requests.get(f"{url}/app/examples/{quote(name)}", timeout=60), "not_found"),
    ):
        assert error(answer)["code"] == code
        assert len(answer.json()["error"]["message"]) < 200


def test_a_bento_that_keeps_no_log_says_so_instead_of_taking_feedback(paths, bento):
    with serve(bento, paths, env={"SEEHEAR_ROOT": "", "SEEHEAR_LOG": ""}) as alone:
        answered = extract(alone).json()
        refused = requests.post(
            f"{alone}/feedback",
            json={"request_id": answered["request_id"], "pictured": "down", "consent": False},
            timeout=60,
        )
    assert refused.status_code == 503
    assert error(refused)["code"] == "not_kept"


def test_feedback_takes_no_more_than_a_correction_needs(url):
    answer = requests.post(f"{url}/feedback", data=b" " * 64_001, timeout=60)
    assert answer.status_code == 413
    assert error(answer) == {"code": "body_too_large", "message": "the body is larger than the 64 kB taken here"}


# ---------------------------------------------------------------------------------------- the Bento and its life


def test_the_bento_holds_its_model_pinned_its_code_and_a_dockerfile(bento, paths):
    import yaml

    folder = packaging.bento_folder(bento, paths)
    about = yaml.safe_load((folder / "bento.yaml").read_text())
    (model,) = about["services"][0]["models"]
    assert model["tag"] == about["args"]["model"] == f"seehear:{bento.split(':')[1].rpartition('-')[0]}"
    container = (folder / "env" / "docker" / "Dockerfile").read_text()
    assert "requirements.txt" in container
    assert "ARG NVIDIA_VISIBLE_DEVICES=all" in container, "the same image has the GPU where there is one"
    assert (folder / "src" / "params.yaml").is_file()
    pinned = (folder / "env" / "python" / "requirements.txt").read_text().replace("\\\n", "").splitlines()
    assert all("==" in line and "--hash=sha256:" in line for line in pinned)
    assert {"torch", "bentoml", "soundfile", "pillow"} <= {line.split("==")[0] for line in pinned}
    assert not (folder / "src" / "orchestration").exists()


@pytest.fixture(scope="module")
def elsewhere(bento, paths, tmp_path_factory):
    """The address of the Bento, exported to another machine with nothing but its own requirements, behind a token."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python = environment_of(paths, bento, folder / "env")
    home = {name: value for name, value in os.environ.items() if not name.startswith(("SEEHEAR_", "PYTHON"))}
    there = Paths(folder / "home", "starter")
    for where, verb in ((paths, ("export", bento)), (there, ("import",))):
        where.bentoml.mkdir(parents=True, exist_ok=True)
        command = [python, "-m", "bentoml", *verb, str(folder / "exported.bento")]
        environment = home | {"BENTOML_HOME": str(where.bentoml)}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    there.champion.write_text('{"tag": "seehear:another", "digest": "0"}')
    with serve(bento, there, python=python, env={"SEEHEAR_TOKEN": f"{TOKEN}\n"}) as address:
        yield address


def test_an_exported_bento_gives_the_same_answers_elsewhere_and_follows_no_champion(elsewhere, url, predictor):
    files = {"image": PICTURE, "audio": RECORDING}
    there = requests.post(f"{elsewhere}/extract", files=files, headers=bearing(TOKEN), timeout=60).json()
    here = extract(url).json()
    assert there["model"] == predictor.digest
    assert there["presence"] == pytest.approx(here["presence"], abs=1e-4)
    assert np.abs(sound_of(there)[0] - sound_of(here)[0]).max() < 1e-4


def test_where_a_token_is_set_the_api_needs_it_and_page_and_probes_do_not(elsewhere):
    for headers in ({}, bearing(TOKEN[:-1]), bearing("")):
        refused = requests.post(f"{elsewhere}/classify_image", files={"image": PICTURE}, headers=headers, timeout=60)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert error(refused)["code"] == "unauthorized"
    assert requests.post(f"{elsewhere}/feedback", json={}, timeout=60).status_code == 401
    assert requests.post(f"{elsewhere}/feedback", json={}, headers=bearing(TOKEN), timeout=60).status_code == 400
    for open_to_all in ("/livez", "/readyz", "/metrics", "/app/", "/app/examples", "/docs.json"):
        assert requests.get(f"{elsewhere}{open_to_all}", timeout=60).status_code == 200


@pytest.mark.parametrize("token", [" \n", ""])
def test_a_blank_token_is_refused_in_one_line_before_anything_is_open(bento, paths, token, monkeypatch):
    monkeypatch.setenv("SEEHEAR_TOKEN", token)
    command = [sys.executable, "-m", "bentoml", "serve", packaging.bento_folder(bento, paths)]
    environment = {**os.environ, "BENTOML_HOME": str(paths.bentoml)}
    done = subprocess.run(command, env=environment, cwd=paths.root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "seehear: SEEHEAR_TOKEN: blank; expected a token, or the variable not set"
    assert "Traceback" not in done.stderr


def bearing(token: str) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {token}".encode()}


def environment_of(paths: Paths, bento: str, folder: Path) -> str:
    """The interpreter of an environment that holds the packages of a Bento's requirements and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    pinned = (packaging.bento_folder(bento, paths) / "env" / "python" / "requirements.txt").read_text()
    for name in re.findall(r"^([\w.-]+)==", pinned, re.M):
        files = metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(sysconfig.get_path("purelib")) / top)
    return str(folder / "bin" / "python")


def test_saving_and_building_again_gives_the_same_tags(bento, paths):
    tag = packaging.save_bundle_as_bento_model(tones.bundle(), paths)
    assert packaging.build_bento(tag, paths) == bento == packaging.bento_of(tag, paths)
    (built,) = (paths.bentoml / "bentos" / "seehear").iterdir()
    newer = built.with_name(f"{tag.split(':')[1]}-newcode")
    newer.mkdir()
    (newer / "bento.yaml").touch()
    assert packaging.bento_of(tag, paths) == f"seehear:{newer.name}"
    assert packaging.build_bento(tag, paths) == packaging.bento_of(tag, paths) == bento, "this code's is served again"
    shutil.rmtree(newer)


def test_ask_posts_to_both_endpoints_whatever_proxy_there_is(url, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers = ask(url, PICTURE, RECORDING)
    assert answers["extract"]["heard"]["label"] == answers["classify_image"]["label"] == "down"
    with pytest.raises(UserError, match="400: image"):
        ask(url, b"junk", RECORDING)


class Elsewhere(BaseHTTPRequestHandler):
    """Some other server, whose words are not JSON."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(502)


def test_another_server_at_the_address_is_one_clear_line():
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_port}"
        with pytest.raises(UserError, match=f"^{address}/extract: 502: expected JSON, got '<!DOCTYPE"):
            ask(address, PICTURE, RECORDING)
        assert _readiness(address) == (False, None)
        other.shutdown()


def test_a_taken_port_is_said_to_be_taken(url):
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"port {port}: .*PORT="):
        require_free(port)
    require_free(free_port())


def test_a_model_that_fails_its_golden_requests_is_refused_and_leaves_no_process(paths, tmp_path):
    parts = [tones.bundle() / part for part in ("image_classifier", "speech_classifier", "speech_extractor")]
    golden = read_goldens(tones.bundle())[0]
    golden.expected["presence"][0] = 1 - golden.expected["presence"][0]
    write_bundle(tmp_path / "bundle", *parts, {}, [golden])
    tag = packaging.build_bento(packaging.save_bundle_as_bento_model(tmp_path / "bundle", paths), paths)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(UserError, match=r"refuses its model: .*presence"), serve(tag, paths):
        pass
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


# --------------------------------------------------------------------------------------- the outermost layer alone


async def _fails(request: Request):
    raise ZeroDivisionError


async def _in_its_own_words(request: Request):
    return JSONResponse([{"error": "inner words"}], 503, {"Retry-After": "7", "X-Inner": "1"})


async def _reads(request: Request):
    try:
        return JSONResponse({name: len(file) for name, file in (await read_files(request, ("image",))).items()})
    except Refused as refusal:
        return refusal.response()


@pytest.fixture
def layer():
    """Sends one request through the layer: method, path and what httpx takes besides."""
    routes = [
        Route("/fails", _fails),
        Route("/inner", _in_its_own_words),
        Route("/reads", _reads, methods=["POST"]),
        Route("/reads-little", _reads, methods=["POST"]),
        Route("/fine", lambda request: PlainTextResponse("fine")),
    ]
    transport = httpx.ASGITransport(
        HttpLayer(Starlette(routes=routes), max_body_bytes=1000, caps={"/reads-little": 100})
    )

    async def request(*arguments, **options) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://layer") as client:
            return await client.request(*arguments, **options)

    return lambda *arguments, **options: asyncio.run(request(*arguments, **options))


def test_an_uncaught_fault_is_a_500_without_its_details(layer):
    answer = layer("GET", "/fails")
    assert answer.status_code == 500
    assert error(answer)["code"] == "internal_error"
    assert "ZeroDivision" not in answer.text


def test_an_inner_error_keeps_its_status_and_retry_after_but_takes_the_common_form(layer):
    answer = layer("GET", "/inner")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert error(answer)["code"] == "unavailable"
    assert "X-Inner" not in answer.headers


def test_good_answers_pass_untouched_but_for_the_id(layer):
    answer = layer("GET", "/fine")
    assert answer.text == "fine"
    assert len(answer.headers["X-Request-ID"]) == 32


def test_bodies_are_counted_whether_or_not_they_declare_their_length(layer):
    async def pieces():
        yield b'--q\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield b"x" * 100

    kind = {"Content-Type": "multipart/form-data; boundary=q"}
    assert layer("POST", "/reads", files={"image": b"x" * 500}).json() == {"image": 500}
    assert layer("POST", "/reads", files={"image": b"x" * 1500}).status_code == 413
    streamed = layer("POST", "/reads", content=pieces(), headers=kind)
    assert streamed.status_code == 413
    assert error(streamed)["code"] == "body_too_large"


def test_an_address_may_take_less_than_the_others(layer):
    start = b'--q\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    async def pieces():
        yield start
        yield b"x" * 50

    kind = {"Content-Type": "multipart/form-data; boundary=q"}
    assert layer("POST", "/reads-little", content=start, headers=kind).status_code == 400
    for content in (start + b"x" * 50, pieces()):
        answer = layer("POST", "/reads-little", content=content, headers=kind)
        assert (answer.status_code, error(answer)["message"]) == (413, "the body is larger than the 0.1 kB taken here")


@pytest.mark.parametrize("charset", ["undefined", "punycode", "no-such"])
def test_a_form_in_whatever_charset_is_no_fault_of_ours(layer, charset):
    body = b'--q\r\nContent-Disposition: form-data; name="\xff-\xff"\r\n\r\nx\r\n--q--\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=q; charset={charset}"}
    answer = layer("POST", "/reads", content=body, headers=kind)
    assert answer.status_code == 400
    assert error(answer)["code"] in ("not_a_form", "missing_file")


def test_each_request_leaves_one_line_of_json(layer, caplog):
    access = logging.getLogger("seehear.access")
    access.propagate = True
    with caplog.at_level(logging.INFO, logger="seehear.access"):
        answer = layer("GET", "/nowhere")
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "seehear.access"]
    assert (line["path"], line["status"], line["request_id"]) == ("/nowhere", 404, answer.headers["X-Request-ID"])
