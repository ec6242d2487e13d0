"""``fer-edge run --record`` and ``fer-edge replay``: readings are recorded, and give the same events, byte for byte.

A recording is lines of JSON: ``begin`` (run id, model, thresholds), a ``frame`` for each frame with boxes, readings and
times, and ``end``. A pause ends one and begins another. It holds no pictures. The clock's reading stands in a line only
when it has changed.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import Meta

from edge.errors import SettingsError, SourceError
from edge.events.episodes import Change, EpisodeTracker, episode_settings
from edge.events.factory import EventFactory
from edge.labels import FER2013_LABELS, FEWEST, MOST, Labels, label_problem
from edge.model.classifier import CardTerms
from edge.pipeline import FrameResult
from edge.records import Event, EventTuning, Flaw
from edge.settings import EventSettings, Preset, Settings, require_expressions
from edge.system.clock import Moment
from edge.untrusted_file import MALFORMED_JSON, bounded_lines, open_regular

_LONGEST_LINE: Final = 2**20  # bytes; a frame with five faces has about a thousand

Size: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]  # thirty years
Logit: TypeAlias = Annotated[float, Meta(ge=-1e6, le=1e6)]
AllLogits: TypeAlias = Annotated[tuple[Logit, ...], Meta(min_length=FEWEST, max_length=MOST)]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", omit_defaults=True):
    """A line of a recording."""


class RecordingStart(_Line, frozen=True, tag="begin"):
    """A source was opened.

    ``labels``, ``telling`` and ``threshold`` are the card's, ``events`` and ``presets`` the settings'. A recording
    without ``labels`` has FER2013's.
    """

    version: Literal[1]
    run: str
    model: str
    sha256: str
    telling: EventTuning
    threshold: float
    events: EventSettings
    presets: tuple[Preset, ...] = ()
    labels: Labels = FER2013_LABELS


class RecordedFrame(_Line, frozen=True, tag="frame"):
    """One frame at ``t`` (source time, seconds): the box of each track in view, and the readings of this frame.

    ``hidden`` are the ids of tracks that are out of sight and have not left.
    """

    t: Seconds
    boxes: dict[int, tuple[int, int, Size, Size]] = {}
    readings: dict[int, AllLogits | Flaw] = {}
    hidden: tuple[int, ...] = ()
    clock: Moment | None = None


class RecordingEnd(_Line, frozen=True, tag="end"):
    """The source was closed, and every track has left."""

    t: Seconds
    clock: Moment


Line: TypeAlias = RecordingStart | RecordedFrame | RecordingEnd


class Recorder:
    """Writes a recording. Raises SourceError when its file cannot be written.

    An earlier recording in that file stays until the first frame: a start that fails, as without its camera, has
    nothing to put in its place. An opening of the source without a frame is not recorded.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._naming_the_file():
            self._stream = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb")
        self._replaced = False
        self._start: RecordingStart | None = None
        self._moment: Moment | None = None

    def begin(self, run_id: str, card: CardTerms, settings: Settings) -> None:
        """Take note that a source was opened."""
        self._moment = None
        thresholds = (card.events, card.threshold, settings.events, settings.preset)
        self._start = RecordingStart(1, run_id, card.name, card.sha256, *thresholds, card.labels)

    def frame(self, result: FrameResult, moment: Moment) -> None:
        """Record one frame; ``moment`` is the one of its events."""
        if self._start:
            self._replace_earlier()
            self._write(self._start)
            self._start = None
        boxes = {track.id: (track.box.x, track.box.y, track.box.w, track.box.h) for track in result.tracks}
        clock = None if moment == self._moment else moment
        self._write(RecordedFrame(result.frame.time, boxes, result.readings, tuple(result.hidden), clock))
        self._moment = moment

    def end(self, time: float, moment: Moment) -> None:
        """Record that the source was closed at ``time`` (source time, seconds)."""
        if self._start is None:
            self._write(RecordingEnd(time, moment))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._naming_the_file():
            self._stream.close()

    def _replace_earlier(self) -> None:
        if self._replaced:
            return
        self._replaced = True
        with self._naming_the_file():
            if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):  # a pipe has nothing to remove
                self._stream.truncate(0)

    def _write(self, line: Line) -> None:
        with self._naming_the_file():
            self._stream.write(msgspec.json.encode(line) + b"\n")

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(f"{self._file}: cannot be written: {error.strerror}") from error


