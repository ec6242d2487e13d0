"""Where to look for faces in this frame: the one place that decides, and its budget.

Three things are worth a look: a face that is followed, now and then, to correct its place; what has changed; and
everything, spread over two seconds, since a face may have been missed or come without a movement. What is spent is
counted in windows of the cascade and never measured, so that the same frames are always looked at in the same places.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from edge.records import Square
from edge.settings import DetectSettings
from edge.vision.motion import Area, MotionDetector
from edge.vision.pyramid import Pyramid

WINDOW: Final = 24
"""Side of the cascade's window in pixels, and so of the smallest face in the picture that it is shown."""

STEP: Final = 1.2
"""From one size of faces to the next in one scan. The next scan looks at the sizes in between."""

_WINDOWS_A_MS: Final = 1000
"""What a Raspberry Pi 4's core is taken to do: a plain scan of 640x480, 700,000 windows, takes it about a second."""

_SAVED: Final = 5  # so many frames' budget can be saved up for when something happens
_SWEEP_SECONDS: Final = 2.0
_LATELY_SECONDS: Final = 2.0  # a face that is hard to find may be found on another look at what has changed
_AGAIN_SECONDS: Final = 0.12
_STRIP_WINDOWS: Final = 4000  # sweeps are cut into strips of at most about so many windows


class SearchRegion(NamedTuple):
    """A part of the frame in which faces of one size are looked for: rows and columns in its pixels.

    ``windows`` is what that costs.
    """

    side: float
    rows: tuple[int, int]
    columns: tuple[int, int]
    windows: int


class SearchScheduler:
    """Decides frame by frame."""

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._budget = settings.budget_ms * _WINDOWS_A_MS
        self._left = (_SAVED - 1) * self._budget
        self._motion = MotionDetector()
        self._waiting: list[SearchRegion] = []  # of what changed
        self._sweep: list[SearchRegion] = []  # of everything
        self._lately: list[Area] = []
        self._second_look = False  # whether what waits was looked at before
        self._changed = self._again = -math.inf
        self._odd = self._odd_sweep = True
        self._swept = self._sweep_windows = 0
        self._sweep_began = self._before = 0.0

    def regions(self, pyramid: Pyramid, now: float, known: Iterable[Square]) -> Iterator[SearchRegion]:
        """Where to look for new faces in the frame of time ``now``, other than at the ``known`` ones.

        Each strip is to be looked at before the next is asked for, and what it led to is to be told to `spend`.
        """
        self._left = min(self._left + self._budget, _SAVED * self._budget)
        self._motion.update(pyramid)
        if self._second_look or not self._waiting:
            self._refill(pyramid.size, now, known)
        for region in self._due_of_sweep(pyramid.size, now):
            self.spend(region.windows)
            yield region
        while self._waiting and self._left > 0:
            region = self._waiting.pop()
            self.spend(region.windows)
            yield region

    def spend(self, windows: int) -> None:
        """So many windows were looked at."""
        self._left -= windows

    def _refill(self, size: tuple[int, int], now: float, known: Iterable[Square]) -> None:
        """Queue what has changed, and for a while what changed lately; each time the other half of the sizes."""
        areas = self._motion.changed(known)
        self._motion.look(areas)
        if areas:
            self._lately, self._changed, self._again, self._second_look = areas, now, now, False
        elif not self._waiting and self._again <= now < self._changed + _LATELY_SECONDS:
            areas, self._again, self._second_look = self._lately, now + _AGAIN_SECONDS, True
        else:
            return
        self._odd = not self._odd
        regions = (region for area in areas for region in self._cover(size, area, odd=self._odd))
        self._waiting = sorted(regions, key=lambda region: region.side)  # taken from its end

    def _due_of_sweep(self, size: tuple[int, int], now: float) -> Iterator[SearchRegion]:
        """The next strips of the sweep over everything, at a pace that brings it to its end in time."""
        between, self._before = now - self._before, now
        # Any place is at most two frames later than it should be.
        seconds = max(0.0, _SWEEP_SECONDS - 2.5 * between)
        if not self._sweep:
            self._odd_sweep = not self._odd_sweep
            self._sweep = list(self._cover(size, (0, 0, *size), odd=self._odd_sweep))
            self._sweep_began, self._swept = now, 0
            self._sweep_windows = sum(region.windows for region in self._sweep)
        done = 1.0 if seconds <= 0 else min(1.0, (now - self._sweep_began) / seconds)
        while self._sweep and self._swept < done * self._sweep_windows:
            region = self._sweep.pop()
            self._swept += region.windows
            yield region

    def _cover(self, size: tuple[int, int], area: Area, *, odd: bool) -> Iterator[SearchRegion]:
        """Strips for faces of all sizes that an area may be part of; the odd sizes lie between the others."""
        width, height = size
        left, top, right, bottom = area
        side = smallest_face(self._settings, size) * (math.sqrt(STEP) if odd else 1.0)
        while side <= min(size):
            beside = 0.4 * side
            if max(right - left, bottom - top) >= side / 2:  # less is not a face of this size
                columns = (max(0, int(left - beside)), min(width, int(right + beside)))
                rows = (max(0, int(top - beside)), min(height, int(bottom + beside)))
                yield from _regions(side, rows, columns)
            side *= STEP


def smallest_face(settings: DetectSettings, size: tuple[int, int]) -> float:
    """Side in pixels of the smallest face that is looked for in a frame of ``size``, width and height."""
    width, height = size
    return max(settings.min_face * height, WINDOW * width / settings.width, WINDOW)


def _regions(side: float, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[SearchRegion]:
    """Strips that together have every window of a part of the frame."""
    first, last = rows
    parts = max(1, round(_windows(side, last - first, columns) / _STRIP_WINDOWS))
    tall = (last - first - side) / parts  # rows in which windows begin
    for part in range(parts):
        begin, end = int(first + part * tall), min(last, int(first + (part + 1) * tall + side) + 1)
        if windows := _windows(side, end - begin, columns):
            yield SearchRegion(side, (begin, end), columns, windows)


def _windows(side: float, tall: int, columns: tuple[int, int]) -> int:
    """How many windows there are for faces of a size: OpenCV tries every other pixel of every other row."""
    down, across = (int(length * WINDOW / side) - WINDOW + 1 for length in (tall, columns[1] - columns[0]))
    return max(0, down) * max(0, across) // 4
