"""The page of people in a real browser: Chromium, where one is installed, without a window."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

import numpy as np
import pytest

from hourglass.skeleton import MPII
from pipelines.data.annotations import MISSING, OCCLUDED
from pipelines.evaluation import people_page
from tests.helpers.prediction_files import write_truth

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1280,900"
).split()
WRIST, LIMIT = MPII.joints.index("left_wrist"), 120.0

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the page in")


class Tab:
    """A tab of Chromium, told what to do through its debugging pipe: JSON, each ended by a NUL."""

    def __init__(self, profile: str):
        # Far from 3 and 4, which Chromium reads and writes: the shell moves them there.
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 20) for pair in (os.pipe(), os.pipe()) for end in pair
        ]
        command = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[3]}'
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            ["bash", "-c", command, *words],
            pass_fds=(ends[0], ends[3]),
            stderr=subprocess.DEVNULL,
        )
        os.close(ends[0]), os.close(ends[3])
        self.write, self.read, self.rest = ends[1], ends[2], b""
        self.asked, self.complaints, self.session = 0, [], {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for part in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{part}.enable")

    def ask(self, method: str, **arguments) -> dict:
        """Its answer to a command; what it tells meanwhile is kept if it is a complaint."""
        self.asked += 1
        question = {"id": self.asked, "method": method, "params": arguments, **self.session}
        os.write(self.write, json.dumps(question).encode() + b"\0")
        while True:
            told = self.listen()
            if told.get("id") == self.asked:
                assert "error" not in told, told
                return told["result"]
            if told["method"] in (
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
                "Network.loadingFailed",
            ):
                self.complaints.append(told["params"])

    def listen(self) -> dict:
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], LIMIT)[0], "Chromium does not answer"
            part = os.read(self.read, 1 << 16)
            assert part, "Chromium ended"
            self.rest += part
        told, self.rest = self.rest.split(b"\0", 1)
        return json.loads(told)

    def value(self, expression: str):
        """What a line of JavaScript yields in the page."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until it is true."""
        end = time.monotonic() + LIMIT
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def open(self, path) -> None:
        # By way of another page: opened again at once, it would find its filters as they were left.
        for address in ("about:blank", f"file://{path}"):
            self.ask("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.querySelector('.card svg')")

    def click(self, selector: str) -> None:
        """Click with the mouse where the element is."""
        box = self.value(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            event = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, **event)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", type=kind, **event)

    def choose(self, field: str, value: str) -> None:
        """Set a filter as its user would: the page hears of it."""
        self.value(
            f"(() => {{ const f = document.getElementById('{field}');"
            f" f.value = {json.dumps(value)};"
            " f.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.ask("Browser.close")
        os.close(self.write), os.close(self.read)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def offsets():
    """Person n's joints are n / 10 heads off; person 2's left wrist is 7."""
    moved = np.repeat(np.arange(10)[:, None] / 10 + 0.01, 16, 1)
    moved[2, WRIST] = 7.0
    return moved


@pytest.fixture(scope="module")
def folder(info, offsets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    predictions = write_truth(folder / "predictions.json", info, offsets)
    people_page.run(info.folder, str(folder / "people.html"), predictions_file=predictions, size=64)
    people_page.run(info.folder, str(folder / "records.html"), size=64, max_people=4)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tab = Tab(str(tmp_path_factory.mktemp("profile")))
    yield tab
    tab.close()


@pytest.fixture
def tab(browser, folder):
    """The page of predictions, just opened; nothing may have been complained about at the end."""
    browser.open(folder / "people.html")
    yield browser
    assert browser.complaints == []


def shown(tab) -> list[int]:
    """Rows of the people on the page, in its order."""
    ids = tab.value("[...document.querySelectorAll('#people .id')].map((one) => one.textContent)")
    return [int(name.removeprefix("validation").split(".")[0]) for name in ids]


def test_everybody_is_there_and_drawn(tab, drawn):
    assert tab.value("document.getElementById('count').textContent") == "10 of 10 people"
    scored = [p.row for p in drawn[1]["validation"] if np.isfinite(p.head_size)]
    assert sorted(shown(tab)) == list(range(10)) and set(shown(tab)[:9]) == set(scored)
    tab.wait("document.querySelectorAll('.card svg image').length === 10")
    # The embedded photograph is decoded and painted over the whole of its card.
    width = "(one) => one.getBoundingClientRect().width"
    sizes = tab.value(f"[...document.querySelectorAll('.card image')].map({width})")
    assert min(sizes) > 100
    assert tab.value("document.querySelectorAll('#scores dd').length") == 10


def test_filters(tab, drawn, offsets):
    everybody = {person.row: person for person in drawn[1]["validation"]}
    tab.choose("joint", str(WRIST))
    tab.choose("minError", "0.45")
    tab.choose("order", "matching")
    wanted = [
        row
        for row, person in everybody.items()
        if person.state[WRIST] != MISSING
        and np.isfinite(person.head_size)
        and offsets[row, WRIST] >= 0.45
    ]
    assert shown(tab) == sorted(wanted, key=lambda row: -offsets[row, WRIST]) and len(wanted) > 2
    first = "document.querySelector('.card .numbers').lastChild.textContent"
    assert tab.value(first) == "left_wrist 7.00"
    tab.choose("minError", "8")
    assert shown(tab) == [] and tab.value("!document.getElementById('empty').hidden")
    tab.click("button[type=reset]")
    tab.wait("document.querySelectorAll('.card').length === 10")
    tab.choose("state", "occluded")
    tab.choose("outcome", "miss")
    occluded = [
        row
        for row, person in everybody.items()
        if np.isfinite(person.head_size) and (offsets[row][person.state == OCCLUDED] > 0.5).any()
    ]
    assert sorted(shown(tab)) == sorted(occluded) and 0 < len(occluded) < 10


def test_enlarged_turned_over_and_closed_by_escape(tab):
    rows = shown(tab)
    name, is_open = "document.getElementById('name').title", "document.getElementById('large').open"
    tab.click(".card")
    tab.wait(is_open)
    assert tab.value(name) == f"validation{rows[0]}.jpg#1"
    assert tab.value("document.querySelectorAll('#large tr').length") == 17
    rectangle = "JSON.stringify(document.getElementById('large').getBoundingClientRect())"
    before = tab.value(rectangle)
    for key, code, row in (("ArrowRight", 39, rows[1]), ("ArrowLeft", 37, rows[0])):
        tab.press(key, code)
        assert tab.value(name) == f"validation{row}.jpg#1"
        assert tab.value(rectangle) == before  # nothing jumps when the page is turned
    tab.press("ArrowLeft", 37)
    assert tab.value(name) == f"validation{rows[-1]}.jpg#1"
    tab.press("Escape", 27)
    tab.wait(f"!{is_open}")
    # The dialog's close event, which moves the focus, comes after it is closed.
    focused = "document.activeElement.querySelector('.id')?.title"
    tab.wait(f"{focused} === 'validation{rows[-1]}.jpg#1'")
    tab.click(".card:nth-child(2)")
    tab.wait(is_open)
    tab.click("#close")
    tab.wait(f"!{is_open}")


def test_a_row_of_the_table_points_at_its_joint(tab):
    tab.click(".card")
    tab.value(
        "document.querySelectorAll('#large tr')[1].dispatchEvent(new MouseEvent('mouseenter'))"
    )
    chosen = "[...document.querySelectorAll('#large .chosen')].map((one) => one.dataset.joint)"
    assert set(tab.value(chosen)) == {"0"}
    other = "getComputedStyle(document.querySelector('#large [data-joint=\"1\"]')).opacity"
    tab.wait(f"{other} === '0.15'")


def test_parts_can_be_hidden(tab):
    visible = "getComputedStyle(document.querySelector('.card .predicted')).display !== 'none'"
    assert tab.value(visible)
    tab.click("[data-part=predicted]")
    tab.wait(f"!({visible})")
    tab.click("[data-part=predicted]")
    tab.wait(visible)


def test_narrow_window(tab):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    tab.ask("Emulation.setDeviceMetricsOverride", **metrics)
    try:
        tab.click(".card")
        assert tab.value("document.documentElement.scrollWidth") <= 390
        inside = "document.querySelector('#large table').getBoundingClientRect().right"
        assert tab.value(inside) <= 390
    finally:
        tab.ask("Emulation.clearDeviceMetricsOverride")


def test_records_without_predictions(browser, folder):
    browser.open(folder / "records.html")
    assert shown(browser) == [0, 1, 2, 3]
    held = "document.getElementById('held').textContent"
    assert browser.value(held) == "This page holds the first 4."
    assert browser.value("getComputedStyle(document.querySelector('.scored')).display") == "none"
    assert browser.value("document.querySelectorAll('.predicted').length") == 0
    # With nothing to compare, the truth is in colours, so that a swap of sides is seen.
    fills = "[...document.querySelectorAll('.truth circle')].map((c) => c.getAttribute('fill'))"
    assert len(set(browser.value(fills))) == 3
    assert browser.complaints == []


def test_a_page_that_complains_is_noticed(browser, folder):
    """Chromium tells of errors in the script and of what the content security policy forbids."""
    browser.open(folder / "people.html")
    browser.value("void setTimeout(() => { throw new Error('on purpose') })")
    browser.value(
        "document.body.append(new Image()), document.images[0].src = 'http://127.0.0.1:9/'"
    )
    browser.wait("true")
    end = time.monotonic() + LIMIT
    while len(browser.complaints) < 2 and time.monotonic() < end:
        browser.wait("true")
    texts = json.dumps(browser.complaints)
    browser.complaints.clear()
    assert "on purpose" in texts and "Content Security Policy" in texts
