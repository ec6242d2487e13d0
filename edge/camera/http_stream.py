"""Asks a network camera for its stream by HTTP or HTTPS: its certificate, user and password, and redirections."""

import http.client
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


@dataclass(frozen=True)
class Answer:
    """A server's answer to the request for a stream. Its body is read from ``response`` while it comes."""

    response: http.client.HTTPResponse
    connection: socket.socket

    def wait_at_most(self, seconds: float) -> None:
        """How long each read from now on may wait for the server."""
        self.connection.settimeout(seconds)

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


def why_refused(url: str, status: int | None) -> str:
    """What to do about a stream that its server refused with this status; None when it said nothing."""
    if status == _UNAUTHORIZED:
        reason = "refused (401). Check camera.username and camera.password_file, or those in the address"
    elif status:
        reason = f"refused ({status}). Is the address right?"
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
        raise SourceError(f"{safe_source(parts.geturl())}: {why_refused(parts.geturl(), None)}") from error
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
        raise SourceError(f"{safe_source(parts.geturl())}: {why_refused(parts.geturl(), None)}") from error
    return connection


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
