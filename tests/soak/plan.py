"""Plans a soak: a storm of faults that depends on a seed and a number alone."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.soak.kinds import KINDS, Lane

_CALM_SHARE: Final = 0.4
_SMALL: Final = 400

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
    """The same storm for the same arguments.

    In a small one each of ``kinds`` comes at least once, when there are enough faults. In a large one their frequencies
    alone decide: kinds that restart the process take long, and the other lanes would wait for theirs at the end.
    """
    chance = Random(f"{seed} {faults} {' '.join(kinds)}")
    calm = [kind for kind in kinds if KINDS[kind].calm]
    calm_faults = round(faults * _CALM_SHARE) if calm else 0
    small = faults < _SMALL
    first = _drawn(chance, {kind: KINDS[kind].calm for kind in calm}, calm_faults, () if small else calm)
    wild = {kind: KINDS[kind].wild for kind in kinds}
    parts = (first, _drawn(chance, wild, faults - calm_faults, first if small else kinds))
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


def _drawn(chance: Random, weights: dict[str, float], count: int, had: Collection[str]) -> list[str]:
    """``count`` kinds by their weights, in random order; each that is not in ``had`` at least once, if they fit."""
    new = [kind for kind in weights if kind not in had]
    once = new if len(new) <= count else chance.sample(new, count)
    more = chance.choices(list(weights), list(weights.values()), k=count - len(once)) if weights else []
    drawn = once + more
    chance.shuffle(drawn)
    return drawn
