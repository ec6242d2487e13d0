"""What OpenCV does not do for a network camera: check its certificate and name, and say why it refuses.

OpenCV's FFmpeg accepts any certificate unless it is told otherwise, checks no name where the address has an IP address,
and gives no reason when it fails.
"""

import contextlib
import hashlib
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from edge.camera.address import safe_source
from edge.errors import SourceError
from edge.settings import CameraSettings

_SECONDS: Final = 5
_LONGEST_ANSWER: Final = 16_384
_PORTS: Final = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
_SYSTEM_CA: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_OPTIONS: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OPENCV_DEFAULT: Final = "rtsp_transport;tcp"  # what OpenCV uses while the variable is not set


@contextlib.contextmanager
def checked_certificate(camera: CameraSettings, url: str) -> Iterator[None]:
    """While this lasts, FFmpeg accepts only a trusted certificate, unless the settings accept any.

    Raises SourceError when the server's certificate is not trusted, or not for the address's name.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "rtsps") or camera.accept_any_certificate:
        yield
        return
    authorities = _authorities(camera)
    _check_certificate(parts, safe_source(url), authorities)
    former = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = f"{former or _OPENCV_DEFAULT}|tls_verify;1|ca_file;{authorities}"
    try:
        yield
    finally:
        if former is None:
            del os.environ[_OPTIONS]
        else:
            os.environ[_OPTIONS] = former


def _authorities(camera: CameraSettings) -> str:
    """The file of the certificate authorities to trust."""
    default = ssl.get_default_verify_paths().cafile
    file = Path(camera.ca_file or default or _SYSTEM_CA)
    if not file.is_file():
        remedy = "check camera.ca_file" if camera.ca_file else "sudo apt install ca-certificates"
        raise SourceError(f"{file}: no such file of certificate authorities; {remedy}")
    if set("|;") & set(str(file)):
        raise SourceError(f"camera.ca_file: {file}: its name may not contain | or ;")
    return str(file)


def _check_certificate(parts: SplitResult, safe_url: str, authorities: str) -> None:
    try:
        with _connect(parts, ssl.create_default_context(cafile=authorities)):
            return
    except ssl.SSLCertVerificationError as error:
        raise SourceError(
            f"{safe_url}: its certificate is not accepted: {error.verify_message}. Give the authority that signed it "
            "as camera.ca_file, and the name in the certificate as the address's host; or set "
            "camera.accept_any_certificate"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: no name of a host
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{safe_url}: no TLS connection: {reason}. Is the server running?") from error


def _connect(parts: SplitResult, context: ssl.SSLContext | None) -> socket.socket:
    host = parts.hostname or ""
    plain = socket.create_connection((host, parts.port or _PORTS[parts.scheme]), _SECONDS)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def refusal(camera: CameraSettings, url: str) -> int | None:
    """The status (401, 404 ...) with which the server refuses the stream; None when it does not, or says nothing."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        return None
    context = None
    if parts.scheme in ("https", "rtsps"):
        context = ssl.create_default_context(cafile=camera.ca_file or None)
        if camera.accept_any_certificate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    try:
        status = _ask(parts, context)
    except (OSError, ValueError):
        return None
    return status if status and status >= 400 else None


def _ask(parts: SplitResult, context: ssl.SSLContext | None) -> int | None:
    """Ask for the stream, and after a 401 again with user and password, as FFmpeg does."""
    with contextlib.ExitStack() as connections:
        connection = connections.enter_context(_connect(parts, context))
        status, head = _request(connection, parts, 1, "")
        if status != 401 or parts.username is None:
            return status
        authorization = _authorization(head, parts)
        if parts.scheme.startswith("http"):  # its server closes the connection; an RTSP server may expect the same one
            connection = connections.enter_context(_connect(parts, context))
        return _request(connection, parts, 2, f"Authorization: {authorization}\r\n")[0]


def _request(connection: socket.socket, parts: SplitResult, number: int, header: str) -> tuple[int | None, str]:
    """Send a request; return the status and the head of its answer."""
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme.startswith("rtsp"):
        first = f"DESCRIBE {_target(parts)} RTSP/1.0\r\nCSeq: {number}\r\nAccept: application/sdp\r\n"
    else:
        first = f"GET {_target(parts)} HTTP/1.0\r\nHost: {host}\r\n"
    connection.sendall(f"{first}{header}User-Agent: fer-edge\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_ANSWER:
        part = connection.recv(1024)
        if not part:
            break
        head += part
    text = head.partition(b"\r\n\r\n")[0].decode("latin-1")
    status = re.match(r"(?:RTSP|HTTP)/\d\.\d (\d{3})", text)
    return (int(status.group(1)) if status else None), text


def _target(parts: SplitResult) -> str:
    if parts.scheme.startswith("rtsp"):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return parts._replace(scheme="", netloc="").geturl() or "/"


def _authorization(head: str, parts: SplitResult) -> str:
    """The answer to the server's challenge (RFC 7617, RFC 7616 with MD5, the only digest that FFmpeg knows)."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    challenge = re.search(r"(?im)^WWW-Authenticate:\s*Digest\s+(.*?)\r?$", head)
    if not challenge:
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge.group(1)))
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    method = "DESCRIBE" if parts.scheme.startswith("rtsp") else "GET"
    target = _target(parts)
    secret, request = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    credentials = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{target}"'
    if "qop" not in challenge.group(1):
        return f'Digest {credentials}, response="{_md5(f"{secret}:{nonce}:{request}")}"'
    own = os.urandom(8).hex()
    response = _md5(f"{secret}:{nonce}:00000001:{own}:auth:{request}")
    return f'Digest {credentials}, qop=auth, nc=00000001, cnonce="{own}", response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
