import numpy as np
import pytest

from edge.vision.scheduler import ClassificationScheduler


def choices(rate: float, fps: float, ids: list[int], seconds: float = 4.0) -> list[list[int]]:
    scheduler = ClassificationScheduler(rate)
    return [scheduler.choose(ids, n / fps) for n in range(round(fps * seconds))]


@pytest.mark.parametrize(("rate", "fps", "expected"), [(15, 30, 15), (15, 25, 12.5), (15, 10, 10), (5, 30, 5)])
def test_each_face_is_classified_at_the_rate_or_in_every_frame(rate: float, fps: float, expected: float) -> None:
    for ids in ([1], [1, 2, 3]):
        chosen = choices(rate, fps, ids)
        for face in ids:
            assert sum(face in frame for frame in chosen) / 4 == pytest.approx(expected, rel=0.1)


def test_faces_take_turns() -> None:
    settled = choices(15, 30, [1, 2])[4:]
    assert {len(frame) for frame in settled} == {1}
    assert np.ptp([sum(face in frame for frame in settled) for face in (1, 2)]) <= 1


@pytest.mark.parametrize("fps", [10, 25, 30])
@pytest.mark.parametrize("faces", [4, 6, 10])
def test_many_faces_share_the_classifications_of_three(faces: int, fps: float) -> None:
    settled = choices(15, fps, list(range(faces)), seconds=6.0)[round(fps) :]
    counts = [sum(face in frame for frame in settled) for face in range(faces)]
    assert sum(counts) / 5 <= 3 * 15 * 1.12
    assert sum(counts) / 5 >= min(3 * 15, faces * fps) * 0.75
    assert np.ptp(counts) <= 2
    assert max(map(len, settled)) <= -(-3 * 15 // fps)


def test_a_new_face_is_classified_at_once() -> None:
    scheduler = ClassificationScheduler(5)
    assert scheduler.choose([1], 0.0) == [1]
    assert scheduler.choose([1], 0.05) == []
    assert scheduler.choose([1, 2], 0.1) == [2]
    assert scheduler.choose([], 0.2) == []
