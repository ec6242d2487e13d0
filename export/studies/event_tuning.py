"""``fer-export episodes``: measure false event changes and event delay of a bundle, and tune its event thresholds.

There are no public videos with the true expression of every frame. So sequences are simulated: real faces, moved and
lit from frame to frame as by a detector and a camera, and classified by the real int8 network. The noise is a model,
see :func:`simulate_frames`; the figures hold for that model, not for a certain camera.
"""

import itertools
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.events.episodes import EpisodeSettings, EpisodeTracker, episode_settings
from edge.labels import FER2013_LABELS
from edge.model.bundle import Card, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import INPUT_SIZE, softmax
from edge.records import EventTuning, Logits
from edge.settings import EventSettings
from export.edgetpu.compiled import write_card
from export.golden import find_changeable

SEQUENCE_FPS: Final = 15.0

_SEED: Final = 20261122
_CONSTANT_SECONDS: Final = 20.0
_CHANGE_SECONDS: Final = 4.0
_MAX_DELAY: Final = 0.5
_GRID: Final = ((0.2, 0.3, 0.4, 0.5, 0.6), (0.1, 0.2, 0.3), (0.05, 0.1, 0.15, 0.2))


@dataclass(frozen=True)
class ReadingSequence:
    """Readings of one face at SEQUENCE_FPS. From ``change`` on (seconds; None: never) its expression is ``after``."""

    readings: tuple[Logits, ...]
    change: float | None = None
    after: str = ""


@dataclass(frozen=True)
class EventStability:
    """Events of simulated sequences.

    While the expression stays the same, ``raw_per_minute`` counts changes of the likeliest label from frame to frame,
    and ``events_per_minute`` the events ``changed`` and ``uncertain``. ``delays`` are the seconds from a real change to
    its event. Changes without an event are counted by reason, from the mean of the readings after the change: they
    have ``another`` label; they have the right label below the threshold (``unsure``); or smoothing, dwell and
    hysteresis suppressed the event (``held``).
    """

    minutes: float
    raw_per_minute: float
    events_per_minute: float
    delays: tuple[float, ...]
    another: int
    unsure: int
    held: int

    @property
    def missed(self) -> int:
        """Number of changes without an event."""
        return self.another + self.unsure + self.held

    @property
    def ratio(self) -> float:
        """Label changes in frames per event; infinite without events."""
        return self.raw_per_minute / self.events_per_minute if self.events_per_minute else float("inf")

    @property
    def delay(self) -> float:
        """Median delay in seconds; infinite without events."""
        return float(np.median(self.delays)) if self.delays else float("inf")


def simulate_frames(face: NDArray[np.uint8], frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Crops of a ``(48, 48)`` face as from a camera and a detector: ``(frames, 48, 48)`` uint8.

    The noise model has independent noise per frame: the box's place (standard deviation 2.5 % of its side), its size
    (3 %), and sensor noise (3 grey levels). It has slow noise, as first-order autoregressions of about 1.5 s: the
    head's place (3 %), tilt (4 degrees), and light (gain 8 %). Border pixels are repeated.
    """
    quick = rng.normal(0, (0.025, 0.025, 0.03), (frames, 3))
    slow = autoregression(rng, frames, (0.03, 0.03, 4.0, 0.08), 1.5)
    centre = INPUT_SIZE / 2 - 0.5
    sequences = np.empty((frames, INPUT_SIZE, INPUT_SIZE), np.uint8)
    for number, ((dx, dy, size), (x, y, tilt, light)) in enumerate(zip(quick, slow, strict=True)):
        move = cv2.getRotationMatrix2D((centre, centre), float(tilt), float(1 + size))
        move[:, 2] += INPUT_SIZE * np.array((dx + x, dy + y))
        moved = cv2.warpAffine(face, move, (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE)
        noisy = moved * (1 + light) + rng.normal(0, 3, moved.shape)
        sequences[number] = np.clip(noisy, 0, 255)
    return sequences


def autoregression(
    rng: np.random.Generator, frames: int, deviations: Iterable[float], seconds: float
) -> NDArray[np.float64]:
    """Stationary first-order autoregressive noise, ``(frames, n)``, with a time constant of ``seconds``."""
    spread = np.array(tuple(deviations))
    keep = np.exp(-1 / (SEQUENCE_FPS * seconds))
    noise = rng.normal(0, 1, (frames, len(spread)))
    noise[1:] *= np.sqrt(1 - keep**2)
    for number in range(1, frames):
        noise[number] += keep * noise[number - 1]
    return np.asarray(noise * spread, np.float64)


def make_sequences(
    classifier: Classifier, faces: LabelledFaces, count: int, seed: int = _SEED
) -> list[ReadingSequence]:
    """``count`` sequences with a constant expression, and at most as many with a change.

    The constant ones are drawn from all faces, also difficult ones. A change is between two faces of different labels
    whose still pictures the network classifies correctly and with confidence; for others an event that is late cannot
    be distinguished from a wrong one.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(faces))
    sequences = [
        ReadingSequence(
            _read(classifier, simulate_frames(faces.pixels[one], int(_CONSTANT_SECONDS * SEQUENCE_FPS), rng))
        )
        for one in order[:count]
    ]
    certain = []
    for one in order:
        reading = softmax(classifier.read(faces.pixels[one]))
        if reading.argmax() == faces.labels[one] and reading.max() >= classifier.card.abstention.threshold:
            certain.append(one)
        if len(certain) > count:
            break
    frames = int(_CHANGE_SECONDS * SEQUENCE_FPS)
    for first, then in itertools.pairwise(certain):
        if faces.labels[first] == faces.labels[then]:
            continue
        readings = (_read(classifier, simulate_frames(faces.pixels[one], frames, rng)) for one in (first, then))
        sequences.append(ReadingSequence(sum(readings, ()), frames / SEQUENCE_FPS, FER2013_LABELS[faces.labels[then]]))
    return sequences


