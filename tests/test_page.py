"""The page in a real browser: it loads, pictures move, the slider works by keyboard, an outage is seen."""

from __future__ import annotations

from pathlib import Path

import live
import numpy as np
import pytest
from live import Relayed, Server, feed, until
from test_relay import camera_clip  # noqa: F401  a fixture

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(
        live.missing() is not None or not CHROMIUM.exists(), reason=live.missing() or "chromium is not installed"
    ),
    pytest.mark.flaky(reruns=1),  # see test_relay.py
]


@pytest.fixture
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def pixels(page) -> np.ndarray:
    """What the canvas shows, (H, W, 4)."""
    data = page.evaluate(
        "() => { const c = document.getElementById('picture');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        " return [c.width, c.height, Array.from(d.data)]; }"
    )
    return np.array(data[2], np.int16).reshape(data[1], data[0], 4)


def test_the_page_shows_a_stream_and_its_outage(camera_clip, tmp_path, browser):  # noqa: F811
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam"), "--engine", "onnxruntime") as relay,
    ):
        until(lambda: relay.told().get("faces"))
        page = browser.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{relay.web}/")
        state = page.locator("#state")
        until(lambda: state.text_content() == "running")
        until(lambda: int(page.get_attribute("#picture", "data-pictures") or 0) > 3)
        assert not complaints, complaints
        first = pixels(page)
        until(lambda: np.abs(pixels(page) - first)[..., :3].mean() > 0.5, 10)  # pictures move
        until(lambda: float(page.text_content("#out")) > 5)
        until(lambda: page.locator("#tracks tr").count() >= 1)  # a frame that came late tells of none

        slider = page.locator("#slider")
        slider.focus()
        page.keyboard.press("Home")
        assert page.evaluate("document.getElementById('slider').value") == "0"
        page.keyboard.press("End")
        assert page.evaluate("document.getElementById('slider').value") == "100"
        for _ in range(40):
            page.keyboard.press("ArrowLeft")
        width = pixels(page).shape[1]
        until(lambda: (pixels(page)[:, round(width * 0.6), :3] > 250).all(), 10)  # the line between the halves

        camera.kill()
        until(lambda: state.text_content() == "reconnecting")
        camera.start()
        until(lambda: state.text_content() == "running")
        assert "connection" in page.text_content("#events") or "ended" in page.text_content("#events")
        relay.stop()
        until(lambda: "does not answer" in state.text_content())
