"""The summary of a run on one screen, and its contact sheet."""

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.events.episodes import Change
from edge.labels import Labels
from edge.model.preprocessing import expression, softmax
from edge.monitoring.last_readings import LastReadings
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.pipeline import FrameResult, Pipeline
from edge.records import Reading
from edge.system.atomic_file import require_writable

_log = logging.getLogger(__name__)

_TILE: Final = (320, 240)
_COLUMNS: Final = 4
_ROWS: Final = 3


class Summary(FrameObserver):
    """Counts frames, faces and events of a run; without ``individuals`` it reports nothing that tells of faces."""

    def __init__(self, *, individuals: bool = True) -> None:
        self._individuals = individuals
        self._started = time.perf_counter()
        self.frames = 0
        self._with_face = 0
        self._followed = 0
        self._present: set[int] = set()  # only those present: a service runs for years, and must not remember all
        self._expressions: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._media_seconds = self._media_seconds_before = 0.0  # of this opening of the source, and of all before it

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Count one frame."""
        self._count(result.changes)
        labels = status.classifier.card.labels
        self._expressions.update(_caption(reading, labels)[0] for reading in result.readings.values())
        shown = {track.id for track in result.tracks}
        self._followed += len(shown - self._present)
        self._present = shown | self._present.intersection(result.hidden)
        self.frames += 1
        self._with_face += bool(result.tracks)
        self._media_seconds = result.frame.time

    def closed(self, changes: Sequence[Change]) -> None:
        """Count the events of the tracks that have left; the time of the next opening begins anew."""
        self._count(changes)
        self._media_seconds_before += self._media_seconds
        self._media_seconds = 0.0
        self._present.clear()  # the ids start over; a face that had no event yet is not among the changes

    def text(self, pipeline: Pipeline, dropped: int) -> str:
        """The summary for a terminal; ``dropped`` frames were replaced by newer ones before they were read."""
        media_seconds = self._media_seconds_before + self._media_seconds
        elapsed = time.perf_counter() - self._started
        frames = max(1, self.frames)
        stages = "   ".join(
            f"{stage} {1000 * seconds / frames:.2f}" for stage, seconds in pipeline.stage_seconds.items()
        )
        faces = (
            f"faces        {self._followed} followed; one in view in {self._with_face} frames",
            f"expressions  {_counts(self._expressions)}",
            f"events       {_counts(self._events)}",
            f"ms a frame   {stages}",  # whether it classified anything
        )
        return "\n".join(
            (
                f"frames       {self.frames} ({media_seconds:.1f} s of video) in {elapsed:.1f} s: "
                f"{self.frames / elapsed:.0f} fps" + (f", {dropped} dropped" if dropped else ""),
                *(faces if self._individuals else ()),
                f"model        {pipeline.classifier.card.name} on {pipeline.classifier.runtime}",
            )
        )

    def _count(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._events[change.kind] += 1


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


class ContactSheet(FrameObserver):
    """Keeps a few annotated frames in memory, spread over a run of any length, and writes them as one picture.

    Raises SourceError when its file cannot be written; an earlier one stays until then.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._naming_the_file():  # before the run, not after hours of it
            require_writable(file)
        self._every = 1
        self._count = 0
        self._tiles: list[NDArray[np.uint8]] = []
        self._last_readings = LastReadings()

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Annotate and keep every n-th frame; when there are too many, drop every other one and double n."""
        readings = self._last_readings.update(result)
        if self._count % self._every == 0:
            self._tiles.append(_annotate(result, readings, status.classifier.card.labels))
        self._count += 1
        if len(self._tiles) > 2 * _COLUMNS * _ROWS:
            self._tiles = self._tiles[::2]
            self._every *= 2

    def write(self) -> None:
        """Write the picture."""
        blank = np.zeros((_TILE[1], _TILE[0], 3), np.uint8)
        chosen = np.linspace(0, len(self._tiles) - 1, min(len(self._tiles), _COLUMNS * _ROWS)).round().astype(int)
        tiles = [self._tiles[index] for index in chosen]
        tiles += [blank] * (_COLUMNS * _ROWS - len(tiles))
        rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
        encoded = cv2.imencode(".png", np.vstack(rows))[1]
        with self._naming_the_file():
            self._file.write_bytes(encoded.tobytes())

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(f"{self._file}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def show_at_end(summary: Summary, sheet: ContactSheet | None, text: Callable[[], str]) -> Iterator[None]:
    """Write the sheet and print the summary's ``text`` when this is left, also by Ctrl-C or an error.

    A run that an error ends before its first frame has nothing to show: it leaves an earlier sheet as it is. The error
    that ends the run is raised, whatever fails here.
    """
    try:
        yield
    except BaseException:
        if summary.frames:
            try:
                _show(sheet, text)
            except (SourceError, OSError) as error:
                _log.warning("%s", error)
        raise
    _show(sheet, text)


def _show(sheet: ContactSheet | None, text: Callable[[], str]) -> None:
    try:
        print(text(), file=sys.stderr)
    finally:  # stderr may be a closed pipe
        if sheet:
            sheet.write()


def _caption(reading: Reading, labels: Labels) -> tuple[str, ...]:
    if isinstance(reading, str):
        return (reading,)
    shown = expression(softmax(reading), labels)
    return shown.label, f"{shown.confidence:.0%}"


def _annotate(result: FrameResult, readings: Mapping[int, Reading], labels: Labels) -> NDArray[np.uint8]:
    """A small copy of a frame, with the box and the last reading of each face."""
    height, width = result.frame.gray.shape
    factor = min(_TILE[0] / width, _TILE[1] / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced = cv2.resize(result.frame.gray, size, interpolation=cv2.INTER_AREA)
    tile = np.zeros((_TILE[1], _TILE[0], 3), np.uint8)
    tile[: size[1], : size[0]] = reduced[:, :, np.newaxis]
    for track in result.tracks:
        caption = " ".join(_caption(readings[track.id], labels)) if track.id in readings else ""
        x, y, w, h = (round(value * factor) for value in (track.box.x, track.box.y, track.box.w, track.box.h))
        cv2.rectangle(tile, (x, y), (x + w, y + h), (80, 220, 80), 2)
        _write(tile, f"{track.id}: {caption}", (x, max(12, y - 6)))
    _write(tile, f"{result.frame.time:.1f} s", (6, _TILE[1] - 8))
    return tile


def _write(tile: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
