"""Damaged inputs: each follows from the name of its target, a seed and its number alone."""

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any, Final

_CHANGES: Final = (1, 1, 1, 1, 2, 4)
_LONGEST_RUN: Final = 40
_VALUES: Final = (
    *(None, True, -1, 0, 1e308, 1e-320, 2**63, -(2**63), 10**30, float("inf"), float("nan")),
    *("", "x" * 300, "\0", [], {}, [1e9], {"1": []}),
)
_TOKEN: Final = re.compile(rb"[\w.+-]+")


def damaged(key: str, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of ``seeds`` with a few changes: other bytes, runs cut out, doubled or moved, ``words`` put in, other values.

    ``key`` decides everything.
    """
    chance = Random(key)
    content = bytearray(chance.choice(seeds))
    if content[:1] == b"{" and chance.random() < 0.5:
        return _other_values(bytes(content), chance)
    for _ in range(chance.choice(_CHANGES)):
        _change(content, chance, words)
    return bytes(content)


def _change(content: bytearray, chance: Random, words: Sequence[bytes]) -> None:
    start = chance.randint(0, len(content))
    run = slice(start, start + chance.randint(1, _LONGEST_RUN))
    match chance.randrange(11):
        case 0 if start < len(content):
            content[start] ^= 1 << chance.randrange(8)
        case 1:
            content[run] = chance.randbytes(chance.randint(1, 8))
        case 2:
            del content[run]
        case 3:
            del content[start:]
        case 4:
            content[start:start] = content[run] * chance.choice((1, 2, 50))
        case 5:
            moved = content[run]
            del content[run]
            place = chance.randint(0, len(content))
            content[place:place] = moved
        case 6 | 7 | 8 if token := _TOKEN.search(content, start):
            content[slice(*token.span())] = chance.choice((*words, b"%d" % chance.randint(-9, 300), token[0] * 2))
        case 9:
            content[run] = chance.choice(words)
        case _:
            content[start:start] = chance.choice(words)


def _other_values(content: bytes, chance: Random) -> bytes:
    """Lines of JSON in which one value, at any depth, is another."""
    lines = content.splitlines()
    number = chance.randrange(len(lines))
    try:
        line = json.loads(lines[number])
    except ValueError:
        return content
    part: Any = line
    while isinstance(part, dict | list) and part:
        key = chance.choice(sorted(part)) if isinstance(part, dict) else chance.randrange(len(part))
        if not isinstance(part[key], dict | list) or not part[key] or chance.random() < 0.3:
            part[key] = _value(chance)
            break
        part = part[key]
    lines[number] = json.dumps(line).encode()
    return b"\n".join(lines) + b"\n"


def _value(chance: Random) -> Any:
    drawn = (chance.uniform(-2, 2), chance.randint(-300, 300), chance.choice(_VALUES))
    return chance.choice(drawn)
