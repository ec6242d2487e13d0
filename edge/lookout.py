"""Where to look for faces in this frame: the one place that decides, and its budget.

Three things are worth a look: a face that is followed, now and then, to correct its place; what has changed; and
everything, spread over two seconds, since a face may have been missed or come without a movement. What is spent is
counted in windows of the cascade and never measured, so that the same frames are always looked at in the same places.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from edge.motion import Area, Motion
from edge.pyramid import Pyramid
from edge.records import Square
from edge.settings import Detect

WINDOW: Final = 24
"""Side of the cascade's window in pixels, and so of the smallest face in the picture that it is shown."""

STEP: Final = 1.2
"""From one size of faces to the next. A face answers at two or three of them."""

_WINDOWS_A_MS: Final = 1000
"""What a Raspberry Pi 4's core is taken to do: the 700,000 windows of a plain scan of 640x480 take it about a second."""

_SAVED: Final = 2.5  # so many frames' budget can be saved up for when something happens
_SWEEP_SECONDS: Final = 2.0
_CHECK_SECONDS: Final = 0.1
_STRIP_WINDOWS: Final = 3000  # sweeps are cut into strips of at most about so many windows


@dataclass(frozen=True, slots=True)
class Strip:
    """A part of the frame in which faces of one size are looked for: rows and columns in its pixels."""

    side: float
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def reduction(self) -> float:
        """How much a face of this size is reduced to fill the cascade's window."""
        return self.side / WINDOW

    @property
    def windows(self) -> int:
        """What it costs: OpenCV tries every other pixel of every other row."""
        tall, wide = (int((last - first) / self.reduction) - WINDOW + 1 for first, last in (self.rows, self.columns))
        return max(0, tall) * max(0, wide) // 4


class Lookout:
    """Decides frame by frame."""

    def __init__(self, settings: Detect) -> None:
        self._settings = settings
        self._budget = settings.budget_ms * _WINDOWS_A_MS
        self._left = (_SAVED - 1) * self._budget
        self._motion = Motion()
        self._waiting: list[Strip] = []  # of what changed
        self._sweep: list[Strip] = []  # of everything
        self._swept = self._sweep_windows = 0
        self._sweep_began = self._before = 0.0

    def strips(self, pyramid: Pyramid, now: float, known: Iterable[Square]) -> Iterator[Strip]:
        """Where to look for new faces in the frame of time ``now``, other than at the ``known`` ones.

        Each strip is to be looked at before the next is asked for, and what it led to is to be told to `spend`.
        """
        self._left = min(self._left + self._budget, _SAVED * self._budget)
        self._motion.update(pyramid)
        if not self._waiting and (areas := self._motion.changed(known)):
            self._motion.look(areas)
            self._waiting = [strip for area in areas for strip in self._cover(pyramid.size, area)]
            self._waiting.sort(key=lambda strip: -strip.side)
        for strip in self._due_of_sweep(pyramid.size, now):
            self.spend(strip.windows)
            yield strip
        while self._waiting and self._left > 0:
            strip = self._waiting.pop(0)
            self.spend(strip.windows)
            yield strip

    def spend(self, windows: int) -> None:
        """So many windows were looked at."""
        self._left -= windows

    @staticmethod
    def due(looked: float, now: float) -> bool:
        """Whether a face that was last looked at by the cascade at ``looked`` should be again."""
        return now - looked >= _CHECK_SECONDS - 1e-6

    def _due_of_sweep(self, size: tuple[int, int], now: float) -> Iterator[Strip]:
        """The next strips of the sweep over everything, at a pace that brings it to its end in time."""
        between, self._before = now - self._before, now
        # Any place is at most two frames later than it should be.
        seconds = max(0.0, _SWEEP_SECONDS - 2.5 * between)
        if not self._sweep:
            self._sweep, self._sweep_began, self._swept = list(self._cover(size, (0, 0, *size)))[::-1], now, 0
            self._sweep_windows = sum(strip.windows for strip in self._sweep)
        done = 1.0 if seconds <= 0 else min(1.0, (now - self._sweep_began) / seconds)
        while self._sweep and self._swept < done * self._sweep_windows:
            strip = self._sweep.pop()
            self._swept += strip.windows
            yield strip

    def _cover(self, size: tuple[int, int], area: Area) -> Iterator[Strip]:
        """Strips for faces of all sizes that an area may be part of."""
        width, height = size
        left, top, right, bottom = area
        side = max(self._settings.min_face * height, WINDOW * width / self._settings.width, WINDOW)
        while side <= min(size):
            beside = 0.6 * side
            if max(right - left, bottom - top) >= side / 2:  # less is not a face of this size
                columns = (max(0, int(left - beside)), min(width, int(right + beside)))
                rows = (max(0, int(top - beside)), min(height, int(bottom + beside)))
                yield from _cut(Strip(side, rows, columns))
            side *= STEP


def _cut(strip: Strip) -> Iterator[Strip]:
    """Strips of fewer rows that together have every window of this one."""
    parts = max(1, round(strip.windows / _STRIP_WINDOWS))
    first, last = strip.rows
    tall = (last - first - strip.side) / parts  # rows in which windows begin
    for part in range(parts):
        rows = (int(first + part * tall), min(last, int(first + (part + 1) * tall + strip.side) + 1))
        cut = Strip(strip.side, rows, strip.columns)
        if cut.windows:
            yield cut