def _read(classifier: Classifier, pictures: NDArray[np.uint8]) -> tuple[Logits, ...]:
    return tuple(classifier.read(picture) for picture in pictures)


def measure_events(sequences: Sequence[ReadingSequence], wanted: EpisodeSettings) -> EventStability:
    """Run the event logic with these settings over the sequences, and count its events."""
    raw = events = 0
    missed: Counter[str] = Counter()
    minutes = 0.0
    delays = []
    for one in sequences:
        episode_tracker = EpisodeTracker(wanted)
        changes = [
            change
            for number, reading in enumerate(one.readings)
            for change in episode_tracker.update((1,), {1: reading}, number / SEQUENCE_FPS)
        ]
        if one.change is None:
            tops = np.array(one.readings).argmax(axis=1)
            raw += int((tops[1:] != tops[:-1]).sum())
            events += sum(change.kind in ("changed", "uncertain") for change in changes)
            minutes += len(one.readings) / SEQUENCE_FPS / 60
            continue
        at = one.change
        right = (c.time - at for c in changes if c.expression and c.expression.label == one.after and c.time >= at)
        delay = next(right, None)
        if delay is None:
            missed[_why_missed(one.readings[round(at * SEQUENCE_FPS) :], one.after, wanted)] += 1
        else:
            delays.append(delay)
    return EventStability(
        minutes, raw / minutes, events / minutes, tuple(delays), missed["another"], missed["unsure"], missed["held"]
    )


def _why_missed(
    readings: Sequence[Logits], truth: str, wanted: EpisodeSettings
) -> Literal["another", "unsure", "held"]:
    """Why a change has no event, as in :class:`EventStability`."""
    probabilities = softmax(np.mean(readings, axis=0))
    if FER2013_LABELS[int(probabilities.argmax())] != truth:
        return "another"
    return "unsure" if probabilities.max() < wanted.threshold else "held"


def tune_events(sequences: Sequence[ReadingSequence], card: Card) -> tuple[EventTuning, EventStability]:
    """The thresholds of a grid with the fewest events and a median delay of at most 0.5 seconds, else the quickest.

    Raises DataError when no thresholds give an event after a change: then nothing tells which are better.
    """
    tried = []
    for values in itertools.product(*_GRID):
        tuning = EventTuning(*values)
        tried.append((tuning, measure_events(sequences, _settings(card, tuning))))
    if not any(stability.delays for _, stability in tried):
        raise DataError(
            "no simulated change of expression gave an event, so there is nothing to tune by. The data needs faces of "
            "several labels that the network classifies correctly. Give more or other faces, or a larger --faces"
        )
    quick = [pair for pair in tried if pair[1].delay <= _MAX_DELAY]
    if quick:
        return min(quick, key=lambda pair: (pair[1].events_per_minute, pair[1].missed, pair[1].delay))
    return min(tried, key=lambda pair: pair[1].delay)


def _settings(card: Card, tuning: EventTuning) -> EpisodeSettings:
    return episode_settings(EventSettings(), (), card.labels, tuning, card.abstention.threshold)


def episodes_command(arguments: Namespace) -> int:
    """``fer-export episodes``; returns the exit code."""
    find = find_changeable if arguments.tune else find_bundle
    bundle = open_bundle(find(str(arguments.bundle)), FER2013_LABELS)
    classifier = Classifier(bundle)
    faces = read_faces(arguments.data, measured_split(arguments.data))
    if len(faces) < 2:
        raise UsageError(f"{arguments.data}: it must have at least two faces")
    sequences = make_sequences(classifier, faces, arguments.faces)
    card = bundle.card
    if arguments.tune:
        tuning, stability = tune_events(sequences, card)
        try:
            write_card(bundle.folder, msgspec.structs.replace(card, events=tuning))
        except OSError as error:
            raise UsageError(f"{bundle.folder}: its card cannot be written: {error.strerror}") from error
    else:
        tuning = card.events
        stability = measure_events(sequences, _settings(card, tuning))
    print(format_stability(card, tuning, stability))
    return 0


def format_stability(card: Card, tuning: EventTuning, stability: EventStability) -> str:
    """The figures as text."""
    fewer = f"{stability.ratio:.0f} times fewer" if stability.events_per_minute else "no event"
    delays = "no event"
    if stability.delays:
        middle, most = np.percentile(stability.delays, (50, 90)) * 1000
        delays = f"{len(stability.delays)} events, median {middle:.0f} ms after the change, 90 % within {most:.0f} ms"
    return "\n".join(
        (
            f"{card.name}: smoothing {tuning.smoothing:g} s, dwell {tuning.dwell:g} s, hysteresis "
            f"{tuning.hysteresis:g}, uncertain below {card.abstention.threshold:.2f}",
            f"constant expression, {stability.minutes:.1f} min at {SEQUENCE_FPS:g} a second: "
            f"{stability.raw_per_minute:.1f} label changes a minute in the frames, "
            f"{stability.events_per_minute:.2f} events ({fewer})",
            f"real changes: {delays}; {stability.missed} without an event within {_CHANGE_SECONDS:g} s",
            f"of those, the network's mean reading has another label for {stability.another} and is below the "
            f"threshold for {stability.unsure}; smoothing, dwell or hysteresis suppressed {stability.held}",
        )
    )
