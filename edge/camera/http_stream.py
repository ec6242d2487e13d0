"""Asks a network camera for its stream by HTTP or HTTPS: its certificate, user and password, and redirections."""

import http.client
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from edge.camera.address import may_be_misread, safe_source
from edge.camera.stream_server import authorization, no_tls_connection, request_target, tls_context
from edge.errors import SourceError
from edge.settings import CameraSettings

_SECONDS: Final = 10
_MOST_REQUESTS: Final = 6  # a redirection, its 401, and some more
_UNAUTHORIZED: Final = 401
_REDIRECTED: Final = (301, 302, 303, 307, 308)
_CONTENT_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")  # whatever else a server sends is not shown


@dataclass(frozen=True)
class Answer:
    """A server's answer to the request for a stream. Its body is read from ``response`` while it comes."""

    response: http.client.HTTPResponse
    connection: socket.socket

    def wait_at_most(self, seconds: float) -> None:
        """How long each read from now on may wait for the server."""
        self.connection.settimeout(seconds)

    @property
    def content_type(self) -> str:
        """The type of its content, such as ``text/html``; empty when the server names none."""
        named = self.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return named if _CONTENT_TYPE.fullmatch(named) else ""

    def close(self) -> None:
        """End the connection."""
        self.response.close()
        self.connection.close()


def ask_for_stream(camera: CameraSettings, url: str) -> Answer:
    """Ask for ``url``, which holds user and password, and again where it leads to or with the user.

    Raises SourceError when the server refuses, is not trusted, or does not answer. Raises HTTPException when what it
    says is not HTTP. Each step waits for at most ten seconds.
    """
    parts, user = urlsplit(url), ""
    for _ in range(_MOST_REQUESTS):
        answer = _ask(camera, parts, user)
        status = answer.response.status
        if status < http.client.MULTIPLE_CHOICES:
            return answer
        answer.close()
        location = answer.response.getheader("Location")
        if status == _UNAUTHORIZED and parts.username is not None and not user:
            user = authorization(str(answer.response.headers), parts)
            if not user:
                raise SourceError(
                    f"{safe_source(url)}: its server takes a password neither by Basic nor by Digest with MD5. Allow "
                    "one of them in the camera's settings"
                )
        elif status in _REDIRECTED and location:
            parts, user = _redirection(camera, parts, location), ""
        else:
            raise SourceError(f"{safe_source(url)}: {why_refused(url, status)}")
    raise SourceError(f"{safe_source(url)}: its server redirects again and again. Is the address right?")


def why_refused(url: str, answer: int | OSError | str | None) -> str:
    """What to do about a stream that does not open.

    ``answer`` is the server's status, its type of content, or why there was no connection; None when it said nothing.
    """
    if answer == _UNAUTHORIZED:
        reason = "refused (401). Check camera.username and camera.password_file, or those in the address"
    elif isinstance(answer, int):
        reason = f"refused ({answer}). Is the address right?"
    elif answer and isinstance(answer, str):
        reason = f"no video stream in the {answer} that its server sends. Is the address right?"
    elif isinstance(answer, OSError) and not isinstance(answer, TimeoutError):
        said = answer.strerror or str(answer)
        reason = f"no connection: {said}. Is the server running, and the address right?"
    else:
        reason = f"no video stream within {_SECONDS} s. Is the server running, and the address right?"
    misread = "; percent-encode the / and ? in its user and password" if may_be_misread(url) else ""
    return reason + misread


def _ask(camera: CameraSettings, parts: SplitResult, user: str) -> Answer:
    connection = _connect(camera, parts)
    headers = {"User-Agent": "fer-edge", "Accept": "*/*", "Connection": "close"}
    if user:
        headers["Authorization"] = user
    opened = connection.sock  # the connection itself gives it away with its answer
    try:
        encoded = {name: value.encode() for name, value in headers.items()}
        connection.request("GET", request_target(parts), headers=encoded)
        return Answer(connection.getresponse(), opened)
    except (OSError, ValueError) as error:  # ValueError: a challenge that cannot be answered
        opened.close()
        raise _no_stream(parts, error) from error
    except http.client.HTTPException:
        opened.close()
        raise


def _connect(camera: CameraSettings, parts: SplitResult) -> http.client.HTTPConnection:
    host, encrypted = parts.hostname or "", parts.scheme == "https"
    if encrypted:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=_SECONDS, context=tls_context(camera)
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_SECONDS)
    try:
        connection.connect()
    except (OSError, ValueError) as error:  # ValueError: no name of a host
        connection.close()
        if encrypted:
            raise no_tls_connection(parts.geturl(), error) from error
        raise _no_stream(parts, error) from error
    return connection


def _no_stream(parts: SplitResult, error: OSError | ValueError) -> SourceError:
    url = parts.geturl()
    return SourceError(f"{safe_source(url)}: {why_refused(url, error if isinstance(error, OSError) else None)}")


def _redirection(camera: CameraSettings, parts: SplitResult, location: str) -> SplitResult:
    """Where a server leads to. Only the same server is given user and password."""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    safe = safe_source(parts.geturl())
    try:
        to = urlsplit(urljoin(bare.geturl(), location))
        same = (to.scheme, to.hostname, to.port) == (bare.scheme, bare.hostname, bare.port)
    except ValueError as error:
        raise SourceError(f"{safe}: its server redirects to an address that cannot be parsed") from error
    if to.scheme not in ("http", "https"):
        raise SourceError(f"{safe}: its server redirects to another kind of address. Give that address as the source")
    if parts.scheme == "https" and to.scheme == "http" and not camera.accept_any_certificate:
        raise SourceError(f"{safe}: its server redirects to a connection without TLS. Give that address as the source")
    return to._replace(netloc=parts.netloc) if same else to._replace(netloc=to.netloc.rpartition("@")[2])
