import numpy as np
import pytest

from export.importing.face_input import FaceInput
from export.importing.scaling import SCALINGS, candidates, parse_scaling, prepare

GREY = FaceInput(48, 1)


@pytest.mark.parametrize(
    ("name", "black", "white"), [("zero-one", 0, 1), ("minus-one-one", -1, 1), ("raw", 0, 255), ("127.5,51", -2.5, 2.5)]
)
def test_black_and_white_become_what_the_scaling_says(name: str, black: float, white: float) -> None:
    scaling = parse_scaling(name)
    for pixel, expected in ((0, black), (255, white)):
        prepared = prepare(np.full((48, 48), pixel, np.uint8), GREY, scaling)
        assert prepared.shape == (1, 48, 48, 1)
        np.testing.assert_allclose(prepared, expected, atol=1e-6)


def test_colour_networks_get_three_channels_of_their_size_and_their_own_means() -> None:
    prepared = prepare(np.full((48, 48), 124, np.uint8), FaceInput(64, 3), SCALINGS["caffe"])
    assert prepared.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(prepared[0, 5, 5], [20.061, 7.221, 0.32], atol=1e-3)


def test_scalings_with_a_mean_for_each_colour_are_not_tried_for_grey() -> None:
    assert [scaling.name for scaling in candidates(GREY)] == ["zero-one", "minus-one-one", "raw"]
    assert len(candidates(FaceInput(64, 3))) == len(SCALINGS)


@pytest.mark.parametrize("text", ["", "255", "0,0", "nan,1", "1,2,3", "zero", "0,inf"])
def test_what_is_no_scaling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MEAN,DEVIATION"):
        parse_scaling(text)
