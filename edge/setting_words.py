"""What a key of the settings file takes, in words: for the reference, and for the error about another value."""

import json
from typing import Any

import msgspec
from msgspec import inspect as types

from edge.setting_types import FILE_NAME, PATTERN_WORDS, PRINTABLE


def wrong_value(mistake: str, values: Any, settings: type[msgspec.Struct]) -> str:
    """The sentence about a wrong value, for the sentence of msgspec's ValidationError about the ``values`` of a file.

    It names the key, what that takes, and the value. Of a text that is not as it should be, only the rule is named: it
    may be an address with a password. Of tables, msgspec's own sentence says enough.
    """
    path = mistake.rpartition(" - at `$.")[2].rstrip("`")
    kind: types.Type = types.type_info(settings)
    for part in path.split("."):
        key, _, index = part.rstrip("]").partition("[")
        if not isinstance(kind, types.StructType) or not isinstance(values, dict) or key not in values:
            break
        kind, values = next(field.type for field in kind.fields if field.encode_name == key), values[key]
        if index and isinstance(kind, types.VarTupleType):
            kind, values = kind.item_type, values[int(index)]
        elif index:  # one of two numbers is wrong
            path = path.removesuffix(f"[{index}]")
    if isinstance(kind, types.StrType) and kind.pattern == FILE_NAME and str(values).startswith("~"):
        return f"{path}: give the whole path in place of ~, which is another folder for the service than for you"
    if isinstance(kind, types.StrType) and not isinstance(values, str):
        return f"{path} takes text in quotation marks"  # what stands there may be a password
    if isinstance(kind, types.StrType) and kind.min_length and not values:
        return f"{path} is empty: give a value, or remove the line"
    if isinstance(kind, types.StructType | types.VarTupleType | types.StrType):
        return _in_words(mistake)
    try:
        return f"{path} takes {accepted_values(kind)}, not {toml(values)}"
    except ValueError:  # Python writes no number of thousands of digits, which hexadecimal ones may have
        return _in_words(mistake)


def _in_words(mistake: str) -> str:
    """The sentence of a ValidationError without its notation."""
    for pattern, words in PATTERN_WORDS.items():
        mistake = mistake.replace(f"`str` matching regex {pattern!r}", words)
    return mistake.replace("$.", "")


def accepted_values(kind: types.Type) -> str:
    """The values that a key accepts, in words."""
    match kind:
        case types.BoolType():
            words = "`true` or `false`"
        case types.LiteralType(values=values):
            words = " or ".join(f"`{toml(value)}`" for value in values)
        case types.IntType():
            words = f"a whole number{_range(kind)}"
        case types.FloatType():
            words = f"a number{_range(kind)}"
        case types.StrType(pattern=str(pattern)) if pattern != PRINTABLE:
            words = PATTERN_WORDS[pattern]
        case types.StrType(min_length=least, max_length=most):
            words = f"text{', not empty' if least else ''}{f', up to {most} characters' if most else ''}"
        case types.TupleType(item_types=items):
            words = f"a list of {len(items)}, each {accepted_values(items[0])}"
        case types.UnionType(types=choices):
            words = ", or ".join(accepted_values(choice) for choice in choices)
        case _:
            raise TypeError(f"no words for {kind}")
    return words


def _range(kind: types.IntType | types.FloatType) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    bounds = [
        f"{word} {_number(getattr(kind, name))}" for name, word in words.items() if getattr(kind, name) is not None
    ]
    return f" {' '.join(bounds)}" if bounds else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def toml(value: Any) -> str:
    """The value as TOML writes it, for which JSON's strings, numbers, booleans and lists are valid; dates are not.

    Characters stand for themselves, except those that nobody sees. JSON would escape those beyond U+FFFF as two
    surrogates, which TOML forbids.
    """
    text = json.dumps(value, default=str, ensure_ascii=False)
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
