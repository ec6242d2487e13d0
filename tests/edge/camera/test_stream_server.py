"""Cameras that want a user, or have a certificate: real TLS and HTTP servers, and the answers of an RTSP camera."""

import hashlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge.camera.sources import open_source
from edge.camera.stream_server import authorization
from edge.errors import SourceError
from edge.settings import CameraSettings
from tests.edge.mjpeg import Mjpeg, noisy_pictures

USER, PASSWORD = "ki@osk", "SECRET#/@[%:?"
REALM, NONCE, OPAQUE = "camera", "7f3a", "5ccc"


class Guarded:
    """A camera that lets only USER with PASSWORD in, and then answers 404; ``requests`` are those it has received."""

    def __init__(self, kind: str, challenge: str) -> None:
        self.requests: list[str] = []
        self._version = "RTSP/1.0" if kind.startswith("rtsp") else "HTTP/1.1"
        self.challenge = challenge
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"{kind}://127.0.0.1:{self._server.getsockname()[1]}/live"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            request = ""
            for line in lines:
                request += line.decode()
                if line != b"\r\n":
                    continue
                self.requests.append(request)
                number = re.search(r"CSeq: \d+\r\n", request)
                status = "404 Not Found" if self._may_enter(request) else "401 Unauthorized"
                head = f"{self._version} {status}\r\n{number.group() if number else ''}WWW-Authenticate: "
                client.sendall(f"{head}{self.challenge}\r\nContent-Length: 0\r\n\r\n".encode())
                request = ""
                if self._version.startswith("HTTP"):
                    return

    def _may_enter(self, request: str) -> bool:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', request))
        if not fields or fields.get("opaque") != (OPAQUE if "opaque" in self.challenge else None):
            return False
        if ("algorithm=MD5" in self.challenge) != ("algorithm=MD5" in request):
            return False
        nc = ":00000001:" + fields["cnonce"] + ":auth" if "cnonce" in fields else ""
        secret, asked = (
            hashlib.md5(text.encode()).hexdigest()
            for text in (f"{USER}:{REALM}:{PASSWORD}", f"{request.partition(' ')[0]}:{fields['uri']}")
        )
        return fields["response"] == hashlib.md5(f"{secret}:{NONCE}{nc}:{asked}".encode()).hexdigest()


CHALLENGE = f'Digest realm="{REALM}", nonce="{NONCE}"'
MORE = {
    "plain": "",
    "qop": ', qop="auth"',
    "opaque": f', opaque="{OPAQUE}"',
    "all": f', opaque="{OPAQUE}", algorithm=MD5, qop="auth"',
}


@pytest.fixture(params=[f"{kind} {more}" for kind in ("rtsp", "http") for more in MORE])
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    kind, more = request.param.split()
    camera = Guarded(kind, CHALLENGE + MORE[more])
    yield camera
    camera.close()


def settings(folder: Path, url: str, password: str) -> CameraSettings:
    (folder / "password").write_text(f"{password}\n")
    return CameraSettings(url, username=USER, password_file=str(folder / "password"))


def failure(camera: CameraSettings) -> str:
    with pytest.raises(SourceError) as raised:
        open_source(camera)
    return str(raised.value)


def test_a_camera_that_refuses_user_or_password_is_said_to(guarded: Guarded, tmp_path: Path) -> None:
    safe = guarded.url.replace("//", "//***@")
    expected = f"{safe}: refused (401). Check camera.username and camera.password_file, or those in the address"
    assert failure(settings(tmp_path, guarded.url, "wrong")) == expected
    assert failure(CameraSettings(guarded.url)) == expected.replace("***@", "")


def test_the_right_password_is_understood_whatever_its_characters(guarded: Guarded, tmp_path: Path) -> None:
    """The camera lets us in, and FFmpeg where it is asked: what is left is that it has no such stream."""
    assert "refused (404). Is the address right?" in failure(settings(tmp_path, guarded.url, PASSWORD))
    agents = {line for request in guarded.requests if "response=" in request for line in request.splitlines()}
    assert any("Lavf" in line for line in agents) == guarded.url.startswith("rtsp")
    assert "User-Agent: fer-edge" in agents
    assert not [request for request in guarded.requests if "SECRET" in request]


SHA_256 = 'Digest realm="other", nonce="1", opaque="2", algorithm=SHA-256, qop="auth"'


@pytest.mark.parametrize("between", ["\r\nWWW-Authenticate: ", ", ", ',\r\n Basic realm="a, Digest",'])
def test_of_several_challenges_one_with_md5_is_answered(tmp_path: Path, between: str) -> None:
    camera = Guarded("http", f"{SHA_256}{between}{CHALLENGE}{MORE['all']}")
    assert "refused (404)" in failure(settings(tmp_path, camera.url, PASSWORD))
    camera.close()


