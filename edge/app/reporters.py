"""Carrying what one opening of a source shows to where it was asked for: stdout, the broker, a recording."""

from collections.abc import Callable
from typing import Protocol

from edge.app.recording import Recorder
from edge.events.aggregate import AggregateCounter, IntervalCounts
from edge.events.episodes import Change
from edge.events.factory import EventFactory, to_json
from edge.mqtt.messages import Aggregate
from edge.mqtt.publisher import MqttPublisher
from edge.pipeline import FrameResult
from edge.records import Event
from edge.settings import PrivacySettings
from edge.system.clock import Moment, TimeOrigin, moment


class ReportStrategy(Protocol):
    """What is said of changes."""

    def tell(self, changes: list[Change], at: float, moment: Callable[[], Moment]) -> None:
        """Say what is worth saying at ``at`` (seconds, source time); ``moment`` gives the clock's view of now."""
        ...

    def end(self, at: float, moment: Callable[[], Moment]) -> None:
        """Nothing follows."""
        ...


class PerEventReport:
    """Says every change, as an event."""

    def __init__(self, maker: EventFactory, publisher: MqttPublisher | None) -> None:
        self._maker = maker
        self._carry: Callable[[Event], None] = publisher.publish_event if publisher else _print

    def tell(self, changes: list[Change], at: float, moment: Callable[[], Moment]) -> None:
        """Each change by itself; ``at`` stands in the changes too."""
        for change in changes:
            self._carry(self._maker.event(change, moment()))

    def end(self, at: float, moment: Callable[[], Moment]) -> None:
        """All has been said."""


class AggregateReport:
    """Says how many people there were in an interval, and never anything about one of them."""

    def __init__(self, maker: EventFactory, privacy: PrivacySettings, publisher: MqttPublisher | None) -> None:
        self._maker = maker
        self._census = AggregateCounter(privacy)
        self._carry: Callable[[Aggregate], None] = publisher.publish_aggregate if publisher else _print

    def tell(self, changes: list[Change], at: float, moment: Callable[[], Moment]) -> None:
        """The counts of an interval that has ended."""
        for tally in self._census.update(changes, at):
            self._say(tally, moment())

    def end(self, at: float, moment: Callable[[], Moment]) -> None:
        """The counts of an interval that has been cut short."""
        for tally in self._census.end(at):
            self._say(tally, moment())

    def _say(self, tally: IntervalCounts, moment: Moment) -> None:
        aggregate = Aggregate(
            id=self._maker.next_id(),
            time=moment.text(tally.end),
            clock_synced=moment.synced,
            seconds=tally.seconds,
            people=tally.people,
            expressions=tally.expressions,
            presets=tally.presets,
        )
        self._carry(aggregate)


class EventReporter:
    """Takes frames and changes of one opening of a source, until it ends."""

    def __init__(self, origin: TimeOrigin, voice: ReportStrategy, recorder: Recorder | None) -> None:
        self._origin = origin
        self._voice = voice
        self._recorder = recorder
        self._at = 0.0

    def seen(self, seen: FrameResult) -> None:
        """A frame has gone through the pipeline."""
        self._at = seen.frame.time
        if self._recorder is None:
            self._voice.tell(seen.changes, self._at, lambda: moment(self._origin))
            return
        now = moment(self._origin)
        self._recorder.frame(seen, now)
        self._voice.tell(seen.changes, self._at, lambda: now)

    def end(self, left: list[Change]) -> None:
        """The source is closed; ``left`` is what that means for those in view."""
        now = moment(self._origin)
        if self._recorder:
            self._recorder.end(self._at, now)
        self._voice.tell(left, self._at, lambda: now)
        self._voice.end(self._at, lambda: now)


def _print(message: Event | Aggregate) -> None:
    print(to_json(message).decode(), flush=True)
