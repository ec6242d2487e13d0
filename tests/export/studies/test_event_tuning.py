"""False event changes and event delay, on sequences with known ground truth."""

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.fer2013 import read_faces
from edge.events.episodes import DEFAULT_TUNING, EpisodeSettings, episode_settings
from edge.labels import FER2013_LABELS
from edge.model.bundle import Card, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.records import Logits
from edge.settings import EventSettings, ModelSettings
from export.cli import _main
from export.studies.event_tuning import (
    SEQUENCE_FPS,
    ReadingSequence,
    autoregression,
    format_stability,
    make_sequences,
    measure_events,
    simulate_frames,
    tune_events,
)

CONSTANT = ReadingSequence(((0.0,) * 6 + (4.0,),) * 60)


def shipped(card: Card) -> EpisodeSettings:
    return episode_settings(EventSettings(), (), card.labels, card.events, card.abstention.threshold)


def small() -> Card:
    """The card, with the threshold of the network that the noise is modelled on."""
    card = open_bundle(find_bundle("student-small")).card
    return structs.replace(card, abstention=structs.replace(card.abstention, threshold=0.40184))


def noisy(rng: np.random.Generator, labels: list[int]) -> tuple[Logits, ...]:
    """Logits that lead by 2 for the true label, with noise from frame to frame and a slower one (1.5 s)."""
    true = 2.0 * np.eye(len(FER2013_LABELS))[labels]
    slow = autoregression(rng, len(labels), [0.5] * len(FER2013_LABELS), 1.5)
    return tuple(tuple(row) for row in (true + slow + rng.normal(0, 0.7, true.shape)).tolist())


@pytest.fixture(scope="module")
def takes() -> list[ReadingSequence]:
    """Twenty faces that show the same for ten seconds, and twenty that change after four."""
    rng = np.random.default_rng(5)
    made = [ReadingSequence(noisy(rng, [number % 7] * int(10 * SEQUENCE_FPS))) for number in range(20)]
    half = int(4 * SEQUENCE_FPS)
    for number in range(20):
        first, then = number % 7, (number + 1 + number // 7) % 7
        made.append(ReadingSequence(noisy(rng, [first] * half + [then] * half), 4.0, FER2013_LABELS[then]))
    return made


def test_on_modelled_noise_events_are_stable_and_quick(takes: list[ReadingSequence]) -> None:
    calm = measure_events(takes, shipped(small()))
    assert calm.raw_per_minute > 60, "or there is nothing to smooth"
    assert calm.ratio >= 20
    assert calm.delay <= 0.6
    assert calm.missed <= 2


@pytest.mark.slow
def test_on_real_faces_and_the_real_network_events_are_stable_and_quick(public_test: Path) -> None:
    classifier = Classifier(open_bundle(find_bundle(ModelSettings().bundle)))
    made = make_sequences(classifier, read_faces(public_test, "PublicTest"), 8)
    calm = measure_events(made, shipped(classifier.card))
    assert calm.raw_per_minute > 30
    assert calm.ratio >= 20
    assert calm.delay <= 0.6


def test_without_smoothing_every_label_change_is_an_event(takes: list[ReadingSequence]) -> None:
    """What the measure itself is worth."""
    jumpy = episode_settings(
        EventSettings(smoothing=0.001, dwell=0.0, hysteresis=0.0, threshold=0.0),
        (),
        FER2013_LABELS,
        DEFAULT_TUNING,
        0.0,
    )
    assert measure_events(takes, jumpy).ratio == pytest.approx(1.0, abs=0.01)


def test_a_long_dwell_gives_a_long_delay(takes: list[ReadingSequence]) -> None:
    sluggish = episode_settings(EventSettings(dwell=2.0), (), FER2013_LABELS, DEFAULT_TUNING, 0.0)
    assert measure_events(takes, sluggish).delay > 2.0


def test_a_change_without_an_event_is_counted_by_its_reason() -> None:
    """Four seconds of one thing, then four of another that is not told, each for another reason."""
    half = int(4 * SEQUENCE_FPS)
    happy, weak, slight = (np.zeros(len(FER2013_LABELS)) for _ in range(3))
    happy[3], weak[4] = 4.0, 0.5  # of sad, some 0.2
    slight[[3, 4]] = 3.0, 3.2  # sad, but hardly more than happy

    def take(then: NDArray[np.float64], truth: str) -> ReadingSequence:
        return ReadingSequence((tuple(happy.tolist()),) * half + (tuple(then.tolist()),) * half, 4.0, truth)

    calm = measure_events([take(happy, "fear"), take(weak, "sad"), take(slight, "sad"), CONSTANT], shipped(small()))
    assert (calm.another, calm.unsure, calm.held, calm.missed, calm.delays) == (1, 1, 1, 3, ())


def test_no_face_at_all_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main(["episodes", "student-small", "--data", "none.csv", "--faces", "0"])
    assert ended.value.code == 2
    assert "argument --faces: '0': give a whole number from 1" in capsys.readouterr().err


def test_tuning_takes_the_fewest_events_that_are_quick_enough(takes: list[ReadingSequence]) -> None:
    few = takes[:3] + takes[-5:]
    telling, calm = tune_events(few, small())
    assert calm == measure_events(
        few, episode_settings(EventSettings(), (), FER2013_LABELS, telling, small().abstention.threshold)
    )
    assert calm.delay <= 0.5


def test_simulated_frames_move_a_little_and_are_the_same_for_the_same_seed() -> None:
    face = np.random.default_rng(1).integers(0, 256, (6, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    first, again = (simulate_frames(face, 30, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (30, 48, 48)
    middle = np.median(first, axis=0)
    assert np.corrcoef(middle.ravel(), face.ravel())[0, 1] > 0.8
    steps = np.abs(first[1:].astype(int) - first[:-1]).mean(axis=(1, 2))
    assert (steps > 2).all()


def test_the_report_has_text_where_there_is_no_number() -> None:
    """A tree of three pictures has no change to tell; "inf" and "nan" would say nothing to anybody."""
    card = small()
    calm = measure_events([CONSTANT], shipped(card))
    told = format_stability(card, card.events, calm)
    assert (calm.events_per_minute, calm.delays) == (0, ())
    assert "0.00 events (no event)" in told
    assert "real changes: no event; 0 without an event" in told
    assert "inf" not in told
    assert "nan" not in told


def test_without_an_event_after_a_change_there_is_nothing_to_tune_by() -> None:
    with pytest.raises(DataError, match="no simulated change of expression gave an event"):
        tune_events([CONSTANT], small())
