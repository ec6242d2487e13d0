"""Plans a soak: a storm of faults that depends on a seed and a number alone."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Lane = Literal["network", "device", "clock", "operator"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault. Faults of one lane come one after another, those of different lanes at the same time.

    ``hold`` are the fewest and the most seconds that it lasts. ``calm`` and ``wild`` are its relative frequencies in
    the storm's two parts. The first part has only faults that a process must survive, so that its memory can be
    observed; the second part has all kinds.
    """

    lane: Lane
    hold: tuple[float, float]
    calm: float
    wild: float
    about: str


KINDS: Final[dict[str, Kind]] = {
    "network-cut": Kind("network", (0.0, 2.0), 1, 9, "every connection breaks, and none is made for a while"),
    "broker-restart": Kind("network", (0.0, 2.0), 0.5, 4, "the broker ends in order, and starts again"),
    "broker-kill": Kind("network", (0.0, 2.0), 0.5, 3, "the broker is killed by SIGKILL, and starts again"),
    "wrong-password": Kind("network", (0.5, 3.0), 0.5, 2, "the broker refuses the device until its password is right"),
    "camera-gone": Kind("device", (0.5, 3.0), 0, 2, "the camera hangs up, and cannot be opened"),
    "camera-stalled": Kind("device", (0.5, 2.0), 0, 1, "the camera sends nothing more"),
    "camera-frozen": Kind("device", (0.5, 2.0), 0, 1, "the camera sends one picture again and again"),
    "camera-corrupt": Kind("device", (0.5, 3.0), 0, 2.5, "the camera's pictures are damaged"),
    "tpu-vanishes": Kind("device", (0.2, 1.0), 0, 2, "the Edge TPU (a stand-in) fails while it computes"),
    "tpu-hangs": Kind("device", (0.0, 0.5), 0, 0.7, "the Edge TPU never returns: the watchdog ends the process"),
    "tpu-crashes": Kind("device", (0.2, 1.0), 0, 0.8, "the Edge TPU's library aborts the process that opens it"),
    "tpu-wrong": Kind("device", (0.2, 1.0), 0, 0.7, "the Edge TPU computes something else"),
    "disk-full": Kind("device", (0.5, 3.0), 8, 4, "no byte is left on the state's disk"),
    "disk-hangs": Kind("device", (0.2, 3.0), 6, 3, "every write to the disk blocks"),
    "model-rots": Kind("device", (0.2, 1.0), 0, 1, "a bit of the deployed network flips before the next start"),
    "kill": Kind("device", (0.0, 0.0), 0, 5, "SIGKILL; every other time /run is emptied too"),
    "clock-back": Kind("clock", (0.2, 2.0), 15, 10, "the wall clock is set back, up to a year"),
    "clock-forward": Kind("clock", (0.2, 2.0), 15, 10, "the wall clock is set forward, up to a year"),
    "bad-command": Kind("operator", (0.0, 0.0), 30, 21, "MQTT commands that are unknown, malformed, huge or a flood"),
    "pause": Kind("operator", (0.2, 2.0), 12, 6, "the camera is closed by a command, and opened again"),
    "bad-bundle": Kind("operator", (0.0, 0.0), 2, 1.5, "fer-edge model install of a bundle that must be refused"),
}

LANES: Final[tuple[Lane, ...]] = ("network", "device", "clock", "operator")

_CALM_SHARE: Final = 0.4

_PAUSE: Final = (0.0, 0.5)
# A connection that lasts half a minute resets the device's back-off. Without such pauses it would mostly be
# disconnected, and commands would not arrive.
_NETWORK_PAUSES: Final = ((31.0, 33.0), (2.0, 4.0))


@dataclass(frozen=True)
class Fault:
    """One fault: its number in the storm from 0, its part (0 calm, 1 wild), and its random values.

    ``pause`` seconds pass before it, ``hold`` seconds until its cause is taken away; ``variant`` selects among the
    variants of its kind.
    """

    number: int
    part: int
    kind: str
    pause: float
    hold: float
    variant: int

    @property
    def lane(self) -> Lane:
        return KINDS[self.kind].lane


def storm(seed: int, faults: int, kinds: Collection[str] = tuple(KINDS)) -> tuple[Fault, ...]:
    """The same storm for the same arguments. Each of ``kinds`` comes at least once when there are enough faults."""
    chance = Random(f"{seed} {faults} {' '.join(kinds)}")
    calm = [kind for kind in kinds if KINDS[kind].calm]
    calm_faults = round(faults * _CALM_SHARE) if calm else 0
    first = _drawn(chance, {kind: KINDS[kind].calm for kind in calm}, calm_faults)
    parts = (first, _drawn(chance, {kind: KINDS[kind].wild for kind in kinds}, faults - calm_faults, first))
    named = [(part, kind) for part, drawn in enumerate(parts) for kind in drawn]
    return tuple(
        Fault(
            number,
            part,
            kind,
            pause=round(chance.uniform(*(_NETWORK_PAUSES[part] if KINDS[kind].lane == "network" else _PAUSE)), 3),
            hold=round(chance.uniform(*KINDS[kind].hold), 3),
            variant=chance.randrange(1 << 16),
        )
        for number, (part, kind) in enumerate(named)
    )


def _drawn(chance: Random, weights: dict[str, float], count: int, had: Collection[str] = ()) -> list[str]:
    """``count`` kinds by their weights, in random order; each at least once if they fit, else those not in ``had``."""
    once = list(weights)
    if len(once) > count:
        new = [kind for kind in weights if kind not in had]
        once = chance.sample(new, min(count, len(new)))
    more = chance.choices(list(weights), list(weights.values()), k=count - len(once)) if weights else []
    drawn = once + more
    chance.shuffle(drawn)
    return drawn