def test_a_camera_that_wants_another_digest_does_not_get_the_password_in_plain_text(tmp_path: Path) -> None:
    camera = Guarded("http", SHA_256)
    assert "neither by Basic nor by Digest with MD5" in failure(settings(tmp_path, camera.url, PASSWORD))
    assert not [request for request in camera.requests if "Authorization" in request]
    camera.close()
    head = "RTSP/1.0 401\r\nWWW-Authenticate: {}\r\n"
    address = urlsplit("rtsp://u:p@h/x")
    assert authorization(head.format(SHA_256), address) == ""
    for basic in ('Basic realm="x"', f'{SHA_256}, Basic realm="x"', "Basic"):
        assert authorization(head.format(basic), address) == "Basic dTpw"
    assert authorization("HTTP/1.1 401\r\n", address) == "Basic dTpw", "some cameras do not say how"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, host in (("camera", "IP:127.0.0.1"), ("other", "DNS:other.example")):
        request = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName={host}"
        files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run([*request.split(), *files], check=True, capture_output=True)
    return folder


class TlsMjpeg(Mjpeg):
    """A camera with a certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(noisy_pictures)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")


def test_a_certificate_is_verified_unless_the_settings_accept_any(certificates: Path) -> None:
    """FFmpeg alone accepts any certificate."""
    with TlsMjpeg(certificates, "camera") as camera:
        assert f"{camera.url}: its certificate is not accepted: self-signed" in failure(CameraSettings(camera.url))
        for trusting in (
            CameraSettings(camera.url, ca_file=str(certificates / "camera.pem")),
            CameraSettings(camera.url, accept_any_certificate=True),
        ):
            source = open_source(trusting)
            assert next(source.frames()).gray.shape == (240, 320)
            source.close()


def test_a_trusted_certificate_for_another_name_is_refused(certificates: Path) -> None:
    """FFmpeg does not compare the name where the address has an IP address."""
    with TlsMjpeg(certificates, "other") as camera:
        message = failure(CameraSettings(camera.url, ca_file=str(certificates / "other.pem")))
    assert "IP address mismatch" in message
    assert "set camera.accept_any_certificate" in message


def test_a_certificate_of_another_time_makes_the_clock_suspect(tmp_path: Path) -> None:
    """A Raspberry Pi without a battery starts with a wrong clock; another authority would not help."""
    (tmp_path / "names").write_text("subjectAltName = IP:127.0.0.1\n")
    (tmp_path / "index").touch()
    (tmp_path / "ca").write_text(
        "[ca]\ndefault_ca = any\n[any]\ndatabase = index\nserial = serial\nrand_serial = yes\nnew_certs_dir = .\n"
        "default_md = sha256\npolicy = free\n[free]\ncommonName = supplied\n"
    )
    for command in (
        "openssl req -newkey rsa:2048 -nodes -subj /CN=x -keyout camera.key -out request",
        "openssl ca -batch -selfsign -notext -config ca -extfile names -in request -keyfile camera.key -out camera.pem "
        "-startdate 20000101000000Z -enddate 20010101000000Z",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with TlsMjpeg(tmp_path, "camera") as camera:
        message = failure(CameraSettings(camera.url, ca_file=str(tmp_path / "camera.pem")))
    assert "certificate has expired. Is this device's clock right" in message
    assert "camera.ca_file" not in message


def test_ffmpeg_itself_checks_the_certificate_too(certificates: Path) -> None:
    """The server may show another certificate on the second connection."""
    good = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    good.load_cert_chain(certificates / "camera.pem", certificates / "camera.key")
    bad = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bad.load_cert_chain(certificates / "other.pem", certificates / "other.key")
    received: list[Any] = []
    for scheme in ("https", "rtsps"):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, scheme: str = scheme) -> None:
                for context in (good, bad):
                    client, _ = server.accept()
                    try:
                        with context.wrap_socket(client, server_side=True) as connection:
                            received.append(connection.recv(1000))
                            if scheme == "https":
                                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n")
                    except ssl.SSLError as error:
                        received.append(error.reason)
                server.close()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            url = f"{scheme}://u:SECRET@127.0.0.1:{server.getsockname()[1]}/s"
            failure(CameraSettings(url, ca_file=str(certificates / "camera.pem")))
            thread.join(10)
    assert received[1::2] == ["TLSV1_ALERT_UNKNOWN_CA"] * 2
    assert received[2] == b"", "nothing was sent but a handshake"
    assert received[0].startswith(b"GET /s HTTP/1.1\r\n")
    assert b"Authorization" not in received[0]


@pytest.mark.parametrize("name", ["none.pem", "a;b.pem"])
def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a;b.pem").touch()
    assert "ca_file" in failure(CameraSettings("https://127.0.0.1:9/", ca_file=str(tmp_path / name)))
