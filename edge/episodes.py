"""What is worth saying: per-frame expressions become few events per track. Pure; time comes with each call."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.contract import expression, softmax
from edge.records import EventKind, Expression, Logits, Reading
from edge.settings import Events


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to one track at ``time`` (seconds, source time)."""

    track: int
    kind: EventKind
    expression: Expression
    time: float


@dataclass
class _State:
    """What is known of one track: its averaged logits, what was told, and since when something else is on top."""

    logits: NDArray[np.float64]
    updated: float
    candidate: int
    since: float
    told: Expression | None = None


class Narrator:
    """Averages logits over time and tells a face or a new expression once it has lasted.

    A face that goes before it was told is never told at all.
    """

    def __init__(self, settings: Events) -> None:
        self._settings = settings
        self._states: dict[int, _State] = {}

    def update(self, in_view: Iterable[int], seen: Mapping[int, Reading], now: float) -> Iterator[Change]:
        """Take the ids of all tracks in view and the readings of those looked at; yields what happened."""
        for track in self._states.keys() - set(in_view):
            state = self._states.pop(track)
            if state.told:
                yield Change(track, "left", state.told, now)
        for track, reading in seen.items():
            if isinstance(reading, str):  # a flaw says nothing about the expression
                continue
            state = self._smooth(track, reading, now)
            if now - state.since < self._settings.dwell:
                continue
            smoothed = expression(softmax(state.logits))
            if state.told is None or state.told.label != smoothed.label:
                kind: EventKind = "changed" if state.told else "appeared"
                state.told = smoothed
                yield Change(track, kind, smoothed, now)

    def _smooth(self, track: int, logits: Logits, now: float) -> _State:
        state = self._states.get(track)
        if state is None:
            average = np.array(logits)
            state = _State(average, now, int(average.argmax()), now)
            self._states[track] = state
            return state
        keep = math.exp(-(now - state.updated) / self._settings.smoothing)
        state.logits = keep * state.logits + (1 - keep) * np.array(logits)
        state.updated = now
        top = int(state.logits.argmax())
        if top != state.candidate:
            state.candidate, state.since = top, now
        return state
