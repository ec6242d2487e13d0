"""Reports what one opening of a source shows: to stdout or the broker, and to a recording."""

from collections.abc import Callable, Sequence
from typing import Protocol

from edge.app.recording import Recorder
from edge.events.aggregate import AggregateCounter, IntervalCounts
from edge.events.episodes import Change
from edge.events.factory import EventFactory, to_json
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.mqtt.messages import Aggregate
from edge.mqtt.publisher import MqttPublisher
from edge.pipeline import FrameResult
from edge.records import Event
from edge.settings import PrivacySettings
from edge.system.clock import Moment, TimeOrigin, moment
from edge.system.shutdown import stdout_error


class ReportStrategy(Protocol):
    """Decides what is reported of changes. ``time`` is of the source, in seconds; ``moment`` reads the clock."""

    def report(self, changes: Sequence[Change], time: float, moment: Callable[[], Moment]) -> None:
        """Take the changes of a frame, often none, and report what is due."""
        ...

    def finish(self, time: float, moment: Callable[[], Moment]) -> None:
        """Report what is left; the source has ended."""
        ...


class PerEventReport:
    """Reports every change as an event."""

    def __init__(self, factory: EventFactory, publisher: MqttPublisher | None) -> None:
        self._factory = factory
        self._publish: Callable[[Event], None] = publisher.publish_event if publisher else print_message

    def report(self, changes: Sequence[Change], time: float, moment: Callable[[], Moment]) -> None:
        """Report each change by itself."""
        for change in changes:
            self._publish(self._factory.event(change, moment()))

    def finish(self, time: float, moment: Callable[[], Moment]) -> None:
        """Nothing is left."""


class AggregateReport:
    """Reports how many people there were in each interval, and nothing about any one of them."""

    def __init__(self, factory: EventFactory, privacy: PrivacySettings, publisher: MqttPublisher | None) -> None:
        self._factory = factory
        self._counter = AggregateCounter(privacy)
        self._publish: Callable[[Aggregate], None] = publisher.publish_aggregate if publisher else print_message

    def report(self, changes: Sequence[Change], time: float, moment: Callable[[], Moment]) -> None:
        """Count the changes; report an interval that has ended."""
        for counts in self._counter.update(changes, time):
            self._report(counts, moment())

    def finish(self, time: float, moment: Callable[[], Moment]) -> None:
        """Report the interval that was cut short."""
        for counts in self._counter.end(time):
            self._report(counts, moment())

    def _report(self, counts: IntervalCounts, moment: Moment) -> None:
        aggregate = Aggregate(
            id=self._factory.next_id(),
            time=moment.text(counts.end),
            clock_synced=moment.synced,
            seconds=counts.seconds,
            people=counts.people,
            expressions=counts.expressions,
            presets=counts.presets,
        )
        self._publish(aggregate)


class EventReporter(FrameObserver):
    """Reports and records the frames of one opening of a source; both get the same moment of a frame."""

    def __init__(self, origin: TimeOrigin, strategy: ReportStrategy, recorder: Recorder | None) -> None:
        self._origin = origin
        self._strategy = strategy
        self._recorder = recorder
        self._time = 0.0

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Report and record one frame; the clock is only read when it is needed."""
        self._time = result.frame.time
        if self._recorder is None:
            self._strategy.report(result.changes, self._time, lambda: moment(self._origin))
            return
        now = moment(self._origin)
        self._recorder.frame(result, now)
        self._strategy.report(result.changes, self._time, lambda: now)

    def closed(self, changes: Sequence[Change]) -> None:
        """Report and record that every track has left."""
        now = moment(self._origin)
        if self._recorder:
            self._recorder.end(self._time, now)
        self._strategy.report(changes, self._time, lambda: now)
        self._strategy.finish(self._time, lambda: now)


def print_message(message: Event | Aggregate) -> None:
    """Print it as a line. Raises StoreError when stdout cannot take it, and BrokenPipeError when nobody reads it."""
    try:
        print(to_json(message).decode(), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error
