"""The page, driven in a real browser against the real service: what is seen, heard, sent and said.

What is heard is compared sample by sample: the sounds handed to the loudspeaker with the service's own answer, and the
mixture sent with the same mixture computed here.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
import tones

from ml import media
from ml.config import Paths
from serving.client import serve
from serving.packaging import build_bento, save_bundle_as_bento_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--mute-audio"]
DESKTOP, PHONE = {"width": 1100, "height": 900}, {"width": 360, "height": 740}
LSB = 1 / 32768
# What the page plays and sends, kept where a test can look at it
SPY = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...when) {
  window.played.push({ samples: this.buffer.getChannelData(0).slice(), rateHz: this.buffer.sampleRate, when });
  return start.apply(this, when);
};
const fetching = window.fetch;
window.fetch = (url, options) => {
  if (options?.body instanceof FormData) window.sent = options.body;
  return fetching(url, options);
};
window.asBase64 = (bytes) => btoa(Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join(""));
"""

# Gives the service's answers other objects, and keeps the numbers that are asked for
WITH_OBJECTS = """(objects) => {
  const fetching = window.fetch;
  window.asked = [];
  window.fetch = async (url, options) => {
    const asked = options?.body?.get?.("object") ?? null;
    if (asked === null) return fetching(url, options);
    window.asked.push(asked);
    options.body.set("object", "");
    const answer = await (await fetching(url, options)).json();
    return new Response(JSON.stringify({ ...answer, objects, object: Number(asked) }));
  };
}"""

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Paths:
    return Paths(tmp_path_factory.mktemp("page"), "starter")


@pytest.fixture(scope="module")
def url(paths):
    tag = build_bento(save_bundle_as_bento_model(tones.bundle(), paths), paths)
    with serve(tag, paths) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium whose microphone hears "across", then "down", over and over."""
    from playwright.sync_api import sync_playwright

    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    heard.write_bytes(tones.wav("across", "down"))
    microphone = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={heard}"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *microphone])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, url):
    """A function that opens the page; afterwards nothing may have gone wrong in it, and nobody else been asked.

    expected: parts of errors and console messages that the test provokes, such as "status of 413".
    """
    contexts, complaints = [], []

    def opened(*expected: str, viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(SPY)

        def complain(text: str) -> None:
            if not any(part in text for part in expected):
                complaints.append(text)

        page.on("pageerror", lambda fault: complain(str(fault)))
        page.on("console", lambda line: complain(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda asked: complaints.append(asked.url) if _is_foreign(asked.url, url) else None)
        page.goto(f"{url}/app")
        page.wait_for_selector("#examples button:nth-child(3)")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def _is_foreign(asked: str, url: str) -> bool:
    return not asked.startswith((f"{url}/", f"blob:{url}/", "data:"))


@pytest.fixture
def page(open_page):
    return open_page()


def give(page, tmp_path, picture: str, *words: str) -> None:
    (tmp_path / f"{picture}.png").write_bytes(tones.png(picture))
    (tmp_path / "talk.wav").write_bytes(tones.wav(*words))
    page.set_input_files("#picture-file", tmp_path / f"{picture}.png")
    page.set_input_files("#recording-file", tmp_path / "talk.wav")
    page.wait_for_selector("#recording-note >> text=talk.wav")


def answer_to(page, press) -> dict:
    """What the service answers when `press` makes the page ask, once the page shows it."""
    with page.expect_response("**/extract") as response:
        press()
    answer = response.value.json()
    page.wait_for_selector(f"#details code[title='{answer['request_id']}']")
    return answer


def one_click(page, name: str = "Example 1") -> dict:
    return answer_to(page, lambda: page.click(f"#examples button:has-text('{name}')"))


def sound_in(wav: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(wav), dtype="float32")


def sent(page, field: str) -> bytes:
    return base64.b64decode(
        page.evaluate("async (field) => asBase64(await (await sent.get(field)).arrayBuffer())", field)
    )


def sounds_played(page) -> list[tuple[np.ndarray, int, list[float]]]:
    """The sounds started since the last call: samples, rate, and (when, from where)."""
    played = page.evaluate(
        """played.splice(0).map(({ samples, rateHz, when }) => [asBase64(samples.buffer), rateHz, when])"""
    )
    return [(np.frombuffer(base64.b64decode(samples), np.float32), rate, when) for samples, rate, when in played]


def until(page, condition: str, wait_s: float = 10) -> None:
    """Playwright's own wait_for_function compiles text, which the page's security policy forbids."""
    deadline = time.monotonic() + wait_s
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(30)


def draw(page, label: str) -> None:
    """Draw the bars of a label with the mouse."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    for share in (0.1, 0.475, 0.85):
        ends = [(share, 0.03), (share, 0.97)] if label == "down" else [(0.03, share), (0.97, share)]
        (x0, y0), (x1, y1) = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ends]
        page.mouse.move(x0, y0)
        page.mouse.down()
        page.mouse.move(x1, y1, steps=5)
        page.mouse.up()


