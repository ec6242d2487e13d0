"""The MQTT payloads beside events (edge.records.Event): one type for each, and their JSON Schemas.

``python -m edge.mqtt.messages docs`` writes ``docs/*.schema.json`` from these types. docs/mqtt.md describes the topics.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from edge.labels import ShownLabel
from edge.mqtt.figures import OutboxFigures
from edge.records import Accuracy, Event, Fault, Reason, Verification

Correlation: TypeAlias = Annotated[str, Meta(max_length=64)]


class DeliveredEvent(Event, frozen=True, kw_only=True):
    """``…/event`` and ``…/homeassistant/event``, not retained: an event as it is delivered.

    ``id`` is ``<run id>-<sequence>`` and unique, so that a consumer can drop a message that comes twice. ``time`` is
    when the event happened (RFC 3339, with zone); ``clock_synced`` says whether a time server had set the device's
    clock by then. ``expression`` is the current one, in ``left`` the last one; it is null while it is uncertain, and
    ``reason`` says why. ``episode`` is the one that has just ended, in ``preset`` the current one. ``late`` is the
    time between happening and sending, in seconds. It is null when the clock cannot tell: a time server has set it in
    between, or none has and another process has seen the event. Events on stdout do not have it.
    """

    late: float | None = None

    @classmethod
    def of(cls, event: Event, late: float) -> "DeliveredEvent":
        """An event that is sent ``late`` seconds after it happened."""
        return cls(**{name: getattr(event, name) for name in event.__struct_fields__}, late=late)


class State(msgspec.Struct, frozen=True):
    """``…/state``, retained: how many faces are in view, and the expression of the one that has been there longest.

    ``expression`` is null while no face is in view or none is recognised; ``reason`` is why it is not. ``since`` is the
    time of the event that this state follows from (RFC 3339 with zone); null while nobody has come since the start.
    """

    faces: int
    track: int | None = None
    expression: ShownLabel | None = None
    confidence: float | None = None
    reason: Reason | None = None
    since: str | None = None


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """``…/aggregate``, not retained: counts of people in the ``seconds`` before ``time``, with privacy.aggregate_only.

    It replaces events and state, and comes at the end of each interval. ``people`` counts tracks: a returning person
    gets a new track and counts twice. It is null when they were fewer than privacy.minimum_people, or nobody.
    ``expressions`` and ``presets`` count the people who showed each at some time. No count is below
    privacy.minimum_people; an expression that is missing was shown by fewer. ``id``, ``time`` and ``clock_synced``
    are as those of an event.
    """

    schema_version: Literal[2] = 2
    id: str
    time: str
    clock_synced: bool
    seconds: float
    people: int | None
    expressions: dict[ShownLabel, int]
    presets: dict[str, int]


class FaultState(msgspec.Struct, frozen=True):
    """``…/homeassistant/fault``, retained: the fault of ``…/fault`` in a form that is never empty, for Home Assistant.

    Without a ``problem`` the other fields are null. Then a reader that starts later knows so, too.
    """

    problem: bool
    code: int | None = None
    sentence: str | None = None
    time: str | None = None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """``…/statistics``, not retained: periodic device-health statistics.

    They come after the first frame, at each interval, and when accelerator, fault or ``too_dark`` change. ``uptime`` is
    in seconds since the start. ``too_dark`` says that for some seconds it has been too dark to find faces. ``fps`` and
    ``stage_ms`` (milliseconds a frame) are of the time since the last interval began; ``fps`` is null in its first
    second. ``visitors`` and ``presets`` count the tracks that appeared and each preset since the start; with
    privacy.aggregate_only they are null and empty. ``frames_dropped`` counts the frames that were replaced by newer
    ones before they were read, since the start. ``temperature`` is in °C; ``throttled`` lists how the firmware of a
    Raspberry Pi limits it now. Both are null on boards that do not report them. ``bytes_written_last_hour`` is what the
    process wrote to disks, null where the kernel does not count. ``refused`` counts the events that the broker refused,
    ``commands_ignored`` the messages on ``…/command/`` that were invalid, retained or came too fast. ``fault`` is the
    code of the retained fault. ``declared_use`` is what the operator declares this device is used for. ``stage_ms`` is
    empty with privacy.aggregate_only, because it would show whether somebody is there.
    """

    time: str
    uptime: float
    paused: bool
    too_dark: bool
    fps: float | None
    visitors: int | None
    presets: dict[str, int]
    stage_ms: dict[str, float]
    frames_dropped: int
    model: str
    accelerator: str
    temperature: float | None
    throttled: list[str] | None
    outbox: OutboxFigures
    bytes_written_last_hour: int | None
    refused: int
    commands_ignored: int
    fault: int | None
    declared_use: str


class Pause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``…/command/pause``: close the camera (``on`` is true), or open it again."""

    on: bool
    id: Correlation = ""


class Verify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``…/command/verify``: compare the golden outputs of the model that runs, between frames."""

    id: Correlation = ""


class Reload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``…/command/reload``: stop and start again, with the settings as they are then."""

    id: Correlation = ""


Command: TypeAlias = Pause | Verify | Reload

COMMANDS: Final[dict[str, type[Command]]] = {"pause": Pause, "verify": Verify, "reload": Reload}

ReplyError: TypeAlias = Literal["unknown", "malformed", "retained", "too-fast", "busy", "impossible", "failed"]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """``…/reply``, not retained: the result of a command; ``id`` is the command's.

    When not ``ok``, ``error`` is one of the words below, and ``sentence`` explains it.
    """

    command: str
    id: str = ""
    ok: bool
    error: ReplyError | None = None
    sentence: str | None = None
    result: dict[str, Any] | None = None


PAYLOADS: Final[dict[str, type[msgspec.Struct]]] = {
    "event": DeliveredEvent,
    "aggregate": Aggregate,
    "state": State,
    "fault": Fault,
    "homeassistant.fault": FaultState,
    "statistics": Statistics,
    "verification": Verification,
    "accuracy": Accuracy,
    "reply": Reply,
    **{f"command.{name}": kind for name, kind in COMMANDS.items()},
}
"""The type that each ``docs/NAME.schema.json`` describes."""


def schemas() -> dict[str, str]:
    """The text of each schema file, by its name."""
    return {
        f"{name}.schema.json": json.dumps(_unindented(msgspec.json.schema(kind)), indent=2) + "\n"
        for name, kind in PAYLOADS.items()
    }


def _unindented(schema: Any) -> Any:
    """A schema whose descriptions have no indentation of docstrings. Of msgspec before 0.23 they have it."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(part) if key == "description" and isinstance(part, str) else _unindented(part)
            for key, part in schema.items()
        }
    return [_unindented(part) for part in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    for name, text in schemas().items():
        (Path(sys.argv[1]) / name).write_text(text)
