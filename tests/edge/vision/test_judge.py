from importlib import resources

import numpy as np
import pytest

from edge.records import Square
from edge.vision.judge import INPUT_SIDE, FaceJudge
from edge.vision.pyramid import Pyramid
from tests.edge.stage import Actor, film, walk

FACE = Square(300, 220, 100)


@pytest.fixture(scope="module")
def judge() -> FaceJudge:
    return FaceJudge()


@pytest.fixture(scope="module")
def scene() -> Pyramid:
    [frame] = film([Actor(walk((FACE.x, FACE.y, FACE.side), (FACE.x, FACE.y, FACE.side), 1))], 0.04)
    return Pyramid(frame.gray)


@pytest.mark.parametrize("rough", [Square(312, 210, 100), Square(292, 226, 82), Square(300, 220, 122)])
def test_two_looks_move_a_rough_square_onto_the_face(judge: FaceJudge, scene: Pyramid, rough: Square) -> None:
    opinion = judge.look(scene, judge.look(scene, rough).face)
    assert opinion.score > 2
    assert opinion.face.overlap(FACE) > 0.65


def test_what_is_no_face_gets_a_low_score(judge: FaceJudge, scene: Pyramid) -> None:
    for place in (Square(100, 100, 90), Square(550, 350, 120), Square(300, 330, 100)):
        assert judge.look(scene, place).score < 0


def test_brightness_and_contrast_hardly_matter(judge: FaceJudge, scene: Pyramid) -> None:
    patch = scene.cut(FACE, INPUT_SIDE)
    dim = np.asarray(patch * 0.3 + 20, np.uint8)
    bright, dark = judge.outputs(np.stack([patch, dim]))
    assert np.abs(bright - dark).max() < 0.6


def test_a_patch_is_judged_alike_alone_and_among_others(judge: FaceJudge) -> None:
    patches = np.random.default_rng(1).integers(0, 256, (5, INPUT_SIDE, INPUT_SIDE), np.uint8)
    together = judge.outputs(patches)
    assert together.shape == (5, 5)
    assert np.allclose(together[3], judge.outputs(patches[3:4])[0], atol=1e-4)


def test_a_flat_patch_is_no_face(judge: FaceJudge) -> None:
    assert judge.look(Pyramid(np.full((100, 100), 90, np.uint8)), Square(50, 50, 60)).score < 0


def test_most_of_its_hidden_units_tell_patches_apart(scene: Pyramid) -> None:
    """Training can leave units at 0 for every input; then the file is worse than its size allows."""
    with (resources.files("edge.vision") / "face-judge.npz").open("rb") as stream, np.load(stream) as arrays:
        weights = dict(arrays)
    width = len(weights["hidden_bias"])
    shown = FaceJudge(weights | {"output": np.eye(width), "output_bias": np.zeros(width)})
    places = [Square(x, y, side) for x in range(60, 600, 60) for y in (120, 220, 320) for side in (60, 100, 160)]
    hidden = shown.outputs(np.stack([scene.cut(place, INPUT_SIDE) for place in places]))
    assert (hidden > 0).any(axis=0).mean() > 0.8
