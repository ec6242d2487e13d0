"""The page's answers, and its server under browsers that take nothing."""

import io
import json
import socket
import statistics
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
import pytest

from edge.preview.access import Access
from edge.preview.newest_frame import NewestFrame
from edge.preview.page import PreviewPage
from edge.preview.server import serving
from edge.preview.view import Viewer
from edge.records import Flaw
from edge.settings import Settings
from tests.edge.preview.frames import card, portrait, result

CODE = "abcde-fghjk"
PATHS = ("/", "/page.css", "/page.js", "/live", "/nothing", "/../page.py", "//", "")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Browser:
    """Asks a page without a network between."""

    def __init__(self, seconds_left: Callable[[], float] = lambda: 599.95) -> None:
        self.newest = NewestFrame()
        viewer = Viewer(Settings(), card())
        self.page = PreviewPage(self.newest, viewer, Access(CODE), frozenset(("kiosk.local",)), seconds_left)

    def ask(self, path: str, method: str = "GET", body: bytes = b"", query: str = "", **environ: str) -> Answer:
        heads: list[Any] = []
        asked: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": "10.0.0.9:9470",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **environ,
        }
        content = b"".join(self.page(asked, lambda status, headers: heads.append((status, headers))))
        [(status, headers)] = heads
        return Answer(int(status.split()[0]), dict(headers), content)

    def cookie(self) -> str:
        answer = self.ask("/session", "POST", CODE.encode())
        assert answer.status == 200
        return answer.headers["Set-Cookie"].partition(";")[0]

    def live(self, cookie: str, query: str = "0") -> dict[str, Any]:
        answer = self.ask("/live", query=query, HTTP_COOKIE=cookie)
        assert answer.status == 200
        return dict(json.loads(answer.body))


@pytest.fixture(scope="module")
def browser() -> Browser:
    """One that has no session and gets none."""
    return Browser()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_nothing_is_kept_in_a_cache_or_loaded_from_elsewhere(browser: Browser, path: str, method: str) -> None:
    headers = browser.ask(path, method).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("cookie", ["", "{name}", "{name}=", "{name}=x", "x; =;;\xff", "a" * 5000])
def test_without_the_session_no_picture_is_given(cookie: str) -> None:
    browser = Browser()
    browser.newest.frame(result(portrait()), None)  # type: ignore[arg-type]
    right = browser.cookie()
    wrong = cookie.format(name=right.partition("=")[0])
    assert browser.ask("/live", HTTP_COOKIE=wrong).status == 403
    assert browser.live(f"other=1; {right}; more=2")["frame"]


def test_the_cookie_is_for_this_site_only_and_out_of_the_reach_of_scripts() -> None:
    cookie = Browser().ask("/session", "POST", CODE.encode()).headers["Set-Cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/; Max-Age=600")


def test_two_previews_on_one_machine_leave_each_other_their_sessions() -> None:
    """A browser sends the cookies of one port to all others, and keeps one of each name."""
    previews = [Browser(), Browser()]
    kept = dict(preview.cookie().split("=") for preview in previews)
    for preview in previews:
        preview.live("; ".join(f"{name}={session}" for name, session in kept.items()))


@pytest.mark.parametrize("host", ["evil.example", "kiosk.local.evil.example:9470", ""])
@pytest.mark.parametrize("path", PATHS)
def test_a_web_page_under_another_name_is_refused(browser: Browser, path: str, host: str) -> None:
    answer = browser.ask(path, HTTP_HOST=host)
    assert answer.status == 403
    assert b"address or host name" in answer.body


@pytest.mark.parametrize(
    ("body", "length", "status"),
    [
        (b"", "", 400),
        (b"", "-1", 400),
        (b"x" * 101, "101", 400),
        (b"", "9" * 5000, 400),
        (b"", "\xb2", 400),
        (b"\xff\xfe", "2", 403),
        (b"", "0", 403),
    ],
)
def test_a_wrong_code_or_a_long_one_gives_no_session(browser: Browser, body: bytes, length: str, status: int) -> None:
    answer = browser.ask("/session", "POST", body, CONTENT_LENGTH=length)
    assert answer.status == status
    assert "Set-Cookie" not in answer.headers


def test_the_code_is_refused_the_second_time() -> None:
    browser = Browser()
    browser.cookie()
    assert browser.ask("/session", "POST", CODE.encode()).status == 410


