"""Figures of the delivery to the broker, for statistics and metrics."""

from dataclasses import dataclass

import msgspec


class OutboxFigures(msgspec.Struct, frozen=True):
    """How the outbox is: how many events wait and may wait, were dropped for that; how often its file was damaged.

    ``failed`` counts attempts that the disk refused: full, read-only or broken. The counts outlive restarts.
    ``durable`` is false while the disk does not take events: those that wait are then in memory only.
    """

    waiting: int
    most: int
    dropped: int
    damaged: int
    failed: int
    durable: bool


@dataclass(frozen=True)
class DeliveryFigures:
    """The outbox, how many events the broker has ``refused`` since the start, and the code of the retained fault."""

    outbox: OutboxFigures
    refused: int
    fault: int | None
