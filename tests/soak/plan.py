"""Plans a soak: a storm of faults that depends on a seed and a number alone."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.soak.kinds import KINDS, Lane

_CALM_SHARE: Final = 0.4

_PAUSE: Final = (0.0, 0.3)
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


def storm(seed: str, faults: int, kinds: Collection[str] = tuple(KINDS)) -> tuple[Fault, ...]:
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
