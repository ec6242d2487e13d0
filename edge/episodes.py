"""What is worth saying: per-frame expressions become few events per track. Pure; time comes with each call."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge.records import EventKind, Expression
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
    """What is known of one track: its averaged scores, what was told, and since when something else is on top."""

    scores: dict[str, float]
    updated: float
    candidate: str
    since: float
    told: Expression | None = None


class Narrator:
    """Averages scores over time and tells a face or a new expression once it has lasted.

    A face that goes before it was told is never told at all.
    """

    def __init__(self, settings: Events) -> None:
        self._settings = settings
        self._states: dict[int, _State] = {}

    def update(self, in_view: Iterable[int], seen: Mapping[int, Expression], now: float) -> Iterator[Change]:
        """Take the ids of all tracks in view and the expressions of those seen in this frame; yields what happened."""
        for track in self._states.keys() - set(in_view):
            state = self._states.pop(track)
            if state.told:
                yield Change(track, "left", state.told, now)
        for track, expression in seen.items():
            state = self._smooth(track, expression, now)
            if now - state.since < self._settings.dwell:
                continue
            smoothed = _expression(state.scores)
            if state.told is None or state.told.label != smoothed.label:
                kind: EventKind = "changed" if state.told else "appeared"
                state.told = smoothed
                yield Change(track, kind, smoothed, now)

    def _smooth(self, track: int, expression: Expression, now: float) -> _State:
        state = self._states.get(track)
        if state is None:
            state = _State(dict(expression.scores), now, expression.label, now)
            self._states[track] = state
            return state
        keep = math.exp(-(now - state.updated) / self._settings.smoothing)
        state.scores = {
            label: keep * old + (1 - keep) * expression.scores[label] for label, old in state.scores.items()
        }
        state.updated = now
        top = _top(state.scores)
        if top != state.candidate:
            state.candidate, state.since = top, now
        return state


def _top(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda label: scores[label])


def _expression(scores: Mapping[str, float]) -> Expression:
    rounded = {label: round(score, 4) for label, score in scores.items()}
    return Expression(_top(scores), rounded[_top(scores)], rounded)
