"""``fer-export episodes``: how calmly and how quickly a bundle's events follow what faces show; and tuning that.

Nobody publishes films with the true expression of each frame, so sequences are generated: real faces, moved and lit as
a detector's boxes and a camera would from frame to frame, through the real int8 network. The noise is a model, see
:func:`film`; the figures are of that model, and of no camera.
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

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.events.episodes import EpisodeSettings, EpisodeTracker, episode_settings
from edge.model.bundle import Card, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import INPUT_SIZE, LABELS, softmax
from edge.records import EventTuning, Logits
from edge.settings import EventSettings
from export.edgetpu.compiled import write_card

SEQUENCE_FPS: Final = 15.0
DEFAULT_TUNING: Final = EventTuning(smoothing=0.2, dwell=0.2, hysteresis=0.2)
"""What a card states that was not tuned; it is what suits the bundled student-small."""

_SEED: Final = 20261122
_CONSTANT_SECONDS: Final = 20.0
_HALF_SECONDS: Final = 4.0
_DELAY_AIM: Final = 0.5
_GRID: Final = ((0.2, 0.3, 0.4, 0.5, 0.6), (0.1, 0.2, 0.3), (0.05, 0.1, 0.15, 0.2))


@dataclass(frozen=True)
class ReadingSequence:
    """Readings at FPS of one face, which from ``change`` on (seconds, None: never) truly shows ``after``."""

    readings: tuple[Logits, ...]
    change: float | None = None
    after: str = ""


@dataclass(frozen=True)
class EventStability:
    """What was told of generated sequences.

    ``raw_per_minute`` counts changes of the likeliest label from frame to frame while a face goes on showing the same,
    ``told_per_minute`` the events ``changed`` and ``uncertain`` then. ``delays`` are seconds from a real change to the
    event that says it. Changes that were never told are counted by the reason: the network's answers afterwards, all
    averaged, say ``another`` expression; they say the right one, but below the threshold (``unsure``); or they would
    have been told without smoothing, dwell and hysteresis (``held``).
    """

    minutes: float
    raw_per_minute: float
    told_per_minute: float
    delays: tuple[float, ...]
    another: int
    unsure: int
    held: int

    @property
    def missed(self) -> int:
        """How many changes were never told."""
        return self.another + self.unsure + self.held

    @property
    def ratio(self) -> float:
        """How many times fewer changes are told than there are in the frames; infinite when none is told."""
        return self.raw_per_minute / self.told_per_minute if self.told_per_minute else float("inf")

    @property
    def delay(self) -> float:
        """Median delay in seconds; infinite when nothing was told."""
        return float(np.median(self.delays)) if self.delays else float("inf")


def simulate_frames(face: NDArray[np.uint8], frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A ``(48, 48)`` face as a camera and a detector would give it: ``(frames, 48, 48)`` uint8.

    The noise model. From frame to frame independently: the box's place (standard deviation 2.5 % of its side), its size
    (3 %), sensor noise (3 grey levels). Slowly, as first-order autoregressions of about 1.5 s: the head's place
    (3 %), tilt (4 degrees), and light (gain 8 %). Border pixels are repeated.
    """
    quick = rng.normal(0, (0.025, 0.025, 0.03), (frames, 3))
    slow = autoregression(rng, frames, (0.03, 0.03, 4.0, 0.08), 1.5)
    centre = INPUT_SIZE / 2 - 0.5
    made = np.empty((frames, INPUT_SIZE, INPUT_SIZE), np.uint8)
    for number, ((dx, dy, size), (x, y, tilt, light)) in enumerate(zip(quick, slow, strict=True)):
        move = cv2.getRotationMatrix2D((centre, centre), float(tilt), float(1 + size))
        move[:, 2] += INPUT_SIZE * np.array((dx + x, dy + y))
        moved = cv2.warpAffine(face, move, (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE)
        noisy = moved * (1 + light) + rng.normal(0, 3, moved.shape)
        made[number] = np.clip(noisy, 0, 255)
    return made


def autoregression(
    rng: np.random.Generator, frames: int, deviations: Iterable[float], seconds: float
) -> NDArray[np.float64]:
    """Stationary first-order noise, ``(frames, n)``, that forgets itself within ``seconds`` (time constant)."""
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
    """``count`` faces that go on showing the same, and ``count`` that change.

    The constant ones are drawn from all faces, also those that the network finds hard. A change is between two faces of
    different labels that the network, looking at the still picture, is right and certain about: to others there is no
    right answer that could be late.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(faces))
    made = [
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
    frames = int(_HALF_SECONDS * SEQUENCE_FPS)
    for first, then in itertools.pairwise(certain):
        if faces.labels[first] == faces.labels[then]:
            continue
        readings = (_read(classifier, simulate_frames(faces.pixels[one], frames, rng)) for one in (first, then))
        made.append(ReadingSequence(sum(readings, ()), frames / SEQUENCE_FPS, LABELS[faces.labels[then]]))
    return made


def _read(classifier: Classifier, pictures: NDArray[np.uint8]) -> tuple[Logits, ...]:
    return tuple(classifier.read(picture) for picture in pictures)


def measure_events(made: Sequence[ReadingSequence], wanted: EpisodeSettings) -> EventStability:
    """Tell the sequences in this manner, and count."""
    raw = told = 0
    missed: Counter[str] = Counter()
    minutes = 0.0
    delays = []
    for one in made:
        episode_tracker = EpisodeTracker(wanted)
        changes = [
            change
            for number, reading in enumerate(one.readings)
            for change in episode_tracker.update((1,), {1: reading}, number / SEQUENCE_FPS)
        ]
        if one.change is None:
            tops = np.array(one.readings).argmax(axis=1)
            raw += int((tops[1:] != tops[:-1]).sum())
            told += sum(change.kind in ("changed", "uncertain") for change in changes)
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
        minutes, raw / minutes, told / minutes, tuple(delays), missed["another"], missed["unsure"], missed["held"]
    )


def _why_missed(
    readings: Sequence[Logits], truth: str, wanted: EpisodeSettings
) -> Literal["another", "unsure", "held"]:
    """As in :class:`Calmness`."""
    probabilities = softmax(np.mean(readings, axis=0))
    if LABELS[int(probabilities.argmax())] != truth:
        return "another"
    return "unsure" if probabilities.max() < wanted.threshold else "held"


def tune_events(made: Sequence[ReadingSequence], card: Card) -> tuple[EventTuning, EventStability]:
    """The calmest of a grid of thresholds whose median delay is at most half a second; else the quickest."""
    tried = []
    for values in itertools.product(*_GRID):
        telling = EventTuning(*values)
        tried.append(
            (telling, measure_events(made, episode_settings(EventSettings(), (), telling, card.abstention.threshold)))
        )
    quick = [pair for pair in tried if pair[1].delay <= _DELAY_AIM]
    if quick:
        return min(quick, key=lambda pair: (pair[1].told_per_minute, pair[1].missed, pair[1].delay))
    return min(tried, key=lambda pair: pair[1].delay)


def episodes_command(arguments: Namespace) -> int:
    """Carry out ``fer-export episodes``."""
    bundle = open_bundle(find_bundle(str(arguments.bundle)))
    classifier = Classifier(bundle)
    faces = read_faces(arguments.data, measured_split(arguments.data))
    if len(faces) < 2:
        raise UsageError(f"{arguments.data}: two faces at least")
    made = make_sequences(classifier, faces, arguments.faces)
    card = bundle.card
    if arguments.tune:
        telling, calm = tune_events(made, card)
        try:
            write_card(bundle.folder, msgspec.structs.replace(card, events=telling))
        except OSError as error:
            raise UsageError(f"{bundle.folder}: its card cannot be written: {error.strerror}") from error
    else:
        telling, calm = (
            card.events,
            measure_events(made, episode_settings(EventSettings(), (), card.events, card.abstention.threshold)),
        )
    print(format_stability(card, telling, calm))
    return 0


def format_stability(card: Card, telling: EventTuning, calm: EventStability) -> str:
    """The figures for a person."""
    fewer = f"{calm.ratio:.0f} times fewer" if calm.told_per_minute else "none was told"
    told = "none told"
    if calm.delays:
        middle, most = np.percentile(calm.delays, (50, 90)) * 1000
        told = f"{len(calm.delays)} told, median {middle:.0f} ms later, 90 % within {most:.0f} ms"
    return "\n".join(
        (
            f"{card.name}: smoothing {telling.smoothing:g} s, dwell {telling.dwell:g} s, hysteresis "
            f"{telling.hysteresis:g}, uncertain below {card.abstention.threshold:.2f}",
            f"constant expression, {calm.minutes:.1f} min at {SEQUENCE_FPS:g} a second: {calm.raw_per_minute:.1f} "
            f"label changes a minute in the frames, {calm.told_per_minute:.2f} events ({fewer})",
            f"real changes: {told}; {calm.missed} not told within {_HALF_SECONDS:g} s",
            f"of those {calm.another} that the network itself calls otherwise on average, {calm.unsure} below the "
            f"threshold, {calm.held} held back by smoothing, dwell or hysteresis",
        )
    )
