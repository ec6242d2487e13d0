"""The page as a WSGI application: its three files, the exchange of the code, and frames for the one who has it.

Browsers ask for one frame at a time. So a slow one gets fewer frames, and none waits in memory for it.
"""

import math
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from http import HTTPStatus
from importlib import resources
from typing import Any, Final, TypeAlias

import msgspec

from edge.preview.access import Access, is_own_host
from edge.preview.newest_frame import NewestFrame
from edge.preview.view import FrameView, Viewer

_WAIT_SECONDS: Final = 1.0  # for a new frame; the page asks again
_LAST_SECONDS: Final = 2.0  # for the page to ask once more, so that it is told of the end
_ENDED: Final = b"The preview has ended. To go on, start fer-edge preview again, and open the address that it prints."
_LONGEST_CODE: Final = 100  # bytes
_LONGEST_NUMBER: Final = 12  # digits
_FILES: Final = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
_TEXT: Final = "text/plain; charset=utf-8"
_TYPES: Final = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}

_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

_Environ: TypeAlias = dict[str, Any]
_Answer: TypeAlias = tuple[HTTPStatus, str, bytes, tuple[tuple[str, str], ...]]


class LiveAnswer(msgspec.Struct, frozen=True):
    """What the page asks for again and again. ``frame`` is None when there is no new one."""

    seconds_left: float
    frame: FrameView | None


class PreviewPage:
    """A WSGI application. ``own_names`` are the names of this machine, ``seconds_left`` says when the preview ends."""

    def __init__(
        self,
        newest: NewestFrame,
        viewer: Viewer,
        access: Access,
        own_names: Collection[str],
        seconds_left: Callable[[], float],
    ) -> None:
        self._newest = newest
        self._viewer = viewer
        self._access = access
        self._own_names = own_names
        self._seconds_left = seconds_left
        self._ended, self._told = threading.Event(), threading.Event()
        # A browser has one cookie of a name for all ports of a machine: another preview there would take its place.
        self._cookie_name = f"fer-edge-preview-{secrets.token_hex(4)}"
        folder = resources.files("edge.preview")
        self._files = {path: (name, (folder / name).read_bytes()) for path, name in _FILES.items()}

    def __call__(self, environ: _Environ, start_response: Callable[..., object]) -> Iterator[bytes]:
        """Answer one request."""
        status, kind, body, more = self._answer(environ)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS, *more]
        start_response(f"{status.value} {status.phrase}", headers)
        yield body
        if body is _ENDED:  # and it has been sent now
            self._told.set()

    def end(self, seconds: float = _LAST_SECONDS) -> None:
        """Show no more pictures. Returns once the browser that has the session knows it, or after ``seconds``."""
        self._ended.set()
        if self._access.used:
            self._told.wait(seconds)

    def _answer(self, environ: _Environ) -> _Answer:
        if not is_own_host(environ.get("HTTP_HOST", ""), self._own_names):
            return _text(HTTPStatus.FORBIDDEN, "Open the page by this machine's address or host name.")
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if (method, path) == ("GET", "/live"):
            return self._live(environ)
        if (method, path) == ("POST", "/session"):
            return self._begin_session(environ)
        if method == "GET" and path in self._files:
            name, content = self._files[path]
            return HTTPStatus.OK, _TYPES[name.rpartition(".")[2]], content, ()
        return _text(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _begin_session(self, environ: _Environ) -> _Answer:
        length = environ.get("CONTENT_LENGTH", "")
        if not (
            length.isascii() and length.isdecimal() and len(length) < _LONGEST_NUMBER and int(length) <= _LONGEST_CODE
        ):
            return _text(HTTPStatus.BAD_REQUEST, "Give the code, and nothing else.")
        code = environ["wsgi.input"].read(int(length)).decode(errors="replace")
        if self._has_session(environ):  # as when the address is opened again, or in another tab
            return _text(HTTPStatus.OK, "")
        status, text = self._access.exchange(code)
        if status != HTTPStatus.OK:
            return _text(status, text)
        age = math.ceil(max(0.0, self._seconds_left()))
        cookie = f"{self._cookie_name}={text}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age}"
        return *_text(HTTPStatus.OK, "")[:3], (("Set-Cookie", cookie),)

    def _has_session(self, environ: _Environ) -> bool:
        return self._access.admits(_cookie(environ.get("HTTP_COOKIE", ""), self._cookie_name))

    def _live(self, environ: _Environ) -> _Answer:
        if not self._has_session(environ):
            return _text(HTTPStatus.FORBIDDEN, "Give the code that stands at the terminal.")
        after = _number(environ.get("QUERY_STRING", ""))
        seen = None if self._ended.is_set() else self._newest.wait(after, _WAIT_SECONDS)
        if self._ended.is_set():
            return HTTPStatus.GONE, _TEXT, _ENDED, ()
        answer = LiveAnswer(round(max(0.0, self._seconds_left()), 1), self._viewer.view(seen) if seen else None)
        return HTTPStatus.OK, "application/json", msgspec.json.encode(answer), ()


def _text(status: HTTPStatus, text: str) -> _Answer:
    return status, _TEXT, text.encode(), ()


def _cookie(header: str, wanted: str) -> str:
    """The value of a cookie in a ``Cookie`` header, empty when it is not there."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for name, _, value in pairs if name == wanted), "")


def _number(query: str) -> int:
    """The number of the frame that the page has; 0 for none, and for what is no number."""
    return int(query) if query.isascii() and query.isdecimal() and len(query) < _LONGEST_NUMBER else 0
