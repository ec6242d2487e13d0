import numpy as np
import pytest

from edge.camera.devices import luma, require_full_range, require_luma, to_gray
from edge.errors import SourceError


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


def test_limited_range_is_refused() -> None:
    require_full_range("picamera2:0", True, "sYCC")
    with pytest.raises(SourceError, match=r"picamera2:0: .*limited-range pictures \(SMPTE170M\)"):
        require_full_range("picamera2:0", False, "SMPTE170M")


@pytest.mark.parametrize("pixel_format", ["YUYV", "MJPEG", "XBGR8888"])
def test_only_a_format_with_a_luma_plane_is_accepted(pixel_format: str) -> None:
    for good in ("YUV420", "NV12", "R8"):
        require_luma("picamera2:0", good)
    with pytest.raises(SourceError, match=rf"picamera2:0: the camera gives {pixel_format}"):
        require_luma("picamera2:0", pixel_format)


def test_gray_of_a_colour_picture_is_its_luma() -> None:
    green = np.zeros((2, 2, 3), np.uint8)
    green[..., 1] = 200
    assert to_gray(green).tolist() == [[117, 117], [117, 117]]
    assert to_gray(green[..., 1]).tolist() == [[200, 200], [200, 200]]
