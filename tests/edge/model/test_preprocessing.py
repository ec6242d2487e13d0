import cv2
import numpy as np
import pytest

from edge.labels import FER2013_LABELS
from edge.model.preprocessing import INPUT_SIZE, Temperature, crop, dequantize, encode, quantize
from edge.records import Box
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "contract.npz"


def ramp(width: int, height: int) -> np.ndarray:
    return np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)


def test_the_labels_have_fer2013s_order() -> None:
    assert FER2013_LABELS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_48_pixel_box_without_margin_is_cropped_unchanged() -> None:
    picture = ramp(100, 80)
    assert np.array_equal(crop(picture, Box(10, 20, 48, 48), 0.0), picture[20:68, 10:58])


def test_the_margin_is_added_on_each_side() -> None:
    picture = ramp(200, 200)
    assert np.array_equal(crop(picture, Box(60, 60, 32, 32), 0.25), picture[52:100, 52:100])


def test_the_border_is_repeated_outside_the_picture() -> None:
    picture = np.zeros((60, 60), np.uint8)
    picture[:, :2] = 200
    cut = crop(picture, Box(-24, 0, 48, 48), 0.0)
    assert (cut[:, :24] == 200).all()
    assert (cut[:, 26:] == 0).all()


def test_a_wide_box_becomes_the_square_around_its_centre() -> None:
    picture = ramp(200, 200)
    assert np.array_equal(crop(picture, Box(50, 60, 48, 28), 0.0), picture[50:98, 50:98])


@pytest.mark.parametrize("roll", [-30.0, 30.0])
def test_a_head_that_leans_is_turned_upright(roll: float) -> None:
    coarse = np.random.default_rng(1).integers(0, 256, (20, 20), np.uint8)
    picture = cv2.resize(coarse, (200, 200), interpolation=cv2.INTER_CUBIC)
    leaning = cv2.warpAffine(picture, cv2.getRotationMatrix2D((99.5, 99.5), -roll, 1.0), (200, 200))
    box = Box(70, 70, 60, 60)
    upright = crop(picture, box, 0.0).astype(int)
    assert np.abs(crop(leaning, box, 0.0, roll).astype(int) - upright).max() <= 8
    assert np.abs(crop(leaning, box, 0.0).astype(int) - upright).max() > 50


def test_a_small_roll_is_left_as_it_is() -> None:
    assert np.array_equal(
        crop(ramp(100, 100), Box(20, 20, 50, 50), 0.0, 9.0), crop(ramp(100, 100), Box(20, 20, 50, 50), 0.0)
    )


@pytest.mark.parametrize("box", [Box(0, 0, 0, 10), Box(500, 500, 20, 20), Box(-90, 0, 20, 20)])
def test_an_empty_box_is_an_error(box: Box) -> None:
    with pytest.raises(ValueError, match="box"):
        crop(ramp(100, 100), box, 0.0)


def test_with_the_bundles_quantization_encoding_is_pixel_minus_128() -> None:
    face = np.arange(INPUT_SIZE * INPUT_SIZE, dtype=np.uint32).reshape(INPUT_SIZE, INPUT_SIZE).astype(np.uint8)
    encoded = encode(face, 1 / 128, 0)
    assert encoded.shape == (1, 48, 48, 1)
    assert encoded.dtype == np.int8
    assert np.array_equal(encoded[0, :, :, 0].astype(int), face.astype(int) - 128)


def test_quantizing_saturates_instead_of_wrapping() -> None:
    real = np.array([-9.0, -1.0, 0.0, 0.99, 9.0], np.float32)
    assert quantize(real, 1 / 128, 0).tolist() == [-128, -128, 0, 127, 127]


def test_dequantizing_inverts_quantizing() -> None:
    stored = np.array([10, -20, 30, 40, 0, 0, 0], np.int8)
    np.testing.assert_allclose(dequantize(stored, 0.1, 5), (stored.astype(float) - 5) * 0.1, rtol=1e-12)


def test_without_slope_and_curve_all_faces_have_one_temperature() -> None:
    logits = np.array([[1.0, 2, 3, 4, 5, 6, 7], [0, 0, 0, 9, 0, 0, 0]])
    flat = Temperature(level=float(np.log(1.6)), slope=0.0, curve=0.0)
    np.testing.assert_allclose(flat.calibrated(logits), logits / 1.6, rtol=1e-12)


def test_the_temperature_depends_on_the_lead_and_keeps_the_likeliest_label() -> None:
    unsure, sure = np.array([0.3, 0, 0, 0, 0, 0, 0]), np.array([0, 0, 2.0, 0, 0, 0, -5])
    temperature = Temperature(level=0.2, slope=0.1, curve=-0.15)
    faces = temperature.calibrated(np.stack([unsure, sure]))
    np.testing.assert_allclose(faces[0], unsure / np.exp(0.2 + 0.03 - 0.0135))
    np.testing.assert_allclose(faces[1], sure / np.exp(0.2 + 0.2 - 0.6))
    assert faces.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(temperature.calibrated(sure), faces[1])


@pytest.mark.parametrize(("curve", "factor"), [(-0.1, 3.0), (0.1, 1 / 3)])
def test_the_temperature_is_bounded(curve: float, factor: float) -> None:
    """A temperature near 0 would make one frame outweigh all others, a huge one would make it count for nothing."""
    certain = np.array([90.0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(Temperature(0.0, 0.3, curve).calibrated(certain), certain * factor)


def test_the_golden_crops_and_tensors_are_reproduced() -> None:
    """The committed file records how pictures were prepared for training; a difference here affects every model."""
    with np.load(GOLDEN, allow_pickle=False) as golden:
        for box, face, tensor in zip(golden["boxes"], golden["faces"], golden["tensors"], strict=True):
            cut = crop(golden["picture"], Box(*map(int, box)), float(golden["margin"]))
            assert np.array_equal(cut, face)
            assert np.array_equal(encode(cut, 1 / 128, 0), tensor)
