"""The page, driven in a real browser."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones

from ml.config import Paths
from serving.client import serve
from serving.packaging import build_bento, save_bundle_as_bento_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--mute-audio"]

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    paths = Paths(tmp_path_factory.mktemp("page"), "starter")
    tag = build_bento(save_bundle_as_bento_model(tones.bundle(), paths), paths)
    with serve(tag, paths) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    opened.goto(f"{url}/app")
    opened.wait_for_selector("#examples button")
    yield opened
    context.close()
    assert not faults


def downloaded(page) -> tuple[np.ndarray, int]:
    with page.expect_download() as download:
        page.click("#download")
    return soundfile.read(io.BytesIO(Path(download.value.path()).read_bytes()))


def test_one_click_on_an_example_finds_the_word_and_offers_its_own_sound(page):
    page.click("#examples button:first-child")
    page.wait_for_selector("#result:not([hidden])")
    assert re.fullmatch(r"“down” is said at 0\.\d\d s, and heard as “down”\.", page.inner_text("#verdict"))
    sound, rate_hz = downloaded(page)
    spoken = tones.recording("across", "down")
    assert (len(sound), rate_hz) == (len(spoken), tones.RATE_HZ)
    first, second = np.abs(sound[1600:4800]).mean(), np.abs(sound[6400:9600]).mean()
    assert second > 5 * first, "the pictured second word is there, the first one is gone"


def test_an_uploaded_pair_is_answered_and_an_absent_word_said_to_be_absent(page, tmp_path):
    (tmp_path / "slanted.png").write_bytes(tones.png("slanted"))
    (tmp_path / "talk.wav").write_bytes(tones.wav("across", "down"))
    page.set_input_files("#picture-file", tmp_path / "slanted.png")
    page.set_input_files("#recording-file", tmp_path / "talk.wav")
    page.wait_for_selector("#recording-note >> text=talk.wav")
    page.click("#go")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#verdict") == "“slanted” is pictured, but not said."
    assert not downloaded(page)[0].any()


def test_a_drawing_is_asked_about(page, tmp_path):
    (tmp_path / "talk.wav").write_bytes(tones.wav("across", "down"))
    page.set_input_files("#recording-file", tmp_path / "talk.wav")
    box = page.locator("#pad").bounding_box()
    for share in (0.1, 0.475, 0.85):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 4)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] - 4, steps=5)
        page.mouse.up()
    page.click("#go")
    page.wait_for_selector("#verdict >> text=“down” is said at 0.")
    assert page.locator("#probabilities meter").count() == len(tones.WORDS)


def test_a_bad_file_is_answered_with_the_reason_and_the_page_goes_on(page, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"junk")
    (tmp_path / "talk.wav").write_bytes(tones.wav("down"))
    page.set_input_files("#picture-file", tmp_path / "junk.png")
    page.set_input_files("#recording-file", tmp_path / "talk.wav")
    with page.expect_response("**/extract") as answer:
        page.click("#go")
    assert answer.value.status == 400
    page.wait_for_selector("#message.bad >> text=cannot be decoded")
    assert page.is_enabled("#go")


def test_a_correction_reaches_the_feedback_log(page):
    page.click("#examples button:first-child")
    page.wait_for_selector("#result:not([hidden])")
    page.select_option("#really-heard", "across")
    page.check("#consent")
    with page.expect_response("**/feedback") as answer:
        page.click("#correction button")
    assert answer.value.status == 202
    page.wait_for_selector("#thanks >> text=Thank you")


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas, audio, a")]
        .filter((e) => !e.closest("[hidden]"))
        .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    page.focus("#examples button:first-child")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "verdict"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(browser, url, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{url}/app/")
    page.click("#examples button:first-child")
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", ground)) < 200) == (scheme == "dark")
    context.close()