def test_the_browser_that_has_the_session_may_open_the_address_with_the_code_again() -> None:
    browser = Browser()
    answer = browser.ask("/session", "POST", CODE.encode(), HTTP_COOKIE=browser.cookie())
    assert (answer.status, "Set-Cookie" in answer.headers) == (200, False)


def test_a_frame_has_the_picture_the_faces_and_the_time_left() -> None:
    browser = Browser()
    cookie = browser.cookie()
    browser.newest.frame(result(portrait()), None)  # type: ignore[arg-type]
    answer = browser.live(cookie)
    frame = answer["frame"]
    assert answer["seconds_left"] == pytest.approx(599.95, abs=0.06)
    assert (frame["number"], frame["size"]) == (1, list(portrait().shape[::-1]))
    assert [one["track"] for one in frame["faces"]] == [1]
    picture = cv2.imdecode(np.frombuffer(b64decode(frame["picture"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert np.abs(picture.astype(int) - portrait()).mean() < 3
    browser.newest.frame(result(portrait()), None)  # type: ignore[arg-type]
    for query in ("1", "", "x", "-1", "\xb2", "9" * 5000):  # what is no number is no frame's
        assert browser.live(cookie, query)["frame"]["number"] == 2


def test_without_a_new_frame_the_page_is_told_so_within_a_second() -> None:
    browser = Browser(lambda: -3.0)
    began = time.monotonic()
    assert browser.live(browser.cookie()) == {"seconds_left": 0.0, "frame": None}
    assert 0.9 < time.monotonic() - began < 3


def test_the_page_is_told_that_the_preview_has_ended_and_how_to_go_on() -> None:
    browser = Browser()
    cookie = browser.cookie()
    ending = threading.Thread(target=browser.page.end, args=(60,))
    ending.start()
    assert browser.ask("/live").status == 403
    assert ending.is_alive(), "nobody knows it yet"
    browser.newest.frame(result(portrait()), None)  # type: ignore[arg-type]
    answer = browser.ask("/live", query="0", HTTP_COOKIE=cookie)
    assert (answer.status, b"ended. To go on, start fer-edge preview again" in answer.body) == (410, True)
    ending.join(20)
    assert not ending.is_alive()


def test_the_preview_ends_at_once_when_nobody_has_given_the_code() -> None:
    ending = threading.Thread(target=Browser().page.end, args=(60,))
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


def test_browsers_that_take_nothing_do_not_delay_the_frame_loop() -> None:
    browser = Browser()
    cookie = browser.cookie()
    noise = np.random.default_rng(1).integers(0, 255, (960, 960), np.uint8)  # the JPEG is larger than socket buffers
    request = f"GET /live?0 HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n".encode()
    with serving(browser.page, "127.0.0.1", 0) as address, ExitStack() as deaf:
        port = int(address.rstrip("/").rpartition(":")[2])
        browser.newest.frame(result(noise), None)  # type: ignore[arg-type]
        for _ in range(12):
            client = deaf.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(request)
        took = []
        for _ in range(100):
            began = time.perf_counter()
            browser.newest.frame(result(noise), None)  # type: ignore[arg-type]
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
        assert statistics.median(took) < 0.002  # making its JPEG takes longer
        assert browser.newest.wait(0, 0) is not None
        assert sum(thread.name != "preview" for thread in threading.enumerate()) < 12


def test_the_frame_rate_and_the_readings_follow_the_frames() -> None:
    times = iter([10.0, 10.1, 10.2])
    newest = NewestFrame(lambda: next(times))
    newest.frame(result(portrait(), readings={1: "blurred"}), None)  # type: ignore[arg-type]
    first = newest.wait(0, 0)
    assert first is not None
    assert (first.number, first.fps) == (1, 0.0)
    assert newest.wait(1, 0.01) is None
    newest.frame(result(portrait()), None)  # type: ignore[arg-type]  not classified in this frame
    second = newest.wait(1, 0)
    assert second is not None
    assert second.fps == pytest.approx(10.0)
    assert second.readings == {1: "blurred"}


def test_the_page_has_advice_for_each_reason_why_a_face_is_refused() -> None:
    script = Browser().ask("/page.js").body.decode()
    assert [reason for reason in get_args(Flaw) if f'"{reason}": [' not in script] == []
