"""What a USB camera is asked for. The camera is made up: it takes some values and refuses others."""

from typing import Any

import cv2
import pytest

from edge.camera.usb import configure, description, refusals
from edge.settings import CameraSettings


class Camera:
    """A camera with the formats that it is given, whose exposure has steps of 0.1 ms up to 50 ms."""

    def __init__(self, *formats: str) -> None:
        self.formats = {cv2.VideoWriter.fourcc(*name) for name in formats}
        self.asked: list[tuple[int, float]] = []
        self.values: dict[int, float] = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*formats[0]),
            cv2.CAP_PROP_FPS: 30,
            cv2.CAP_PROP_EXPOSURE: 156,
        }

    def set(self, prop: int, value: float) -> bool:
        self.asked.append((prop, value))
        if prop == cv2.CAP_PROP_FOURCC and value not in self.formats:
            return False
        if prop in (cv2.CAP_PROP_AUTO_WB, cv2.CAP_PROP_WB_TEMPERATURE):
            return False
        self.values[prop] = min(value, 500) if prop == cv2.CAP_PROP_EXPOSURE else value
        return True

    def get(self, prop: int) -> float:
        return self.values.get(prop, -1.0)


def asked(camera: Camera, prop: int) -> list[float]:
    return [value for key, value in camera.asked if key == prop]


@pytest.mark.parametrize(
    ("size", "wanted", "given"),
    [
        ((640, 480), "auto", "YUYV"),
        ((1280, 720), "auto", "MJPG"),
        ((640, 480), "MJPG", "MJPG"),
        ((1280, 720), "YUYV", "YUYV"),
    ],
)
def test_large_pictures_are_asked_for_as_mjpg(size: tuple[int, int], wanted: str, given: str) -> None:
    camera = Camera("YUYV", "MJPG")
    configure(camera, CameraSettings(size=size, format=wanted))  # type: ignore[arg-type]
    assert description(camera) == f"{given} {size[0]}x{size[1]}"
    if wanted != "auto":
        assert camera.asked[0][0] == cv2.CAP_PROP_FOURCC, "size and rate depend on the format"


def test_by_default_exposure_white_balance_and_rate_are_left_alone() -> None:
    camera = Camera("YUYV")
    configure(camera, CameraSettings())
    assert {key for key, _ in camera.asked} == {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT}


def test_exposure_and_white_balance_are_locked_and_released() -> None:
    camera = Camera("YUYV")
    configure(camera, CameraSettings(exposure_ms=10.0, white_balance=4600, fps=15.0))
    assert asked(camera, cv2.CAP_PROP_AUTO_EXPOSURE) == [1]
    assert asked(camera, cv2.CAP_PROP_EXPOSURE) == [100]
    assert asked(camera, cv2.CAP_PROP_AUTO_WB) == [0]
    assert asked(camera, cv2.CAP_PROP_WB_TEMPERATURE) == [4600]
    assert asked(camera, cv2.CAP_PROP_FPS) == [15]
    released = Camera("YUYV")
    configure(released, CameraSettings(exposure_ms="auto", white_balance="auto"))
    assert asked(released, cv2.CAP_PROP_AUTO_EXPOSURE) == [3]
    assert asked(released, cv2.CAP_PROP_AUTO_WB) == [1]


def test_what_was_asked_for_and_not_done_is_said(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera("YUYV")
    settings = CameraSettings(format="MJPG", exposure_ms=100.0, white_balance=4600, fps=30.0)
    configure(camera, settings)
    assert refusals(camera, settings) == [
        "camera.format: asked for MJPG, and the camera gives YUYV",
        "camera.exposure_ms: asked for 100, and the camera has 50",
        "camera.white_balance: asked for 4600, and the camera cannot be set",
    ]
    assert caplog.messages[0] == "/dev/video0: camera.format: asked for MJPG, and the camera gives YUYV"
    assert refusals(camera, CameraSettings(size=(1280, 720))) == [], "auto asks for nothing by name"


@pytest.mark.parametrize(("size", "width"), [("auto", 640), ((1280, 720), 1280)])
def test_the_usual_size_is_640x480(size: Any, width: int) -> None:
    camera = Camera("YUYV")
    configure(camera, CameraSettings(size=size))
    assert asked(camera, cv2.CAP_PROP_FRAME_WIDTH) == [width]


def test_a_camera_that_states_no_format_is_described_nevertheless() -> None:
    camera = Camera("YUYV")
    camera.values[cv2.CAP_PROP_FOURCC] = -1
    assert description(camera).startswith("unknown format")