def pad(page) -> np.ndarray:
    """What the drawing pad shows, uint8 (height, width, channels)."""
    url = page.evaluate("document.getElementById('pad').toDataURL()")
    return media.decode_picture(base64.b64decode(url.partition(",")[2]))


def test_one_click_on_an_example_finds_the_word_and_tells_all_of_the_answer(page):
    answer = one_click(page)
    found = answer["intervals"][0]
    assert page.inner_text("#badge") == "Found"
    assert page.inner_text("#verdict") == f"“down” is said at {found['start_s']:.2f}–{found['end_s']:.2f} s"
    assert "“down”" in page.inner_text("#verdict-note")
    assert page.locator("#probabilities li").count() == len(tones.WORDS) + 1, "every label, and none of them"
    assert page.inner_text("#probabilities li:first-child span:first-child") == "down"
    details = page.inner_text("#details")
    assert answer["model"][:12] in details
    assert answer["request_id"][:12] in details
    service_ms, trip_ms = map(int, re.findall(r"(\d+) ms", details))
    assert 0 < service_ms <= trip_ms
    assert f"{found['start_s']:.2f}–{found['end_s']:.2f} s" in page.get_attribute(
        "#mixture-figure canvas", "aria-label"
    )
    assert page.evaluate("document.activeElement.id") == "verdict", "a screen reader is taken to the answer"


def test_what_is_played_and_downloaded_is_the_answer_sample_by_sample(page):
    answer = one_click(page)
    wav = base64.b64decode(answer["audio_wav_base64"])
    page.click("#listening .play")
    (mixture, rate_hz, mixture_start), (estimate, _, estimate_start) = sounds_played(page)
    assert rate_hz == answer["sample_rate_hz"] == tones.RATE_HZ
    assert mixture_start == estimate_start, "both run together, so that a switch leaves no gap"
    assert np.array_equal(mixture, sound_in(tones.wav("across", "down"))[0])
    assert np.array_equal(estimate, sound_in(wav)[0])
    assert np.abs(estimate[6400:9600]).mean() > 5 * np.abs(estimate[1600:4800]).mean(), "only the second word is left"
    until(page, "document.querySelector('#listening .seek').value > 0.05")
    lines = page.evaluate("""[...document.querySelectorAll("#result .position")].map((line) => line.style.transform)""")
    assert lines[0] == lines[1] != "translateX(42px)", "one position moves over both plots"
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "down.wav"
    assert Path(download.value.path()).read_bytes() == wav


def test_a_press_on_a_plot_seeks_and_a_press_on_a_found_word_plays_from_there(page):
    answer = one_click(page)
    with page.expect_response("**/recognize_speech") as response:
        page.click("#words")
    words = response.value.json()["words"]
    page.wait_for_selector("#words-list button")
    assert [text.split()[0] for text in page.locator("#words-list button").all_inner_texts()] == [
        word["label"] for word in words
    ]
    box = page.locator("#estimate-figure canvas").bounding_box()
    page.locator("#estimate-figure canvas").click(position={"x": 42 + (box["width"] - 52) * 0.75, "y": 40})
    assert float(page.input_value("#listening .seek")) == pytest.approx(1.5, abs=0.02)
    page.click("#words-list button:last-child")
    assert sounds_played(page)[0][2][1] == pytest.approx(words[0]["start_s"], abs=1e-3)
    assert len(answer["intervals"]) == 1


