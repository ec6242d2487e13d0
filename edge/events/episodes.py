"""What is worth saying: per-frame readings become few events per track. Pure; time comes with each call."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.model.preprocessing import LABELS, expression, softmax
from edge.records import EventKind, EventTuning, Expression, Logits, Reading, Reason
from edge.settings import EventSettings, Preset


@dataclass(frozen=True, slots=True)
class EpisodeSettings:
    """How things are told: a model's :class:`EventTuning`, below which confidence it abstains, and the presets.

    ``uncertain_after`` is how many seconds nothing could be said before that is told.
    """

    telling: EventTuning
    threshold: float
    uncertain_after: float
    presets: tuple[Preset, ...] = ()


def episode_settings(
    events: EventSettings, presets: tuple[Preset, ...], telling: EventTuning, threshold: float
) -> EpisodeSettings:
    """The manner of a card (``telling``, ``threshold``), with what the settings put in its place."""

    def own(setting: float | str, card: float) -> float:
        return card if isinstance(setting, str) else setting

    return EpisodeSettings(
        EventTuning(
            own(events.smoothing, telling.smoothing),
            own(events.dwell, telling.dwell),
            own(events.hysteresis, telling.hysteresis),
        ),
        own(events.threshold, threshold),
        events.uncertain_after,
        presets,
    )


@dataclass(frozen=True, slots=True)
class EpisodeSpan:
    """One expression of one track from ``start`` for ``duration`` (seconds, source time), and its confidence."""

    label: str
    start: float
    duration: float
    peak: float
    mean: float


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to one track at ``time`` (seconds, source time); as in edge.records.Event."""

    track: int
    kind: EventKind
    expression: Expression | None
    time: float
    reason: Reason | None = None
    episode: EpisodeSpan | None = None
    name: str | None = None


@dataclass
class _Told:
    """What was told of a track since ``start``: a label, with its confidences so far, or why there is none."""

    label: str | None
    start: float
    shown: Expression | None
    reason: Reason | None
    peak: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, confidences: Iterable[float]) -> None:
        for confidence in confidences:
            self.peak = max(self.peak, confidence)
            self.total += confidence
            self.count += 1

    def stretch(self, end: float) -> EpisodeSpan | None:
        if self.label is None:
            return None
        mean = self.total / max(1, self.count)
        return EpisodeSpan(self.label, self.start, max(0.0, end - self.start), self.peak, mean)


@dataclass
class _Pending:
    """What may be told instead, since ``since``; ``former`` and ``own`` are confidences of the told and this label."""

    label: str | None
    since: float
    former: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


@dataclass
class _State:
    """What is known of one track. ``updated`` is when it was last read; before that, when it was first looked at."""

    track: int
    updated: float
    logits: NDArray[np.float64] | None = None
    told: _Told | None = None
    pending: _Pending | None = None
    held: dict[Preset, float] = field(default_factory=dict)
    fired: set[Preset] = field(default_factory=set)


