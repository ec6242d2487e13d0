import numpy as np

from edge.camera.devices import to_gray


def test_gray_of_a_colour_picture_is_its_luma() -> None:
    green = np.zeros((2, 2, 3), np.uint8)
    green[..., 1] = 200
    assert to_gray(green).tolist() == [[117, 117], [117, 117]]
    assert to_gray(green[..., 1]).tolist() == [[200, 200], [200, 200]]
