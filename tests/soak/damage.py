"""What a worn card makes of a file. Pure, but for ``damage``, which writes it."""

from pathlib import Path
from random import Random
from typing import Final, Literal

How = Literal["flips", "lost"]

_MOST_FLIPS: Final = 4


def flipped(content: bytes, chance: Random) -> bytes:
    """One to four bits are others."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, _MOST_FLIPS)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def lost(content: bytes, chance: Random) -> bytes | None:
    """Nothing is left, or the beginning only, or only zeros; None for a file that is gone."""
    return chance.choice((None, b"", content[: chance.randrange(len(content) + 1)], bytes(len(content))))


def damage(file: Path, how: How, variant: int) -> None:
    """Damage a file. Raises FileNotFoundError when there is none."""
    chance, content = Random(variant), file.read_bytes()
    changed = flipped(content, chance) if how == "flips" else lost(content, chance)
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
