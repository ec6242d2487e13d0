import pytest

from edge.errors import BundleError, UsageError
from export.importing.face_input import FaceInput, Shape, check_scores, face_input

LABELS = ("angry", "happy", "neutral")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 48, 48, 1), FaceInput(48, 1)),
        ((1, 64, 64, 3), FaceInput(64, 3)),
        ((None, 224, 224, 3), FaceInput(224, 3)),
    ],
)
def test_square_faces_in_grey_or_colour_are_taken(shape: Shape, expected: FaceInput) -> None:
    assert face_input([("face", shape)], "m.h5") == expected


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((None, 48, 64, 1), "faces are square"),
        ((None, 16, 48, 48, 1), "one face at a time"),
        ((None, 48, 48), "Put a Reshape layer"),
        ((None, 2304), "takes no pictures"),
        ((None, 1, 48, 48), "channels last"),
        ((None, 3, 48, 48), "channels last"),
        ((None, 48, 48, 4), "4 channels are neither grey"),
        ((None, None, None, 1), "no fixed size"),
        ((None, 299, 299, 3), "24 to 224"),
        ((None, 8, 8, 1), "24 to 224"),
        ((32, 48, 48, 1), "fixed to 32"),
        ((), "takes no pictures"),
    ],
)
def test_other_inputs_are_refused_with_what_to_do(shape: Shape, words: str) -> None:
    with pytest.raises(BundleError, match=words) as refused:
        face_input([("face", shape)], "m.h5")
    assert str(refused.value).startswith("m.h5: its input is (")


def test_several_inputs_are_refused_by_their_names() -> None:
    with pytest.raises(BundleError, match=r"2 inputs \(face \(\?, 48, 48, 1\), marks \(\?, 10\)\)"):
        face_input([("face", (None, 48, 48, 1)), ("marks", (None, 10))], "m.h5")


def test_a_network_that_was_never_given_the_shape_of_its_input_is_refused() -> None:
    with pytest.raises(BundleError, match="Begin it with an Input layer"):
        face_input([], "m.h5")


def test_scores_must_be_as_many_as_the_labels() -> None:
    check_scores([("scores", (None, 3))], LABELS, "m.h5")
    with pytest.raises(UsageError, match="gives 7 scores, but --labels names 3: angry, happy, neutral"):
        check_scores([("scores", (None, 7))], LABELS, "m.h5")
    with pytest.raises(UsageError, match="two outputs and a softmax"):
        check_scores([("scores", (None, 1))], LABELS[:2], "m.h5")
    with pytest.raises(BundleError, match="Flatten it"):
        check_scores([("scores", (None, 1, 1, 3))], LABELS, "m.h5")
    with pytest.raises(BundleError, match="2 outputs"):
        check_scores([("scores", (None, 3)), ("age", (None, 1))], LABELS, "m.h5")