class EpisodeTracker:
    """Averages logits over time and tells a face, a new expression, or that there is none to tell, once it has lasted.

    A face that goes before it was told is never told at all.
    """

    def __init__(self, episode_settings: EpisodeSettings) -> None:
        self._manner = episode_settings
        self._states: dict[int, _State] = {}

    def update(self, in_view: Iterable[int], seen: Mapping[int, Reading], now: float) -> Iterator[Change]:
        """Take the ids of all tracks in view and the readings of those looked at; yields what happened."""
        for track in sorted(self._states.keys() - set(in_view)):
            yield from self._left(self._states.pop(track), now)
        for track, reading in seen.items():
            state = self._states.setdefault(track, _State(track, now))
            if not isinstance(reading, str):
                yield from self._read(state, reading, now)
            elif now - state.updated >= self._manner.uncertain_after and not _uncertain(state):
                # What was read a moment ago held until now; how it has gone on, nobody knows.
                yield self._tell(state, _Pending(None, state.updated), None, reading, now)

    def _left(self, state: _State, now: float) -> Iterator[Change]:
        if told := state.told:
            if state.pending:
                told.add(state.pending.former)
            # It was last read some time before the tracker gave it up.
            yield Change(state.track, "left", told.shown, now, told.reason, told.stretch(state.updated))

    def _read(self, state: _State, logits: Logits, now: float) -> Iterator[Change]:
        probabilities = self._smooth(state, logits, now)
        told, label = state.told, self._verdict(state, probabilities)
        if told and told.label == label:
            told.add(state.pending.former if state.pending else ())  # it was a flicker
            told.add(_confidence(probabilities, label))
            state.pending = None
        else:
            pending = state.pending
            if pending is None or pending.label != label:
                pending = state.pending = _Pending(label, now, pending.former if pending else [])
            pending.former += _confidence(probabilities, told.label if told else None)
            pending.own += _confidence(probabilities, label)
            if now - pending.since >= (self._manner.telling.dwell if label else self._manner.uncertain_after):
                shown = _shown(probabilities, label) if label else None
                yield self._tell(state, pending, shown, "low margin", now)
        yield from self._presets(state, probabilities, now)

    def _smooth(self, state: _State, logits: Logits, now: float) -> NDArray[np.float64]:
        newest = np.array(logits)
        if state.logits is None:
            state.logits = newest
        else:
            keep = math.exp(-(now - state.updated) / self._manner.telling.smoothing)
            state.logits = keep * state.logits + (1 - keep) * newest
        state.updated = now
        return softmax(state.logits)

    def _verdict(self, state: _State, probabilities: NDArray[np.float64]) -> str | None:
        """The label that these averaged probabilities speak for, given what was told; None when for none."""
        hysteresis = self._manner.telling.hysteresis
        best = float(probabilities.max())
        if best < self._manner.threshold + (hysteresis if _uncertain(state) else 0.0):
            return None
        former = state.told or state.pending
        if former and former.label and best - probabilities[LABELS.index(former.label)] < hysteresis:
            return former.label
        return _top(probabilities)

    def _tell(self, state: _State, pending: _Pending, shown: Expression | None, reason: Reason, now: float) -> Change:
        """What was pending has lasted."""
        former = state.told
        state.told, state.pending = _Told(pending.label, pending.since, shown, None if shown else reason), None
        state.told.add(pending.own)
        if shown is None:
            state.held.clear()
            state.fired.clear()
        kind: EventKind = "appeared" if former is None else "changed" if shown else "uncertain"
        ended = former.stretch(pending.since) if former else None
        return Change(state.track, kind, shown, now, state.told.reason, ended)

    def _presets(self, state: _State, probabilities: NDArray[np.float64], now: float) -> Iterator[Change]:
        told = state.told
        for preset in self._manner.presets:
            leads = preset.expression in (told and told.label, _top(probabilities))
            if not leads or probabilities[LABELS.index(preset.expression)] < preset.min_confidence:
                state.held.pop(preset, None)
                state.fired.discard(preset)
                continue
            since = state.held.setdefault(preset, now)
            if (
                told
                and told.label == preset.expression
                and now - since >= preset.for_seconds
                and preset not in state.fired
            ):
                state.fired.add(preset)
                shown = _shown(probabilities, preset.expression)
                yield Change(state.track, "preset", shown, now, None, told.stretch(now), preset.name)


def _uncertain(state: _State) -> bool:
    return state.told is not None and state.told.label is None


def _top(probabilities: NDArray[np.float64]) -> str:
    return LABELS[int(probabilities.argmax())]


def _confidence(probabilities: NDArray[np.float64], label: str | None) -> list[float]:
    return [] if label is None else [float(probabilities[LABELS.index(label)])]


def _shown(probabilities: NDArray[np.float64], label: str) -> Expression:
    """The expression that is told: what led so far may be a little less likely now."""
    scores = expression(probabilities).scores
    return Expression(label, scores[label], scores)
