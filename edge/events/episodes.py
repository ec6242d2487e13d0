"""Turns the readings of each track into few changes worth an event. Pure: time, in seconds, is passed in."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.labels import Labels
from edge.model.preprocessing import expression as to_expression
from edge.model.preprocessing import softmax
from edge.records import EventKind, EventTuning, Expression, Logits, Reading, Reason
from edge.settings import EventSettings, Preset

DEFAULT_TUNING: Final = EventTuning(smoothing=0.2, dwell=0.2, hysteresis=0.2)
"""The tuning of a new bundle, until ``fer-export episodes --tune`` has found its own; student-small's best."""


@dataclass(frozen=True, slots=True)
class EpisodeSettings:
    """A model's labels and event tuning, the ``threshold`` of confidence below which it abstains, and the presets.

    ``uncertain_after`` is how many seconds no expression could be recognised before ``uncertain`` is reported.
    """

    labels: Labels
    tuning: EventTuning
    threshold: float
    uncertain_after: float
    presets: tuple[Preset, ...] = ()


def episode_settings(
    events: EventSettings, presets: tuple[Preset, ...], labels: Labels, tuning: EventTuning, threshold: float
) -> EpisodeSettings:
    """The card's ``labels``, and its ``tuning`` and ``threshold``, each replaced by the setting that gives a number."""

    def chosen(setting: float | str, card: float) -> float:
        return card if isinstance(setting, str) else setting

    return EpisodeSettings(
        labels,
        EventTuning(
            chosen(events.smoothing, tuning.smoothing),
            chosen(events.dwell, tuning.dwell),
            chosen(events.hysteresis, tuning.hysteresis),
        ),
        chosen(events.threshold, threshold),
        events.uncertain_after,
        presets,
    )


