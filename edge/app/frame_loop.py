"""Takes the frames of a source through the pipeline, shows the results to observers, and pauses on command."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final

from edge.camera.sources import Source, open_source, paced
from edge.errors import CameraStalled
from edge.monitoring.darkness import DarknessWatch
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.pipeline import Pipeline
from edge.records import Frame
from edge.settings import Settings
from edge.system.clock import TimeOrigin, live_time, media_time, now
from edge.system.shutdown import is_camera_hanging
from edge.vision.face_size import pixel_shortage

_log = logging.getLogger(__name__)

_PAUSED_SECONDS: Final = 0.2
_CLOSING_SECONDS: Final = 5.0  # a camera that gives no picture for longer has stalled by default
_CLOSING_CHECK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class LoopControl:
    """What interrupts the loop: ``stopping`` ends it, and the source is closed while ``pause_requested`` gives True."""

    stopping: Event
    pause_requested: Callable[[], bool]


class FrameLoop:
    """Runs until the source ends or a stop is asked for.

    ``open_reporter`` makes an observer for one opening of the source, which is called before the ``observers``. With
    ``realtime`` a file is read at its own pace.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        observers: Sequence[FrameObserver],
        open_reporter: Callable[[TimeOrigin], FrameObserver],
        control: LoopControl,
        *,
        realtime: bool,
    ) -> None:
        self.pipeline = pipeline
        self.frames_dropped = 0
        """By all openings of the source that have ended."""
        self._settings = settings
        self._observers = observers
        self._open_reporter = open_reporter
        self._stopping = control.stopping
        self._pause_requested = control.pause_requested
        self._realtime = realtime
        self._warned_of = math.inf  # the shorter side of the frames that have too few pixels, in pixels

    def run(self) -> None:
        """Raises SourceError when the source fails, CameraStalled when it hangs, and what the observers raise."""
        while not self._stopping.is_set():
            if self._pause_requested():
                self._pause()
                continue
            with contextlib.closing(open_source(self._settings.camera, waiting=self._wait_on)) as source:
                try:
                    ended = self._watch(source)
                finally:
                    self.frames_dropped += source.dropped
            # A pause may have been withdrawn while the source was closed, and is then no end.
            if ended or self._stopping.is_set():
                break
            self._await_closed()
            # Times and track ids start over with the source.
            self.pipeline = self.pipeline.for_new_source(self._settings)

    def _watch(self, source: Source) -> bool:
        """Take the source's frames until it ends or is to be closed; returns whether it has ended."""
        origin = live_time() if source.live else media_time(now())
        observers = [self._open_reporter(origin), *self._observers]
        darkness = DarknessWatch()
        try:
            for result in self.pipeline.run(self._frames(source)):
                self._warn_of_small_frames(result.frame)
                darkness.frame(result.frame.time, too_dark=result.too_dark)
                self.pipeline.classifier.poll_accelerator()
                status = self._status(source.dropped, too_dark=darkness.too_dark)
                for observer in observers:
                    observer.frame(result, status)
                if self._stopping.is_set() or self._pause_requested():
                    return False
        finally:  # every track has left, whatever the reason
            changes = self.pipeline.finish()
            with contextlib.ExitStack() as closing:  # one observer that fails keeps it from none of the others
                for observer in observers:  # called in reverse: the broker hears of the camera before the last events
                    closing.callback(observer.closed, changes)
        return True

    def _warn_of_small_frames(self, frame: Frame) -> None:
        """Say if the smallest faces that the settings ask for cannot be found in frames of this size.

        Frames that are no smaller than those of which it was said need no other message: each picture of a folder may
        have its own size.
        """
        height, width = frame.gray.shape
        if min(width, height) >= self._warned_of:
            return
        if shortage := pixel_shortage(self._settings.detect, (width, height)):
            self._warned_of = min(width, height)
            _log.warning("%s; %s", shortage.problem, shortage.remedy)

    def _await_closed(self) -> None:
        """Wait until a camera is really closed: a slow one gives its next picture first.

        Raises CameraStalled when it hangs.
        """
        deadline = time.monotonic() + _CLOSING_SECONDS
        while is_camera_hanging() and not self._stopping.is_set():
            if time.monotonic() >= deadline:
                raise CameraStalled("the camera hangs and cannot be closed; only the end of this process closes it")
            self._wait_on()
            self._stopping.wait(_CLOSING_CHECK_SECONDS)

    def _wait_on(self) -> None:
        for observer in self._observers:
            observer.waiting()

    def _pause(self) -> None:
        _log.warning('the camera is paused; .../command/pause with {"on":false} opens it again')
        while self._pause_requested() and not self._stopping.is_set():
            self.pipeline.classifier.poll_accelerator()
            status = self._status()
            for observer in self._observers:
                observer.paused(status)
            self._stopping.wait(_PAUSED_SECONDS)

    def _frames(self, source: Source) -> Iterator[Frame]:
        return paced(source.frames(), self._stopping.wait) if self._realtime and not source.live else source.frames()

    def _status(self, dropped_since_opening: int = 0, *, too_dark: bool = False) -> LoopStatus:
        dropped = self.frames_dropped + dropped_since_opening
        return LoopStatus(self.pipeline.classifier, self.pipeline.stage_seconds, dropped, too_dark)
