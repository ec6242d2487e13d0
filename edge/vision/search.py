"""Decides where each frame is searched for new faces, and keeps the search within its budget.

Two things are searched: areas that changed, and the whole frame, spread over seconds, because a face may have been
missed or may have come without motion. Most windows are those of small faces. Hence the whole frame is searched for
large faces every two seconds, and for small ones every twenty.

The budget is counted in windows of the cascade and never in measured time, so that the same frames are always searched
in the same regions.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from edge.records import Square
from edge.settings import DetectSettings
from edge.vision.face_size import LEAST_PIXELS, smallest_face
from edge.vision.motion import Area, MotionDetector
from edge.vision.pyramid import Pyramid

WINDOW: Final = LEAST_PIXELS["haar"]
"""Side of the cascade's window in pixels, and so of the smallest face in the picture that the cascade gets."""

STEP: Final = 1.2
"""Ratio of consecutive face sizes in one scan. The next scan is shifted by half a step."""

_WINDOWS_PER_MS: Final = 1000
"""Assumed speed of a Raspberry Pi 4's core: it scans 640x480 at all sizes, 700,000 windows, in about a second."""

_SAVED_FRAMES: Final = 5  # the budget of so many frames can be saved up for when something happens
LARGE_FACE: Final = 0.12  # of the shorter side: from here on a face is large
_LARGE_SECONDS, _SMALL_SECONDS = 2.0, 20.0  # that a full scan takes, for large and for small faces
_REPEAT_SECONDS: Final = 1.2  # a face that is hard to detect may be detected when a changed area is searched again
_REPEAT_INTERVAL: Final = 0.2
# Between two searches for large faces while small ones wait. At 0.12 they took two thirds of the budget.
_LARGE_INTERVAL: Final = 0.2
_REGION_WINDOWS: Final = 4000  # regions are split so that each has about so many windows at most


class SearchRegion(NamedTuple):
    """A part of the frame that is searched for faces of one size.

    ``side`` is that size, ``rows`` and ``columns`` are the first and the end of the part, all in pixels of the frame.
    ``windows`` is the cost.
    """

    side: float
    rows: tuple[int, int]
    columns: tuple[int, int]
    windows: int


