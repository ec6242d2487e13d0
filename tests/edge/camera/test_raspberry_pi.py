"""Raspberry Pi cameras with a hand-made camera whose rows have padding, or which lacks something.

tests/platform/test_picamera2.py has the real picamera2 with a virtual camera.
"""

from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import numpy as np
import pytest

from edge.camera.raspberry_pi import Picamera2Device, luma, require_luma
from edge.errors import SourceError
from edge.records import Gray

PADDING = 32  # bytes to which rows are filled up


class Range(Enum):
    Full, Limited = 0, 1


@dataclass
class Camera:
    """What libcamera gives: at most ``streams``, of at most ``largest``, the second one never below ``least``."""

    streams: int = 2
    largest: tuple[int, int] = (4608, 2592)
    least: tuple[int, int] = (2, 2)
    pixel_format: str = "YUV420"
    range: Range = Range.Full
    starts: bool = True
    closed: bool = False

    def give(self, asked: dict[str, Any]) -> dict[str, Any]:
        bounds = zip(asked["size"], self.least, self.largest, strict=True)
        width, height = (min(max(side, low), high) for side, low, high in bounds)
        stride = -(-width // PADDING) * PADDING
        return {"format": self.pixel_format, "size": (width, height), "stride": stride}


def pixels(size: tuple[int, int]) -> Gray:
    """A picture that shows the same at every size."""
    width, height = size
    across, down = np.linspace(0, 120, width), np.linspace(0, 120, height)
    return np.add.outer(down, across).astype(np.uint8)


def open_camera(camera: Camera, size: tuple[int, int], number: int = 0) -> Picamera2Device:
    class Picamera2:
        camera = SimpleNamespace(
            generate_configuration=lambda roles: (
                SimpleNamespace(size=len(roles)) if len(roles) <= fake.streams else None
            )
        )

        def __init__(self, number: int) -> None:
            self.libcamera_config = SimpleNamespace(
                at=lambda index: SimpleNamespace(color_space=SimpleNamespace(range=fake.range))
            )

        @staticmethod
        def global_camera_info() -> list[dict[str, str]]:
            return [{"Model": "imx708", "Id": "/base/soc"}]

        def create_video_configuration(self, **asked: Any) -> dict[str, Any]:
            return asked

        def configure(self, asked: dict[str, Any]) -> None:
            self.granted = {name: fake.give(asked[name]) for name in ("main", "lores") if name in asked}
            assert not any(length % 2 for name in self.granted for length in asked[name]["size"]), "picamera2 refuses"

        def camera_configuration(self) -> dict[str, Any]:
            return self.granted

        def start(self) -> None:
            if not fake.starts:
                raise RuntimeError("Camera is busy")

        def capture_request(self) -> Any:
            return SimpleNamespace(streams=self.granted, release=lambda: None)

        def close(self) -> None:
            fake.closed = True

    class MappedArray:
        def __init__(self, request: Any, name: str, *, reshape: bool, write: bool) -> None:
            stream = request.streams[name]
            width, height = stream["size"]
            rows = np.full((height, stream["stride"]), 255, np.uint8)
            rows[:, :width] = pixels(stream["size"])
            self.array = np.concatenate([rows.ravel(), np.full(rows.size // 2, 128, np.uint8)])

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
            self.array[:] = 0  # the buffer goes back to the camera

    fake = camera
    libcamera = SimpleNamespace(
        StreamRole=SimpleNamespace(Viewfinder="viewfinder"),
        ColorSpace=SimpleNamespace(Sycc=lambda: "sYCC", Range=Range),
    )
    return Picamera2Device(number, size, libcamera, SimpleNamespace(Picamera2=Picamera2, MappedArray=MappedArray))


@pytest.mark.parametrize(("asked", "given"), [((1280, 960), (1280, 960)), ((1299, 731), (1296, 728))])
def test_pictures_and_their_halves_have_no_padding(asked: tuple[int, int], given: tuple[int, int]) -> None:
    gray, half = open_camera(Camera(), asked).read()
    assert np.array_equal(gray, pixels(given))
    assert half is not None
    assert np.array_equal(half, pixels((given[0] // 2, given[1] // 2)))


@pytest.mark.parametrize(
    "camera", [Camera(streams=1), Camera(least=(640, 480)), Camera(largest=(640, 480)), Camera(largest=(901, 701))]
)
def test_without_a_second_stream_of_half_the_size_there_is_the_picture_alone(
    camera: Camera, caplog: pytest.LogCaptureFixture
) -> None:
    device = open_camera(camera, (1000, 800))
    size = min(camera.largest, (1000, 800))  # this camera may also have only one size, or an odd one
    gray, half = device.read()
    assert half is None
    assert np.array_equal(gray, pixels(size))
    [message] = caplog.messages
    assert message.startswith("picamera2:0: the camera gives pictures of {}x{}, and none of half".format(*size))


def test_a_camera_says_what_it_gives() -> None:
    assert open_camera(Camera(), (1280, 960)).description == "YUV420 1280x960 and 640x480"


@pytest.mark.parametrize(
    ("camera", "number", "problem"),
    [
        (Camera(range=Range.Limited), 0, r"picamera2:0: .*limited-range pictures"),
        (Camera(pixel_format="MJPEG"), 0, r"picamera2:0: the camera gives MJPEG, .* /dev/video0"),
        (Camera(starts=False), 0, r"picamera2:0: cannot be started: Camera is busy"),
        (Camera(), 3, r"picamera2:3: no such camera \(cameras here: imx708\)"),
    ],
)
def test_a_camera_that_cannot_be_used_is_closed_and_the_error_says_why(
    camera: Camera, number: int, problem: str
) -> None:
    with pytest.raises(SourceError, match=problem):
        open_camera(camera, (640, 480), number)
    assert camera.closed == (number == 0)


@pytest.mark.parametrize("stride", [5, 8, 64])
def test_luma_is_the_first_plane_without_the_padding_of_its_rows(stride: int) -> None:
    width, height = 5, 4
    rows = np.full((height, stride), 255, np.uint8)
    rows[:, :width] = np.arange(width * height).reshape(height, width)
    chroma = np.full(stride * height // 2, 128, np.uint8)
    buffer = np.concatenate([rows.ravel(), chroma])
    gray = luma(buffer, (width, height), stride)
    assert gray.tolist() == np.arange(width * height).reshape(height, width).tolist()
    assert np.shares_memory(gray, buffer)


def test_a_buffer_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        luma(np.zeros(30, np.uint8), (5, 4), 8)


@pytest.mark.parametrize("pixel_format", ["YUYV", "MJPEG", "XBGR8888"])
def test_only_a_format_with_a_luma_plane_is_accepted(pixel_format: str) -> None:
    for good in ("YUV420", "NV12", "R8"):
        require_luma("picamera2:0", good)
    with pytest.raises(SourceError, match=rf"picamera2:0: the camera gives {pixel_format}"):
        require_luma("picamera2:0", pixel_format)
