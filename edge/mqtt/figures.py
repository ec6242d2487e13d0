"""Figures of the delivery to the broker, for statistics and metrics."""

from dataclasses import dataclass

import msgspec


class OutboxFigures(msgspec.Struct, frozen=True):
    """How many events wait in the outbox, how many may wait at ``most``, and how many more were dropped.

    ``damaged`` counts damaged files that were set aside, ``lost`` the committed events that are gone because a file was
    damaged, ``failed`` the attempts that the disk refused: full, read-only or broken. These counts outlive restarts.
    ``durable`` is false while the disk takes no events; those that wait are in memory only then.
    """

    waiting: int
    most: int
    dropped: int
    damaged: int
    lost: int
    failed: int
    durable: bool


@dataclass(frozen=True)
class DeliveryFigures:
    """The outbox, how many events the broker has ``refused`` since the start, and the code of the retained fault."""

    outbox: OutboxFigures
    refused: int
    fault: int | None