def test_switching_between_the_sounds_while_they_play_leaves_no_gap_and_no_click(page):
    heard = page.evaluate(
        """async () => {
        const { Player } = await import("./player.js");
        const context = new OfflineAudioContext(1, 8000, 8000);
        const player = new Player(context);
        player.load([0.25, 0.5].map((level) => new Float32Array(8000).fill(level)), 8000);
        player.play();
        context.suspend(0.512).then(() => { player.choose(1); context.resume(); });
        return Array.from((await context.startRendering()).getChannelData(0));
        }"""
    )
    before, switch, after = np.array(heard[200:4090]), np.array(heard[4090:4160]), np.array(heard[4160:])
    assert np.allclose(before, 0.25)
    assert np.allclose(after, 0.5)
    assert (np.diff(switch) >= -1e-6).all()
    assert np.abs(np.diff(switch)).max() < 0.02, "five milliseconds from one to the other"


def test_an_absent_word_is_shown_as_clearly_as_a_found_one(page, tmp_path):
    give(page, tmp_path, "slanted", "across", "down")
    answer = answer_to(page, lambda: page.click("#go"))
    assert page.inner_text("#badge") == "Not there"
    assert page.inner_text("#verdict") == "“slanted” is pictured, but not said"
    assert "Nothing is marked" in page.get_attribute("#estimate-figure canvas", "aria-label")
    assert not sound_in(base64.b64decode(answer["audio_wav_base64"]))[0].any()


def test_a_drawing_is_asked_about_and_every_step_can_be_undone(page, tmp_path):
    give(page, tmp_path, "slanted", "across", "down")
    draw(page, "down")
    assert page.inner_text("#picture-note") == "Your drawing"
    drawn = pad(page)
    answer = answer_to(page, lambda: page.click("#go"))
    assert answer["pictured"]["label"] == "down"
    assert np.array_equal(media.decode_picture(sent(page, "image")), drawn), "what is sent is what is on the pad"
    page.click("#clear")
    assert not pad(page).any()
    page.click("#undo")
    assert np.array_equal(pad(page), drawn)
    for _ in range(3):  # the strokes, one by one; the last uncovers the picture below
        page.click("#undo")
    assert page.inner_text("#picture-note") == "slanted.png"


