"""Every kind of degradation, on the demo's portrait and on plain pictures."""

import cv2
import numpy as np
import pytest

from edge.camera.picture_file import read_gray
from tests.conftest import PORTRAIT
from train.data.degradations import DEGRADATIONS, degrade

rng = np.random.default_rng


def portraits(n: int) -> np.ndarray:
    face = cv2.resize(read_gray(PORTRAIT)[65:164, 115:214], (48, 48), interpolation=cv2.INTER_AREA)
    return np.repeat(face[np.newaxis], n, axis=0)


def plain(n: int, grey: int) -> np.ndarray:
    return np.full((n, 48, 48), grey, np.uint8)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_kind_depends_on_its_generator_only_and_changes_more_at_its_worst_level(name: str) -> None:
    kind, faces = DEGRADATIONS[name], portraits(40)
    kept = faces.copy()
    drawn = kind.draw(faces, rng(3))
    assert (drawn.shape, drawn.dtype) == (faces.shape, np.uint8)
    assert np.array_equal(drawn, kind.draw(faces, rng(3)))
    assert not np.array_equal(drawn, kind.draw(faces, rng(4)))
    assert np.array_equal(faces, kept)
    changes = [np.abs(kind.apply(faces, level, rng(3)).astype(int) - faces).mean() for level in mildest_and_worst(name)]
    assert 0 < changes[0] < changes[1]


def mildest_and_worst(name: str) -> tuple[float, float]:
    kind = DEGRADATIONS[name]
    lower_is_worse = name in {"dark", "low contrast", "low resolution", "JPEG"}
    return (kind.highest, kind.lowest) if lower_is_worse else (kind.lowest, kind.highest)


def test_levels_have_their_documented_units() -> None:
    def changed(name: str, faces: np.ndarray, level: float) -> np.ndarray:
        return DEGRADATIONS[name].apply(faces, level, rng(1)).astype(float)

    assert changed("sensor noise", plain(9, 128), 20).std() == pytest.approx(20, rel=0.02)
    assert changed("dark", plain(1, 200), 0.25).mean() == 50
    assert changed("bright", plain(1, 200), 1.5).mean() == 255
    assert changed("low contrast", portraits(1), 0.5).std() == pytest.approx(portraits(1).std() / 2, rel=0.02)
    stripes = plain(1, 0)
    stripes[:, :, ::2] = 255
    assert changed("low resolution", stripes, 24).std() < 1 < changed("low resolution", stripes, 40).std()


def test_blurs_spread_light_over_the_given_distance() -> None:
    edge, columns = plain(1, 0), np.arange(47)
    edge[:, :, 24:] = 255
    steps = np.diff(DEGRADATIONS["defocus blur"].apply(edge, 2, rng(1))[0, 20].astype(float)) / 255
    assert np.sqrt(steps @ (columns - 23) ** 2) == pytest.approx(2, rel=0.05)
    dots = plain(30, 0)
    dots[:, 24, 24] = 255
    for length in (2, 7):
        rows, columns = np.mgrid[:48, :48] - 24
        lines = DEGRADATIONS["motion blur"].apply(dots, length, rng(1)) / 255
        assert np.allclose(lines.sum(axis=(1, 2)), 1, atol=0.06)
        spread = np.sqrt((lines * (rows**2 + columns**2)).sum(axis=(1, 2)))
        assert np.allclose(spread, length / np.sqrt(12), atol=0.55)  # of a uniform line; pixels add to it
        assert len({line.tobytes() for line in lines}) > 20


def test_a_face_is_rotated_moved_and_resized_by_the_level() -> None:
    y, x = np.mgrid[:48, :48] - 23.5
    disc = (((x - 12) ** 2 + y**2 < 36) * 255).astype(np.uint8)
    faces = np.repeat(disc[np.newaxis], 50, axis=0)
    rotated = [place(face) for face in DEGRADATIONS["roll"].apply(faces, 30, rng(2))]
    angles = {round(float(np.degrees(np.arctan2(at[0], at[1]))) / 5) * 5 for at in rotated}
    assert angles == {-30, 30}
    cropped = DEGRADATIONS["box"].apply(faces, 0.1, rng(2))
    scales = np.sqrt((cropped > 127).sum(axis=(1, 2)) / (disc > 127).sum())
    assert np.allclose(np.abs(scales - 1), 0.1, atol=0.04)
    assert 10 < (scales > 1).sum() < 40
    shifts = [
        np.hypot(*(place(face) - np.array([0, 12 * scale.round(1)])))
        for face, scale in zip(cropped, scales, strict=True)
    ]
    assert np.allclose(shifts, 4.8, atol=0.5)


def place(face: np.ndarray) -> np.ndarray:
    """Row and column of the bright spot, from the centre."""
    rows, columns = np.nonzero(face > 127)
    return np.array([rows.mean(), columns.mean()]) - 23.5


@pytest.mark.parametrize(
    ("name", "level", "visible"),
    [
        ("mouth covered", 0.4, np.s_[:, :26]),
        ("eyes covered", 0.3, np.s_[:, 28:]),
    ],
)
def test_a_cover_hides_its_part_and_nothing_else(name: str, level: float, visible: tuple[slice, ...]) -> None:
    faces = portraits(20)
    covered = DEGRADATIONS[name].apply(faces, level, rng(1))
    assert np.array_equal(covered[visible], faces[visible])
    assert 0.1 < (covered != faces).mean() < 0.4


def test_half_of_a_face_is_covered_from_either_side() -> None:
    faces = portraits(40)
    hidden = (DEGRADATIONS["half covered"].apply(faces, 0.5, rng(1)) != faces).mean(axis=1)
    left, right = hidden[:, :24].mean(axis=1), hidden[:, 24:].mean(axis=1)
    assert np.array_equal(left > 0.8, right == 0)
    assert 10 < (left > 0.8).sum() < 30


def test_stray_light_comes_from_one_side_and_the_face_is_dark() -> None:
    lit = DEGRADATIONS["backlight"].apply(plain(40, 128), 0.7, rng(1)).astype(float)
    edges = np.sort(np.stack([lit[:, :, 0].mean(axis=1), lit[:, :, -1].mean(axis=1)]), axis=0)
    assert edges[0].max() < 60
    assert edges[1].min() > 150


def test_the_given_share_of_the_faces_is_degraded_by_various_kinds() -> None:
    faces = portraits(600)
    changed = (degrade(faces, 0.4, rng(5)) != faces).any(axis=(1, 2))
    assert changed.mean() == pytest.approx(0.4, abs=0.06)
    whole = degrade(faces, 1.0, rng(5))
    assert (whole != faces).any(axis=(1, 2)).mean() > 0.97
    assert len({face.tobytes() for face in whole}) > 500
    assert np.array_equal(whole, degrade(faces, 1.0, rng(5)))


def test_without_degradation_nothing_is_drawn() -> None:
    faces, generator = portraits(3), rng(1)
    assert degrade(faces, 0.0, generator) is faces
    assert generator.random() == rng(1).random()