class SearchScheduler:
    """Plans the search of each frame: `begin_frame`, then `next_region` until it returns None.

    The caller searches each region before it asks for the next one, and reports further costs with `spend`.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self._budget = settings.budget_ms * _WINDOWS_PER_MS
        self._left = (_SAVED_FRAMES - 1) * self._budget
        self._full_scans = (
            _FullScan(settings, (LARGE_FACE, math.inf), _LARGE_SECONDS),
            _FullScan(settings, (0.0, LARGE_FACE), _SMALL_SECONDS),
        )
        self._changes = _ChangeSearch(settings)
        self._size = (0, 0)  # of the last frame

    def begin_frame(self, pyramid: Pyramid, now: float, known: Iterable[Square]) -> None:
        """Plan the frame of time ``now`` in seconds. Motion at the ``known`` faces is expected and not searched.

        A frame of another size than the last one is searched anew: what was planned are places in the old size.
        """
        self._left = min(self._left + self._budget, _SAVED_FRAMES * self._budget)
        if pyramid.size != self._size:
            self._size = pyramid.size
            for search in (*self._full_scans, self._changes):
                search.drop_plan()
        self._changes.begin_frame(pyramid, now, known)
        large, small = self._full_scans
        small.begin_frame(pyramid.size, now)
        if self._changes.covers_large(now):  # else these faces would be searched twice
            large.rest(now)
        else:
            large.begin_frame(pyramid.size, now)

    def next_region(self) -> SearchRegion | None:
        """The next region to search in this frame, paid from the budget; None when the frame is done.

        The full scans keep their pace whatever they cost; changed areas get what is left.
        """
        region = next((region for scan in self._full_scans if (region := scan.next_region())), None)
        if region is None and self._left > 0:
            region = self._changes.next_region()
        if region is not None:
            self.spend(region.windows)
        return region

    def spend(self, windows: int) -> None:
        """Take the cost of so many windows from the budget, which may become negative."""
        self._left -= windows


class _ChangeSearch:
    """The regions of areas that changed, largest faces first. They are searched again for two seconds."""

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._motion = MotionDetector()
        self._queue: list[SearchRegion] = []  # taken from its end
        self._recent_areas: list[Area] = []
        self._repeated = False  # whether the queue's areas were searched before
        self._changed_at = self._repeat_at = -math.inf
        self._half_step = True
        self._covers_frame = False  # whether the areas were the whole frame when something last changed

    def drop_plan(self) -> None:
        """Search nothing of what was planned. A frame of a new size has changed everywhere, so no area is repeated."""
        self._queue = []

    def covers_large(self, now: float) -> bool:
        """Whether this search looks for large faces in the whole frame, so that a full scan would do it again."""
        return self._covers_frame and now - self._changed_at < 2 * _LARGE_INTERVAL

    def begin_frame(self, pyramid: Pyramid, now: float, known: Iterable[Square]) -> None:
        """Refill the queue, unless areas wait there that were never searched.

        While only small faces wait, what has changed since is searched for large ones first, but not in each frame:
        somebody who has just come must not wait until the frame before was searched for all sizes.
        """
        self._motion.update(pyramid)
        large = LARGE_FACE * min(pyramid.size)
        waiting = [] if self._repeated else self._queue
        if waiting and (waiting[-1].side >= large or now < self._changed_at + _LARGE_INTERVAL - 1e-6):
            return
        areas = self._motion.changed(known)
        self._motion.mark_searched(areas)
        if areas:
            self._recent_areas, self._changed_at, self._repeat_at, self._repeated = areas, now, now, False
            self._covers_frame = any(_covers(area, pyramid.size) for area in areas)
        elif not self._queue and self._repeat_at <= now < self._changed_at + _REPEAT_SECONDS:
            areas, self._repeat_at, self._repeated = self._recent_areas, now + _REPEAT_INTERVAL, True
        else:
            return
        self._half_step = not self._half_step
        regions = [
            region
            for area in areas
            for region in _regions_of_area(self._settings, pyramid.size, area, half_step=self._half_step)
            if not waiting or region.side >= large
        ]
        self._queue = waiting + sorted(regions, key=lambda region: region.side)

    def next_region(self) -> SearchRegion | None:
        return self._queue.pop() if self._queue else None


class _FullScan:
    """The regions of the whole frame, again and again, at a pace that finishes each scan within ``seconds``.

    ``shares`` are the smallest face that it looks for and the first that it does not, as shares of the shorter side.
    """

    def __init__(self, settings: DetectSettings, shares: tuple[float, float], seconds: float) -> None:
        self._settings, self._shares, self._seconds = settings, shares, seconds
        self._queue: list[SearchRegion] = []  # taken from its end
        self._half_step = True
        self._windows = 0  # of the whole scan
        self._windows_done = 0
        self._windows_due = 0.0  # by the end of this frame
        self._began = self._previous_frame = 0.0

    def begin_frame(self, size: tuple[int, int], now: float) -> None:
        """Begin a new scan if the last one is finished, and set how far this frame takes it."""
        interval, self._previous_frame = now - self._previous_frame, now
        # A region may be searched up to two frames later than the pace says.
        seconds = max(0.0, self._seconds - 2.5 * interval)
        if not self._queue:
            self._half_step = not self._half_step
            least, end = (share * min(size) for share in self._shares)
            regions = _regions_of_area(self._settings, size, (0, 0, *size), half_step=self._half_step)
            self._queue = [region for region in regions if least <= region.side < end]
            self._began, self._windows_done = now, 0
            self._windows = sum(region.windows for region in self._queue)
        done = 1.0 if seconds <= 0 else min(1.0, (now - self._began) / seconds)
        self._windows_due = done * self._windows

    def drop_plan(self) -> None:
        """Give up the scan, and begin a new one in the next frame. The pace stays."""
        self._queue = []

    def rest(self, now: float) -> None:
        """Search nothing in the frame of time ``now``, and begin a new scan in the next frame that does not rest."""
        self._queue, self._previous_frame = [], now

    def next_region(self) -> SearchRegion | None:
        if not self._queue or self._windows_done >= self._windows_due:
            return None
        region = self._queue.pop()
        self._windows_done += region.windows
        return region


def _covers(area: Area, size: tuple[int, int]) -> bool:
    """Whether an area is the whole frame."""
    left, top, right, bottom = area
    return left <= 0 and top <= 0 and right >= size[0] and bottom >= size[1]


def _regions_of_area(
    settings: DetectSettings, size: tuple[int, int], area: Area, *, half_step: bool
) -> list[SearchRegion]:
    """Regions for faces of all sizes that an area may be part of; ``half_step`` shifts the sizes by half a step."""
    width, height = size
    left, top, right, bottom = area
    regions: list[SearchRegion] = []
    side = smallest_face(settings, size) * (math.sqrt(STEP) if half_step else 1.0)
    while side <= min(size):
        margin = 0.4 * side
        if max(right - left, bottom - top) >= side / 2:  # a smaller area is no face of this size
            columns = (max(0, int(left - margin)), min(width, int(right + margin)))
            rows = (max(0, int(top - margin)), min(height, int(bottom + margin)))
            regions += _split_regions(side, rows, columns)
        side *= STEP
    return regions


def _split_regions(side: float, rows: tuple[int, int], columns: tuple[int, int]) -> list[SearchRegion]:
    """Regions of limited cost that together have every window of a part of the frame."""
    first, last = rows
    parts = max(1, round(_window_count(side, last - first, columns) / _REGION_WINDOWS))
    height = (last - first - side) / parts  # rows in which windows begin
    regions = []
    for part in range(parts):
        begin, end = int(first + part * height), min(last, int(first + (part + 1) * height + side) + 1)
        if windows := _window_count(side, end - begin, columns):
            regions.append(SearchRegion(side, (begin, end), columns, windows))
    return regions


def _window_count(side: float, height: int, columns: tuple[int, int]) -> int:
    """How many windows there are for faces of a size: OpenCV tries every other pixel of every other row."""
    down, across = (int(length * WINDOW / side) - WINDOW + 1 for length in (height, columns[1] - columns[0]))
    return max(0, down) * max(0, across) // 4