def test_of_several_objects_in_a_picture_another_can_be_asked_for_by_its_mark(page, tmp_path):
    two = [
        {"label": "down", "probability": 0.9, "box": [0, 0, 8, 16]},
        {"label": "across", "probability": 0.8, "box": [8, 4, 16, 12]},
    ]

    give(page, tmp_path, "down", "across", "down")
    page.evaluate(WITH_OBJECTS, two)  # these models find one thing in a picture
    answer_to(page, lambda: page.click("#go"))
    marks = page.locator("#objects button")
    assert [mark.get_attribute("aria-pressed") for mark in marks.all()] == ["true", "false"]
    assert marks.nth(1).get_attribute("aria-label") == "across, 80.0 %: ask for this one"
    pad_box, mark_box = page.locator("#pad").bounding_box(), marks.nth(1).bounding_box()
    assert mark_box["x"] - pad_box["x"] == pytest.approx(pad_box["width"] / 2, abs=1)
    assert mark_box["height"] == pytest.approx(pad_box["height"] / 2, abs=1)
    marks.nth(1).focus()
    answer_to(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("asked") == ["", "1"]
    assert [mark.get_attribute("aria-pressed") for mark in marks.all()] == ["false", "true"]
    page.click("#clear")
    assert marks.count() == 0, "another picture has other objects"


def test_files_can_be_dropped_and_pasted(page):
    page.evaluate(
        """async ({ picture, recording }) => {
        const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const held = (name, type, text) => {
          const data = new DataTransfer();
          data.items.add(new File([bytes(text)], name, { type }));
          return data;
        };
        const pasted = { clipboardData: held("pasted.png", "image/png", picture), bubbles: true };
        document.body.dispatchEvent(new ClipboardEvent("paste", pasted));
        const dropped = { dataTransfer: held("dropped.wav", "audio/wav", recording), bubbles: true };
        document.body.dispatchEvent(new DragEvent("drop", dropped));
        }""",
        {
            "picture": base64.b64encode(tones.png("down")).decode(),
            "recording": base64.b64encode(tones.wav("down")).decode(),
        },
    )
    page.wait_for_selector("#picture-note >> text=pasted.png")
    page.wait_for_selector("#recording-note >> text=dropped.wav")
    assert answer_to(page, lambda: page.click("#go"))["present"]


def test_of_two_examples_clicked_one_after_another_the_last_is_shown(page):
    page.route("**/extract", lambda route: page.wait_for_timeout(1500) or route.continue_(), times=1)
    page.click("#examples button:has-text('Example 1')")
    page.wait_for_selector("#waiting:visible")
    answer = one_click(page, "Example 2")
    page.wait_for_timeout(2000)
    page.wait_for_selector(f"#details code[title='{answer['request_id']}']")
    assert page.inner_text("#recording-note").startswith("Example 2")
    assert page.is_hidden("#waiting")
    assert not page.inner_text("#message")


def test_two_examples_are_mixed_as_asked_and_the_mixture_is_what_is_heard_and_sent(page):
    page.check("input[value=mix]")
    page.select_option("#mix-first", "1")  # "slanted"
    page.select_option("#mix-second", "0")  # "across", then "down"
    page.fill("#mix-sir", "-4")
    page.fill("#mix-offset", "0.5")
    page.set_input_files("#picture-file", {"name": "p.png", "mimeType": "image/png", "buffer": tones.png("slanted")})
    page.wait_for_selector("#picture-note >> text=p.png")
    page.click("#preview .play")
    ((heard, rate_hz, _),) = sounds_played(page)
    answer = answer_to(page, lambda: page.click("#go"))
    first, second = (sound_in(tones.wav(*words))[0] for words in (["slanted"], ["across", "down"]))
    gain = np.sqrt(np.mean(first.astype(float) ** 2) / np.mean(second.astype(float) ** 2) / 10 ** (-4 / 10))
    expected = np.zeros(len(second) + rate_hz // 2)
    expected[: len(first)] += first
    expected[rate_hz // 2 :] += gain * second
    mixture, sent_rate_hz = sound_in(sent(page, "audio"))
    assert sent_rate_hz == rate_hz == tones.RATE_HZ
    assert np.abs(mixture - expected).max() <= LSB
    assert np.abs(heard - mixture).max() <= LSB
    assert answer["pictured"]["label"] == "slanted"


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_a_recording_that_cannot_be_read_is_not_offered_for_mixing(open_page, language):
    page = open_page(locale=language)
    page.check("input[value=mix]")
    chosen, offered = page.input_value("#mix-second"), page.locator("#mix-second option").count()
    page.set_input_files("#mix-file", {"name": "junk.wav", "mimeType": "audio/wav", "buffer": b"junk"})
    said = {"en-GB": "junk.wav cannot be read as a recording here", "zh-CN": "junk.wav 无法作为录音读取"}[language]
    page.wait_for_selector(f"#message.bad >> text={said}")
    assert (page.input_value("#mix-second"), page.locator("#mix-second option").count()) == (chosen, offered)
    assert page.is_hidden("#again")


def test_a_recording_with_samples_that_are_no_numbers_is_shown_and_refused(open_page, tmp_path):
    page = open_page("status of 400")
    sound = sound_in(tones.wav("down"))[0]
    sound[[100, 200]] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", sound, tones.RATE_HZ, subtype="FLOAT")
    draw(page, "down")
    page.set_input_files("#recording-file", tmp_path / "nan.wav")
    page.wait_for_selector("#recording-note >> text=nan.wav")
    assert page.is_visible("#preview")
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=not finite")


def test_one_click_mixes_two_words_and_takes_one_out(page):
    answer = one_click(page, "Two words at once")
    assert page.is_checked("input[value=mix]")
    assert len(sound_in(sent(page, "audio"))[0]) == len(sound_in(base64.b64decode(answer["audio_wav_base64"]))[0])


def test_what_the_microphone_hears_is_recorded_uncompressed_and_answered(open_page):
    page = open_page(permissions=["microphone"])
    draw(page, "across")
    page.click("#record")
    until(page, "document.getElementById('level').value > 0.3")
    page.wait_for_selector("#recording-note >> text=/Recording… [1-9]/")
    page.click("#record")
    page.wait_for_selector("#recording-note >> text=Your recording")
    answer = answer_to(page, lambda: page.click("#go"))
    with soundfile.SoundFile(io.BytesIO(sent(page, "audio"))) as recording:
        assert (recording.subtype, recording.channels) == ("PCM_16", 1)
        assert 1 <= recording.frames / recording.samplerate < 30
        spectrum = np.abs(np.fft.rfft(recording.read()))
        loudest_hz = spectrum.argmax() * recording.samplerate / recording.frames
    pitches = [tones.PITCH_HZ[word] for word in ("across", "down")]
    assert min(abs(loudest_hz / pitch - 1) for pitch in pitches) < 0.04
    assert answer["present"], "it is there, and heard"


WITH_TRACKS = """() => {
  const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await given(wanted);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}"""
TRACKS = "window.tracks.map((track) => track.readyState).join()"


def test_one_microphone_is_opened_and_it_ends_with_what_is_chosen_instead(open_page):
    page = open_page(permissions=["microphone"])
    page.evaluate(WITH_TRACKS)
    page.evaluate("for (const _ of [1, 2]) document.getElementById('record').click()")
    page.wait_for_selector("#recording-note >> text=/Recording… [1-9]/")
    assert page.evaluate(TRACKS) == "live"
    answer_to(page, lambda: page.click("#examples button >> nth=1"))
    page.wait_for_selector("#recording-note >> text=Example 1")
    assert page.evaluate(TRACKS) == "ended"
    page.click("#record")
    page.wait_for_selector("#recording-note >> text=/Recording… [1-9]/")
    page.check("input[name=source][value=mix]", force=True)
    until(page, f"{TRACKS} === 'ended,ended'")
    page.check("input[name=source][value=own]", force=True)
    page.wait_for_selector("#recording-note >> text=Your recording")


def test_a_file_that_cannot_be_read_does_not_end_what_is_being_recorded(open_page):
    page = open_page(permissions=["microphone"])
    page.click("#record")
    page.wait_for_selector("#recording-note >> text=/Recording… [1-9]/")
    page.set_input_files("#recording-file", {"name": "junk.m4a", "mimeType": "audio/mp4", "buffer": b"junk"})
    page.wait_for_selector("#message.bad >> text=junk.m4a cannot be read as a recording here")
    assert page.inner_text("#record") == "Stop"
    page.click("#record")
    page.wait_for_selector("#recording-note >> text=Your recording")


def test_a_microphone_that_fails_on_the_way_is_one_clear_line_and_is_let_go(open_page):
    page = open_page(permissions=["microphone"])
    page.evaluate(WITH_TRACKS)
    page.evaluate("""() => {
        AudioContext.prototype.createMediaStreamSource = function () {
            window.opened = this;
            throw new Error("another rate");
        };
    }""")
    page.click("#record")
    page.wait_for_selector("#message.bad >> text=The microphone cannot be used: another rate")
    assert page.evaluate(f"[{TRACKS}, opened.state]") == ["ended", "closed"]
    assert page.inner_text("#record") == "Record"


def test_a_microphone_that_is_not_allowed_is_one_clear_line(page):
    page.click("#record")
    page.wait_for_selector("#message.bad >> text=The microphone was not allowed")
    assert page.inner_text("#record") == "Record"
    assert page.is_hidden("#again"), "it would ask about something else"


def test_a_correction_reaches_the_feedback_log(page, paths):
    answer = one_click(page)
    page.click("#correction button")
    assert page.inner_text("#thanks.bad") == "Choose what is really pictured or said."
    page.select_option("#really-heard", "across")
    page.check("#consent")
    with page.expect_response("**/feedback") as response:
        page.click("#correction button")
    assert response.value.status == 202
    page.wait_for_selector("#thanks:not(.bad) >> text=Thank you")
    row = {"request_id": answer["request_id"], "pictured": None, "heard": "across", "consent": True}
    assert row in feedback_rows(paths.root / "var" / "feedback", answer["request_id"])


def feedback_rows(folder: Path, request_id: str, wait_s: float = 15) -> list[dict]:
    deadline = time.monotonic() + wait_s
    while True:
        rows = pq.read_table(folder).to_pylist() if folder.exists() else []
        mine = [{name: row[name] for name in ("request_id", "pictured", "heard", "consent")} for row in rows]
        if request_id in {row["request_id"] for row in mine} or time.monotonic() > deadline:
            return mine
        time.sleep(0.2)


def test_a_bad_file_is_answered_with_the_reason_and_the_page_goes_on(open_page, tmp_path):
    page = open_page("status of 400")
    give(page, tmp_path, "down", "down")
    (tmp_path / "junk.png").write_bytes(b"junk")
    page.set_input_files("#picture-file", tmp_path / "junk.png")
    page.wait_for_selector("#picture-note >> text=cannot show it")
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=cannot be decoded")
    assert page.is_hidden("#again"), "the same file would be refused again"
    page.click("#undo")
    assert answer_to(page, lambda: page.click("#go"))["present"]


def test_too_large_a_recording_is_refused_in_plain_words(open_page, tmp_path):
    page = open_page("status of 413", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE")
    (tmp_path / "long.flac").write_bytes(bytes(26_000_000))
    page.set_input_files("#recording-file", tmp_path / "long.flac")
    page.wait_for_selector("#recording-note >> text=long.flac")
    draw(page, "down")
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=/larger than the 24 MB|more than it takes/", timeout=15000)
    assert page.inner_text("#picture-note") == "Your drawing"


def test_a_busy_service_is_counted_down_and_asked_again_when_it_said(open_page, tmp_path):
    page = open_page("status of 503")
    give(page, tmp_path, "down", "across", "down")
    busy = {"error": {"code": "busy", "message": "too much is waiting already"}}
    page.route(
        "**/extract",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, json=busy),
        times=1,
    )
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=too much is waiting already")
    page.wait_for_selector("#again[aria-disabled=true] >> text=Try again in 1 s")
    page.wait_for_selector("#again[aria-disabled=false]", timeout=4000)
    assert answer_to(page, lambda: page.click("#again"))["present"]
    assert page.is_hidden("#again")


def test_what_the_service_refuses_is_said_in_the_language_of_the_page(open_page, tmp_path):
    page = open_page("status of 429", "status of 413", "status of 400", locale="zh-CN")
    give(page, tmp_path, "down", "down")
    for status, code, message, chinese, english in (
        (429, "too_many_requests", "3 are waiting", "服务此刻太忙", "The service has too much to do"),
        (413, "body_too_large", "the body is larger than the 24 MB taken here", "24 MB", "larger than the 24 MB that"),
        (400, "bad_content", "image: 9000 x 9000 pixels", "Image: 9000 x 9000 pixels", "Image: 9000 x 9000 pixels"),
    ):
        refuse_once(page, "extract", status, code, message)
        page.click("#go")
        page.wait_for_selector(f"#message.bad >> text={chinese}")
        assert english == chinese or english not in page.inner_text("#message")
        page.click("#language")
        page.wait_for_selector(f"#message.bad >> text={english}")
        assert message not in page.inner_text("#message") or code == "bad_content"
        page.click("#language")


def refuse_once(page, call: str, status: int, code: str, message: str) -> None:
    refusal = {"error": {"code": code, "message": message}}
    page.route(f"**/{call}", lambda route: route.fulfill(status=status, json=refusal), times=1)


def test_a_mistake_of_the_page_itself_is_said_as_well(open_page, tmp_path):
    page = open_page("not valid JSON")
    give(page, tmp_path, "down", "across", "down")
    page.route("**/extract", lambda route: route.fulfill(body="no JSON"), times=1)
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=Something went wrong in this page")
    assert page.is_hidden("#waiting")
    assert page.is_hidden("#again")
    assert answer_to(page, lambda: page.click("#go"))["present"]


def test_every_word_is_asked_for_once_at_a_time_and_an_error_goes_with_the_next_try(open_page):
    page = open_page("status of 503")
    one_click(page)
    refuse_once(page, "recognize_speech", 503, "busy", "too much is waiting already")
    page.click("#words")
    page.wait_for_selector("#again[aria-disabled=false]")
    asked = []
    page.route("**/recognize_speech", lambda route: asked.append(route))
    page.click("#again")
    page.evaluate("for (const _ of [1, 2, 3]) document.getElementById('words').click()")
    page.wait_for_timeout(300)
    assert len(asked) == 1
    assert page.is_hidden("#again")
    assert not page.inner_text("#message")
    asked[0].continue_()
    page.wait_for_selector("#words-list button")
    assert page.get_attribute("#words", "aria-disabled") == "false"


def test_a_request_can_be_cancelled_and_nothing_is_lost(page, tmp_path):
    give(page, tmp_path, "down", "across", "down")
    page.route("**/extract", lambda route: None, times=1)  # an answer that never comes
    page.click("#go")
    page.wait_for_selector("#waiting:visible")
    assert page.get_attribute("#go", "aria-disabled") == "true"
    page.focus("#cancel")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message:not(.bad) >> text=Cancelled")
    assert page.evaluate("document.activeElement.id") == "go", "whoever works by keyboard stays where they were"
    assert answer_to(page, lambda: page.click("#go"))["present"]


def test_a_token_is_asked_for_kept_for_the_tab_and_sent(open_page, tmp_path):
    page = open_page("status of 401")
    refusal = {"error": {"code": "unauthorized", "message": "a token is needed"}}
    knows = lambda request: request.headers.get("authorization") == "Bearer open sesame"  # noqa: E731
    page.route(
        "**/extract",
        lambda route: route.continue_() if knows(route.request) else route.fulfill(status=401, json=refusal),
    )
    give(page, tmp_path, "down", "across", "down")
    page.click("#go")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-wrong:visible")
    page.fill("#token", "open sesame")
    assert answer_to(page, lambda: page.keyboard.press("Enter"))["present"], "asked again without another press"
    assert answer_to(page, lambda: page.click("#go"))["present"], "and not asked for twice"
    assert page.evaluate("[Object.values(sessionStorage), localStorage.length]") == [["open sesame"], 0]


STOPS = """() => {
  const all = [...document.querySelectorAll("a[href], button, input, select")]
    .filter((e) => !e.disabled && e.checkVisibility() && !e.closest("dialog"));
  return all.map((e) => {
    e.focus({ focusVisible: true });
    const shown = e.closest(".button, .segments label") ?? e;
    const labels = [...(e.labels ?? [])].map((label) => label.textContent).join("");
    const name = e.getAttribute("aria-label") || labels || e.textContent;
    return [e.outerHTML, name.trim(), getComputedStyle(shown).outlineStyle];
  });
}"""


def test_the_keyboard_alone_is_enough(page):
    """Ask, listen and switch without a mouse."""
    page.focus("#language")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Example 1"
    answer_to(page, lambda: page.keyboard.press("Enter"))
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert len(sounds_played(page)) == 2
    assert page.evaluate("document.activeElement.textContent") == "Pause"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("#listen-estimate")


def test_everything_has_a_name_a_visible_focus_and_its_place_in_the_outline(page):
    one_click(page, "Two words at once")  # with the mixer and the result open
    stops = page.evaluate(STOPS)
    assert len(stops) > 25
    assert [stop for stop in stops if not stop[1] or stop[2] == "none"] == []
    headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
    assert headings[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(headings)), "no level is left out"
    assert page.evaluate(
        "[...document.querySelectorAll('canvas')].every((c) => c.closest('[aria-hidden], [role=img]'))"
    )


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if ((colour[3] ?? 1) === 1) return colour;
    }
  };
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest("svg")
    && !e.matches(":disabled, [aria-disabled=true], #pad-hint")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  return texts.map((e) => {
    const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
    return [e.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_every_text_stands_out(open_page, scheme):
    page = open_page(viewport=PHONE, color_scheme=scheme)
    one_click(page, "Two words at once")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [pair for pair in contrasts if pair[1] < 4.5] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", ground)) < 200) == (scheme == "dark")


def test_what_a_colour_shows_is_shown_in_forced_colours_too(open_page):
    grounds = """[".segments label:has(:checked)", ".bar > span", ".position", ".swatch.found"]
        .map((which) => getComputedStyle(document.querySelector(which)).backgroundColor)"""
    found = []
    for forced in ("none", "active"):
        page = open_page(forced_colors=forced)
        one_click(page)
        found.append(page.evaluate(grounds))
    assert found[0] == found[1]


def test_the_page_speaks_chinese_too_and_switches_while_an_answer_stands(open_page):
    page = open_page(locale="zh-CN", viewport=PHONE)
    one_click(page, "示例 1")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.inner_text("#badge") == "找到了"
    left = page.evaluate(
        """[...document.querySelectorAll("[data-t]")].filter((e) => e.checkVisibility()
        && /[a-z]{4}/.test(e.textContent.replace("down", ""))).map((e) => e.textContent)"""
    )
    assert left == []
    page.click("#language")
    assert page.inner_text("#badge") == "Found"
    assert page.evaluate("document.documentElement.lang") == "en"
    tables = page.evaluate("import('./strings.js').then(({ STRINGS }) => STRINGS)")
    assert tables["en"].keys() == tables["zh"].keys()
    holes = {
        language: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in table.items()}
        for language, table in tables.items()
    }
    assert holes["en"] == holes["zh"], "both fill in the same values"


def test_the_spectrogram_is_true_and_its_colours_rise_evenly_in_lightness(page):
    found = page.evaluate(
        """async (samples) => {
        const { COLOURS, spectrogram } = await import("./spectrogram.js");
        const { bins, topHz, db } = spectrogram(Float32Array.from(samples), 8000, 10, 8000);
        return { bins, topHz, db: Array.from(db), colours: COLOURS };
        }""",
        tones.recording("down", seconds=1.0).tolist(),
    )
    sound, frame = tones.recording("down", seconds=1.0), 256
    window = np.sin(np.pi * (np.arange(frame) + 0.5) / frame) ** 2
    starts = [round((3 + (i + 0.5) / 4) * 800 - frame / 2) for i in range(4)]  # the fourth column's four frames
    spectra = [np.fft.rfft(sound[start : start + frame] * window, 2 * frame)[: found["bins"]] for start in starts]
    power = np.mean(np.abs(spectra) ** 2, axis=0)
    column = np.array(found["db"]).reshape(10, -1)[3]
    assert np.allclose(column, 10 * np.log10(power + 1e-12), atol=0.05)
    assert found["topHz"] == 4000
    linear = np.array([[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb] for rgb in
                       np.array(found["colours"]) / 255])  # fmt: skip
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    assert (np.diff(lightness) > -0.2).all()
    assert np.abs(lightness - np.linspace(lightness[0], lightness[-1], len(lightness))).max() < 6


def test_a_service_that_goes_away_costs_nothing_that_was_given(open_page, tmp_path, url):
    """Last in this file: it stops the service."""
    page = open_page("ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION")
    give(page, tmp_path, "down", "across", "down")
    page.context.set_offline(True)
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=cannot be reached")
    page.context.set_offline(False)
    assert answer_to(page, lambda: page.click("#again"))["present"]
    stop_service(int(url.rpartition(":")[2]))
    page.click("#go")
    page.wait_for_selector("#message.bad >> text=Your picture and recording are kept")
    assert page.inner_text("#recording-note") == "talk.wav"
    assert page.inner_text("#badge") == "Found", "the answer before still stands"
    assert json.loads(page.get_attribute("#again", "aria-disabled")) is False


def stop_service(port: int) -> None:
    servers = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
    assert len(servers) == 1
    servers[0].terminate()
    servers[0].wait(20)
