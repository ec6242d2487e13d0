"""What a network camera is trusted by, the answer to its question for a user, and why an RTSP server refuses.

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
from urllib.parse import SplitResult, quote, unquote, urlsplit

from edge.camera.address import safe_source
from edge.errors import SourceError
from edge.settings import CameraSettings

_SECONDS: Final = 5
_LONGEST_ANSWER: Final = 16_384
_ALLOWED_IN_TARGET: Final = "%/:=&?~+!$,;'@()*[]-._"  # what is percent-encoded already stays as it is
_PORTS: Final = {"rtsp": 554, "rtsps": 322, "rtmp": 1935}
_WRONG_DATES: Final = (9, 10)  # openssl-verification-options(1): not yet valid, has expired
_OTHER_DATE: Final = "Is this device's clock right (fer-edge doctor says so)? Else give the camera a new certificate"
_OTHER_TRUST: Final = (
    "Give the authority that signed it as camera.ca_file, and the name in the certificate as the address's host"
)
_SYSTEM_CA: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_OPTIONS: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_CHALLENGE_HEADER: Final = re.compile(r"(?im)^WWW-Authenticate:(.*(?:\r?\n[ \t].*)*)")
_CHALLENGE_PART: Final = re.compile(r'([\w-]+)(?:\s*(=)\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')  # a scheme has no =
_OPENCV_DEFAULT: Final = "rtsp_transport;tcp"  # what OpenCV uses while the variable is not set


@contextlib.contextmanager
def checked_certificate(camera: CameraSettings, url: str) -> Iterator[None]:
    """While this lasts, FFmpeg accepts only a trusted certificate, unless the settings accept any.

    Raises SourceError when an RTSP server's certificate is not trusted, or not for the address's name. That of an HTTP
    server was verified when it was asked for the stream (edge.camera.http_stream).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "rtsps") or camera.accept_any_certificate:
        yield
        return
    authorities = _authorities(camera)
    if parts.scheme == "rtsps":
        _check_certificate(camera, parts)
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


def tls_context(camera: CameraSettings) -> ssl.SSLContext:
    """What a connection to the camera accepts. Raises SourceError when there are no authorities to trust."""
    if camera.accept_any_certificate:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    authorities = _authorities(camera)
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one
        raise SourceError(f"{authorities}: cannot be used as certificate authorities: {_said(error)}") from error


def no_tls_connection(url: str, error: Exception) -> SourceError:
    """The error for a connection that was not made, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _OTHER_DATE if error.verify_code in _WRONG_DATES else _OTHER_TRUST
        return SourceError(
            f"{safe_source(url)}: its certificate is not accepted: {error.verify_message}. {remedy}; or set "
            "camera.accept_any_certificate"
        )
    return SourceError(f"{safe_source(url)}: no TLS connection: {_said(error)}. Is the server running?")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check_certificate(camera: CameraSettings, parts: SplitResult) -> None:
    try:
        with _connect(parts, tls_context(camera)):
            return
    except (OSError, ValueError) as error:  # ValueError: no name of a host
        raise no_tls_connection(parts.geturl(), error) from error


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


def refusal(camera: CameraSettings, url: str) -> int | OSError | None:
    """The status (401, 404 ...) with which an RTSP server refuses the stream, or why a server cannot be reached.

    None when it does not refuse, or is silent. A server of HTTP was asked before, and one of UDP cannot be.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme in ("tcp", "rtmp"):
            _connect(parts, None).close()
        if parts.scheme not in ("rtsp", "rtsps"):
            return None
        status = _ask(parts, tls_context(camera) if parts.scheme == "rtsps" else None)
    except OSError as error:
        return error
    except ValueError:
        return None
    return status if status and status >= 400 else None


def _ask(parts: SplitResult, context: ssl.SSLContext | None) -> int | None:
    """Ask for the stream, and after a 401 again with user and password, as FFmpeg does."""
    with _connect(parts, context) as connection:
        status, head = _request(connection, parts, 1, "")
        if status != 401 or parts.username is None or not (answer := authorization(head, parts)):
            return status
        return _request(connection, parts, 2, f"Authorization: {answer}\r\n")[0]


def _request(connection: socket.socket, parts: SplitResult, number: int, header: str) -> tuple[int | None, str]:
    """Send a request; return the status and the head of its answer."""
    first = f"DESCRIBE {request_target(parts)} RTSP/1.0\r\nCSeq: {number}\r\nAccept: application/sdp\r\n"
    connection.sendall(f"{first}{header}User-Agent: fer-edge\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_ANSWER:
        part = connection.recv(1024)
        if not part:
            break
        head += part
    text = head.partition(b"\r\n\r\n")[0].decode("latin-1")
    status = re.match(r"RTSP/\d\.\d (\d{3})", text)
    return (int(status.group(1)) if status else None), text


def request_target(parts: SplitResult) -> str:
    """What is asked for in a request for this address: never user and password."""
    if parts.scheme.startswith("rtsp"):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return quote(parts._replace(scheme="", netloc="", fragment="").geturl() or "/", safe=_ALLOWED_IN_TARGET)


def authorization(head: str, parts: SplitResult) -> str:
    """The answer to a server's challenges, which are in the head of its answer; empty when it can answer none.

    RFC 7617, and RFC 7616 with MD5, the only digest that FFmpeg knows. A server that wants another digest only does not
    get the password in plain text.
    """
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    challenges = _challenges(head)
    digests = (fields for scheme, fields in challenges if scheme == "digest")
    challenge = next((fields for fields in digests if fields.get("algorithm", "MD5").upper() == "MD5"), None)
    if challenge is not None:
        return _digest(challenge, parts, user, password)
    if challenges and not any(scheme == "basic" for scheme, _ in challenges):
        return ""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _challenges(head: str) -> list[tuple[str, dict[str, str]]]:
    """The schemes in lower case that a server offers, each with its parameters, in the server's order."""
    challenges: list[tuple[str, dict[str, str]]] = []
    for line in _CHALLENGE_HEADER.findall(head):
        for name, equals, quoted, plain in _CHALLENGE_PART.findall(line):
            if not equals:
                challenges.append((name.lower(), {}))
            elif challenges:
                challenges[-1][1][name.lower()] = quoted or plain
    return challenges


def _digest(challenge: dict[str, str], parts: SplitResult, user: str, password: str) -> str:
    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    method = "DESCRIBE" if parts.scheme.startswith("rtsp") else "GET"
    target = request_target(parts)
    secret, request = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    credentials = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{target}"'
    # Both are sent back as they came: some servers know by ``opaque`` which challenge is answered.
    if "opaque" in challenge:
        credentials += f', opaque="{challenge["opaque"]}"'
    if "algorithm" in challenge:
        credentials += f", algorithm={challenge['algorithm']}"
    if "qop" not in challenge:
        return f'Digest {credentials}, response="{_md5(f"{secret}:{nonce}:{request}")}"'
    own = os.urandom(8).hex()
    response = _md5(f"{secret}:{nonce}:00000001:{own}:auth:{request}")
    return f'Digest {credentials}, qop=auth, nc=00000001, cnonce="{own}", response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
