import numpy as np

from edge.contract import LABELS
from edge.episodes import Change, Narrator
from edge.records import Logits
from edge.settings import Events


def shows(label: str, confidence: float = 0.9) -> Logits:
    probabilities = np.full(len(LABELS), (1 - confidence) / (len(LABELS) - 1))
    probabilities[LABELS.index(label)] = confidence
    return tuple(np.log(probabilities).tolist())


def tell(narrator: Narrator, script: list[tuple[float, str | None]]) -> list[tuple[str, str, float]]:
    """Play (time, label of track 1 or None when it is gone) and list what was told."""
    told: list[Change] = []
    for now, label in script:
        told += narrator.update([1] if label else [], {1: shows(label)} if label else {}, now)
    return [(change.kind, change.expression.label, change.time) for change in told]


def every(start: float, stop: float, label: str | None) -> list[tuple[float, str | None]]:
    return [(round(now, 3), label) for now in np.arange(start, stop, 0.1)]


def test_a_face_appears_changes_and_leaves() -> None:
    script = every(0, 2, "neutral") + every(2, 4, "happy") + [(4.0, None)]
    told = tell(Narrator(Events(smoothing=0.3, dwell=0.4)), script)
    assert [(kind, label) for kind, label, _ in told] == [
        ("appeared", "neutral"),
        ("changed", "happy"),
        ("left", "happy"),
    ]
    assert told[0][2] == 0.4
    assert 2.4 <= told[1][2] <= 2.9


def test_a_face_that_goes_at_once_is_never_told() -> None:
    assert tell(Narrator(Events(dwell=0.4)), [*every(0, 0.3, "happy"), (0.3, None)]) == []


def test_a_flicker_is_not_told() -> None:
    script = every(0, 2, "sad") + every(2, 2.2, "angry") + every(2.2, 4, "sad")
    assert [kind for kind, _, _ in tell(Narrator(Events()), script)] == ["appeared"]


def test_the_same_frames_tell_the_same() -> None:
    script = every(0, 3, "fear") + every(3, 5, "surprise")
    assert tell(Narrator(Events()), script) == tell(Narrator(Events()), script)


def test_told_scores_are_named_and_add_up() -> None:
    narrator = Narrator(Events(dwell=0.0))
    [change] = narrator.update([1], {1: shows("disgust", 0.7)}, 0.0)
    assert change.expression.confidence == 0.7
    assert tuple(change.expression.scores) == LABELS
    assert abs(sum(change.expression.scores.values()) - 1) < 0.001
