"""Addresses of network cameras: what messages show of them, and how user and password get into them."""

import itertools
import random
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from edge.camera.address import safe_source, stream_address
from edge.camera.sources import open_source
from edge.errors import SourceError
from edge.settings import CameraSettings

SECRETS = (
    "Kiosk#2026",
    "Ki/osk",
    "Ki?osk",
    "Ki[osk",
    "p[w",
    "p]w",
    "p@ss",
    "a:b",
    "50%",
    "%zz",
    "a b",
    "ä\n€",
    "a&b=c",
)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://user:p@ss@10.0.0.9:554/live?a=1", "rtsp://***@10.0.0.9:554/live?***"),
        ("http://cam/stream", "http://cam/stream"),
        ("http://cam/stream?user=u&pwd=secret", "http://cam/stream?***"),
        ("rtsp://cam/user=admin_password=secret_channel=1.sdp", "rtsp://cam/user=***"),
        ("rtsp://[fe80::1]:8554/a", "rtsp://[fe80::1]:8554/a"),
        ("rtsp://admin:Kiosk2026", "rtsp://admin:***"),
        ("admin:secret@cam", "***@cam"),
        ("http://cam/s?pwd=se@cret", "http://***"),
        ("rtsp://admin:Kiosk#2026@cam/s", "rtsp://***"),
        ("/dev/video0", "/dev/video0"),
        ("/srv/a@b?c=d.mp4", "/srv/a@b?c=d.mp4"),
        ("picamera2:1", "picamera2:1"),
        ("10:00:05.mp4", "10:00:05.mp4"),
        ("take=1.mp4", "take=1.mp4"),
    ],
)
def test_what_messages_show_of_a_source(source: str, shown: str) -> None:
    assert safe_source(source) == shown


def test_no_shape_of_an_address_shows_its_password() -> None:
    shapes = (
        "rtsp://admin:{}@host/s", "RTSP://a:{}@host", "rtsp:/admin:{}@host/s", "rtsp:admin:{}@host", "admin:{}@host",
        "rstp://admin:{}@[::1]:554/s", "//admin:{}@host", " http://{}@host", "/x://admin:{}@host/s", "\\\\a:{}@host",
        "http://host/s?pwd={}", "http://host/s?a=1&pwd={}", "host/s?pwd={}", "http://host/s#{}", "http://host:80/p={}/s",
        "picamera2:rtsp://a:{}@host", "http://host/s?at=http://a:{}@b/", "http://host/s;pwd={}",
    )  # fmt: skip
    for shape, secret in itertools.product(shapes, ("SECRET", *(f"SECRET{secret}SECRET" for secret in SECRETS))):
        shown = safe_source(shape.format(secret))
        assert "SECRET" not in shown, f"{shape.format(secret)!r} is shown as {shown!r}"


def test_masking_takes_any_text_and_is_idempotent() -> None:
    chance = random.Random(1)
    parts = ("rtsp://", "//", *":@?#[]%=&", "\0", "\n", "\ud800", "é", "host", "99999", "")
    for _ in range(20_000):
        shown = safe_source("".join(chance.choices(parts, k=chance.randrange(12))))
        assert safe_source(shown) == shown


@pytest.mark.parametrize("secret", SECRETS)
def test_user_and_password_of_the_settings_need_no_encoding(tmp_path: Path, secret: str) -> None:
    if secret.endswith("€"):
        secret = secret.replace("\n", "\\n")
    (tmp_path / "password").write_text(f"{secret}\n", encoding="utf-8")
    camera = CameraSettings("RTSP://cam:554/s?a=1", username="k@i", password_file=str(tmp_path / "password"))
    url = stream_address(camera)
    parts = urlsplit(url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("k@i", secret)
    assert url.startswith("rtsp://k%40i:")
    assert url.endswith("@cam:554/s?a=1")


def test_without_a_user_the_address_stays_as_it_is(tmp_path: Path) -> None:
    for url in ("http://cam/stream", "rtsp://u:p%23w@cam/s"):
        assert stream_address(CameraSettings(url, password_file=str(tmp_path / "unused"))) == url


@pytest.mark.parametrize("secret", ["Kiosk#2026", "p[w", "Ki/osk", "Ki?osk", "50%", "a b", "a\0b", "a\nb"])
def test_an_address_that_cannot_be_parsed_says_percent_encode(secret: str) -> None:
    """`p[w` ended in a traceback; the others were shown in full, or sent somewhere else."""
    with pytest.raises(SourceError, match=r"[Pp]ercent-encode") as raised:
        open_source(CameraSettings(f"rtsp://admin:{secret}@127.0.0.1:9/s"))
    assert secret not in str(raised.value)
    assert "camera.password_file" in str(raised.value)


def test_two_users_and_a_missing_password_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"http://\*\*\*@cam/: the address has a user, and camera\.username is set too"
    ):
        stream_address(CameraSettings("http://a:SECRET@cam/", username="b"))
    missing = CameraSettings("http://cam/", username="b", password_file=str(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"camera\.password_file: .*none cannot be read: No such file"):
        stream_address(missing)


def test_an_unknown_kind_of_address_names_the_known_ones() -> None:
    with pytest.raises(
        SourceError, match=r"'rstp://\*\*\*@cam/s': unknown kind of address; known are http://"
    ) as raised:
        open_source(CameraSettings("rstp://admin:SECRET@cam/s"))
    assert "SECRET" not in str(raised.value)


def test_bare_streams_need_a_port_and_take_no_user() -> None:
    for address in ("tcp://10.0.0.7:8888", "udp://@:8888", "udp://10.0.0.7:8888", "rtmp://10.0.0.7/live/key"):
        assert stream_address(CameraSettings(address)) == address
        assert safe_source(address) == address
    for address, example in (("tcp://10.0.0.7", "tcp://10.0.0.7:8888"), ("udp://@", "udp://@:8888")):
        with pytest.raises(SourceError, match=f"give the port too, as in {example}$"):
            stream_address(CameraSettings(address))
    with pytest.raises(SourceError, match=r"no users\. Remove camera\.username"):
        stream_address(CameraSettings("tcp://10.0.0.7:8888", username="kiosk"))