@dataclass(frozen=True, slots=True)
class EpisodeSpan:
    """One expression of one track from ``start`` for ``duration`` (source time, seconds).

    ``peak`` and ``mean`` are of its confidence.
    """

    label: str
    start: float
    duration: float
    peak: float
    mean: float


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one track at ``time`` (source time, seconds); fields as in edge.records.Event."""

    track: int
    kind: EventKind
    expression: Expression | None
    time: float
    reason: Reason | None = None
    episode: EpisodeSpan | None = None
    name: str | None = None


@dataclass
class _Reported:
    """What was last reported of a track, and holds since ``start``.

    Either a ``label``, with the peak, sum and count of its confidences so far, or the ``reason`` why there is none.
    ``fired`` are the presets that were reported since.
    """

    label: str | None
    start: float
    expression: Expression | None
    reason: Reason | None
    peak: float = 0.0
    total: float = 0.0
    count: int = 0
    fired: set[Preset] = field(default_factory=set)

    def add(self, confidences: Iterable[float]) -> None:
        for confidence in confidences:
            self.peak = max(self.peak, confidence)
            self.total += confidence
            self.count += 1

    def span(self, end: float) -> EpisodeSpan | None:
        if self.label is None:
            return None
        mean = self.total / max(1, self.count)
        return EpisodeSpan(self.label, self.start, max(0.0, end - self.start), self.peak, mean)


@dataclass
class _Pending:
    """A label that leads since ``since``, and is reported once it has led for long enough; None for no label.

    ``confidences`` are its own, ``reported_confidences`` those of the reported label in the same time.
    """

    label: str | None
    since: float
    reported_confidences: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)


@dataclass
class _State:
    """The state of one track. ``updated`` is the time of its last logits; before the first ones, of its first reading.

    ``logits`` are averaged over time. ``held`` has the time since when each preset's expression leads with enough
    confidence.
    """

    track: int
    updated: float
    logits: NDArray[np.float64] | None = None
    reported: _Reported | None = None
    pending: _Pending | None = None
    held: dict[Preset, float] = field(default_factory=dict)


class EpisodeTracker:
    """Averages logits over time and reports an expression, or that there is none, once that has lasted.

    A face that leaves before its first event produces none.
    """

    def __init__(self, settings: EpisodeSettings) -> None:
        self._settings = settings
        self._labels = settings.labels
        self._states: dict[int, _State] = {}
        self._hidden_since: dict[int, float] = {}

    def update(
        self, tracks: Iterable[int], readings: Mapping[int, Reading], now: float, hidden: Iterable[int] = ()
    ) -> Iterator[Change]:
        """Take the ids of all tracks and the readings of those classified now; yields the changes.

        A track that is missing has left. ``hidden`` are those of the tracks that are out of sight.
        """
        for track in sorted(self._states.keys() - set(tracks)):
            yield from self._left(self._states.pop(track), now)
        self._hide(hidden, now)
        for track, reading in readings.items():
            state = self._states.setdefault(track, _State(track, now))
            if not isinstance(reading, str):
                yield from self._read(state, reading, now)
            elif now - state.updated >= self._settings.uncertain_after and not _uncertain(state):
                # The last expression held until its last reading; since then it is unknown.
                yield self._report(state, _Pending(None, state.updated), None, reading, now)

    def _hide(self, hidden: Iterable[int], now: float) -> None:
        """Nobody knows what a face has shown that was out of sight for long: its presets begin anew."""
        self._hidden_since = {track: self._hidden_since.get(track, now) for track in hidden}
        for track, since in self._hidden_since.items():
            if track in self._states and now - since >= self._settings.uncertain_after:
                self._states[track].held.clear()

    def _left(self, state: _State, now: float) -> Iterator[Change]:
        if reported := state.reported:
            if state.pending:
                reported.add(state.pending.reported_confidences)
            # The tracker gave it up some time after its last reading.
            span = reported.span(state.updated)
            yield Change(state.track, "left", reported.expression, now, reported.reason, span)

    def _read(self, state: _State, logits: Logits, now: float) -> Iterator[Change]:
        probabilities = self._smooth(state, logits, now)
        reported, label = state.reported, self._label(state, probabilities)
        if reported and reported.label == label:
            reported.add(state.pending.reported_confidences if state.pending else ())  # the other label was a flicker
            reported.add(self._confidence(probabilities, label))
            state.pending = None
        else:
            pending = state.pending
            if pending is None or pending.label != label:
                pending = state.pending = _Pending(label, now, pending.reported_confidences if pending else [])
            pending.reported_confidences += self._confidence(probabilities, reported.label if reported else None)
            pending.confidences += self._confidence(probabilities, label)
            if now - pending.since >= (self._settings.tuning.dwell if label else self._settings.uncertain_after):
                expression = self._expression(probabilities, label) if label else None
                yield self._report(state, pending, expression, "low margin", now)
        yield from self._presets(state, label, probabilities, now)

    def _smooth(self, state: _State, logits: Logits, now: float) -> NDArray[np.float64]:
        newest = np.array(logits)
        if state.logits is None:
            state.logits = newest
        else:
            weight = math.exp(-(now - state.updated) / self._settings.tuning.smoothing)
            state.logits = weight * state.logits + (1 - weight) * newest
        state.updated = now
        return softmax(state.logits)

    def _label(self, state: _State, probabilities: NDArray[np.float64]) -> str | None:
        """The label of these averaged probabilities, with hysteresis for the reported one; None when it abstains."""
        threshold, hysteresis = self._settings.threshold, self._settings.tuning.hysteresis
        best = float(probabilities.max())
        # Half of what is left to 1, so that an uncertain face can become certain again with any threshold.
        if best < threshold + (min(hysteresis, (1 - threshold) / 2) if _uncertain(state) else 0.0):
            return None
        current = state.reported or state.pending
        if current and current.label and best - probabilities[self._labels.index(current.label)] < hysteresis:
            return current.label
        return self._top(probabilities)

    def _report(
        self, state: _State, pending: _Pending, expression: Expression | None, reason: Reason, now: float
    ) -> Change:
        """Report what was pending, because it has lasted; ``reason`` applies without an expression."""
        before = state.reported
        reported = _Reported(pending.label, pending.since, expression, None if expression else reason)
        reported.add(pending.confidences)
        state.reported, state.pending = reported, None
        if expression is None:
            state.held.clear()
        kind: EventKind = "appeared" if before is None else "changed" if expression else "uncertain"
        ended = before.span(pending.since) if before else None
        return Change(state.track, kind, expression, now, reported.reason, ended)

    def _presets(
        self, state: _State, label: str | None, probabilities: NDArray[np.float64], now: float
    ) -> Iterator[Change]:
        """The presets that hold now; ``label`` is that of these averaged probabilities, None when it abstains."""
        reported = state.reported
        for preset in self._settings.presets:
            expression = preset.expression
            if label != expression or probabilities[self._labels.index(expression)] < preset.min_confidence:
                state.held.pop(preset, None)
                continue
            lasts = now - state.held.setdefault(preset, now) >= preset.for_seconds
            if lasts and reported and reported.label == expression and preset not in reported.fired:
                reported.fired.add(preset)
                span = reported.span(now)
                yield Change(
                    state.track, "preset", self._expression(probabilities, expression), now, None, span, preset.name
                )

    def _top(self, probabilities: NDArray[np.float64]) -> str:
        return self._labels[int(probabilities.argmax())]

    def _confidence(self, probabilities: NDArray[np.float64], label: str | None) -> list[float]:
        return [] if label is None else [float(probabilities[self._labels.index(label)])]

    def _expression(self, probabilities: NDArray[np.float64], label: str) -> Expression:
        """The expression with this label, which by hysteresis need not be the likeliest one."""
        scores = to_expression(probabilities, self._labels).scores
        return Expression(label, scores[label], scores)


def _uncertain(state: _State) -> bool:
    return state.reported is not None and state.reported.label is None