def events_of(file: Path, settings: Settings | None = None) -> Iterator[Event]:
    """The events of a recording, as they were then or, with ``settings``, by their ``[events]`` and presets.

    Raises SourceError for a file that is no recording, or is cut; the events before the cut come first. Raises
    SettingsError for a preset of the settings with an expression that the recorded model has not.
    """
    session: _Session | None = None
    number = 0
    for number, line in enumerate(_lines(file), 1):
        if isinstance(line, RecordingStart) == (session is not None):
            problem = "a second beginning without an end" if session else "a frame before any beginning"
            raise SourceError(f"{file}, line {number}: {problem}: lines are missing")
        if isinstance(line, RecordingStart):
            if problem := label_problem(line.labels):
                raise SourceError(f"{file}, line {number}: {problem}")
            try:
                session = _Session(line, settings)
            except SettingsError as error:
                if settings:
                    raise
                raise SourceError(f"{file}, line {number}: {error}") from error  # in the recording's own presets
            continue
        assert session
        try:
            yield from session.step(line)
        except _InconsistentLine as error:
            raise SourceError(f"{file}, line {number}: {error}: lines are missing or in another order") from error
        except OverflowError as error:
            raise SourceError(f"{file}, line {number}: its time of day is outside of the calendar") from error
        if isinstance(line, RecordingEnd):
            session = None
    if not number:
        raise SourceError(f"{file}: it is empty: the run that made it has recorded no frame")
    if session:
        raise SourceError(f"{file}: the recording has no end after line {number}: it was cut, or is still written")


class _InconsistentLine(Exception):  # noqa: N818  only on its way to a SourceError
    """A line that cannot follow the lines before it."""


class _Session:
    """Replays the lines from one beginning to its end."""

    def __init__(self, begin: RecordingStart, settings: Settings | None) -> None:
        events, presets = (settings.events, settings.preset) if settings else (begin.events, begin.presets)
        require_expressions(presets, begin.labels, begin.model)
        self._classes = len(begin.labels)
        thresholds = (begin.telling, begin.threshold)
        self._episode_tracker = EpisodeTracker(episode_settings(events, presets, begin.labels, *thresholds))
        self._event_factory = EventFactory(begin.run)
        self._moment: Moment | None = None
        self._time = 0.0

    def step(self, line: RecordedFrame | RecordingEnd) -> Iterator[Event]:
        self._moment = line.clock or self._moment
        if self._moment is None:
            raise _InconsistentLine("no time of day was recorded yet")
        if line.t < self._time:
            raise _InconsistentLine(f"time goes back from {self._time:g} to {line.t:g} s")
        self._time = line.t
        changes: Iterator[Change]
        if isinstance(line, RecordingEnd):
            changes = self._episode_tracker.update((), {}, line.t)
        elif unknown := line.readings.keys() - line.boxes.keys():
            raise _InconsistentLine(f"a reading of track {min(unknown)}, which has no box")
        elif other := {len(one) for one in line.readings.values() if not isinstance(one, str)} - {self._classes}:
            raise _InconsistentLine(f"a reading of {min(other)} logits, and {self._classes} labels")
        else:
            changes = self._episode_tracker.update([*line.boxes, *line.hidden], line.readings, line.t, line.hidden)
        for change in changes:
            yield self._event_factory.event(change, self._moment)


def _lines(file: Path) -> Iterator[Line]:
    decode: Callable[[bytes], Line] = msgspec.json.Decoder(Line).decode
    try:
        with open_regular(file) as stream:
            for number, text in enumerate(bounded_lines(stream, _LONGEST_LINE), 1):
                try:
                    yield decode(text)
                except MALFORMED_JSON as error:
                    cut = "" if text.endswith(b"\n") else "cut in the middle of its last line, or "
                    raise SourceError(f"{file}, line {number}: {cut}no recording of version 1: {error}") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from error
