"""Checks of the settings file that give more helpful errors than the settings' types can."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec

from edge.errors import SettingsError, nearest

# As edge.records.EventKind, which is not imported: doctor must work without numpy and OpenCV.
_EVENT_KINDS: Final = ("appeared", "changed", "uncertain", "preset", "left")

_REMOVED_KEYS: Final = {
    "detect.width": "remove it: detect.min_face alone says how small a face may be, as a share of the shorter side"
}
_LONGEST_ERROR: Final = 400  # characters


def reject_unknown_keys(file: Path, values: dict[str, Any], whole: type[msgspec.Struct]) -> None:
    """Raise SettingsError for the first key that its table has not; ``whole`` is the type of all settings."""
    for prefix, table, kind in _tables(file, values, whole):
        known = get_type_hints(kind)
        for key in table:
            if key not in known:
                hint = _REMOVED_KEYS.get(f"{prefix}{key}") or nearest(key[:100], known, prefix)
                if tables := _tables_with(key, whole):
                    # Above the first table there are no keys, so nothing else can be meant.
                    hint = f"{hint} ({tables} has a key of this name)" if prefix else f"it belongs below {tables}"
                raise settings_error(file, f"unknown key {prefix}{key}; {hint}")


def _tables(
    file: Path, table: dict[str, Any], kind: type[msgspec.Struct], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any], type[msgspec.Struct]]]:
    """A table and all tables in it, each with what its keys' names begin with, and with its type.

    Raises SettingsError for a table of which there may be several, when it stands in one pair of brackets.
    """
    yield prefix, table, kind
    for key, hint in get_type_hints(kind).items():
        name, value, repeated = f"{prefix}{key}", table.get(key), _repeated(hint)
        if repeated and isinstance(value, dict):
            raise settings_error(file, f"[{name}]: write [[{name}]], with two brackets, because there may be several")
        if repeated and isinstance(value, list):
            for number, one in enumerate(value):
                if isinstance(one, dict):
                    yield from _tables(file, one, repeated, f"{name}[{number}].")
        elif isinstance(value, dict) and isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _tables(file, value, hint, f"{name}.")


def _repeated(hint: Any) -> type[msgspec.Struct] | None:
    """The type of each table, for the type of a key that has any number of tables; None for any other."""
    first = next(iter(get_args(hint)), None)
    return first if isinstance(first, type) and issubclass(first, msgspec.Struct) else None


def _tables_with(key: str, whole: type[msgspec.Struct]) -> str:
    """The tables that have a key, as a file names them; empty when none has it."""
    found = []
    for table, kind in get_type_hints(whole).items():
        repeated = _repeated(kind)
        if key in get_type_hints(repeated or kind):
            found.append(f"[[{table}]]" if repeated else f"[{table}]")
    return " or ".join(found)


def check_presets(file: Path, presets: Any) -> None:
    """Raise SettingsError for a preset's name that is an event's, or another preset's; the types check the rest."""
    names = []
    for number, preset in enumerate(presets if isinstance(presets, list) else ()):
        name = preset.get("name") if isinstance(preset, dict) else None
        if name in _EVENT_KINDS:
            raise settings_error(file, f"preset[{number}].name: {name} is an event already")
        names.append(name)
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise settings_error(file, f"two presets have the name {duplicate!r}")


def check_ignored(file: Path, detect: Any) -> None:
    """Raise SettingsError for an ignored part that leaves the picture; the types check the rest."""
    parts = detect.get("ignore") if isinstance(detect, dict) else None
    for number, part in enumerate(parts if isinstance(parts, list) else ()):
        if not isinstance(part, dict):
            continue
        for first, length in (("left", "width"), ("top", "height")):
            shares = [s for s in (part.get(first), part.get(length)) if isinstance(s, int | float) and 0 <= s <= 1]
            if sum(shares) > 1 + 1e-9:
                sentence = f"detect.ignore[{number}]: {first} + {length} is above 1: it leaves the picture"
                raise settings_error(file, sentence)


def settings_error(file: Path, text: str) -> SettingsError:
    """An error about a settings file. A value of thousands of characters is not repeated whole."""
    short = text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR // 2]} ... {text[-_LONGEST_ERROR // 2 :]}"
    return SettingsError(f"{file}: {short}")
