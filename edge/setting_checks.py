"""Checks of the settings file that give more helpful errors than the settings' types can."""

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


def reject_unknown_keys(
    file: Path, values: dict[str, Any], section: type[msgspec.Struct], prefix: str, whole: type[msgspec.Struct]
) -> None:
    """Raise SettingsError for the first key that a table has not.

    ``prefix`` is the table's name with a dot, ``whole`` the type of all settings.
    """
    types = get_type_hints(section, include_extras=True)
    for key, value in values.items():
        if key not in types:
            hint = _REMOVED_KEYS.get(f"{prefix}{key}") or nearest(key[:100], types, prefix)
            if tables := _tables_with(key, whole):
                # Above the first table there are no keys, so nothing else can be meant.
                hint = f"{hint} ({tables} has a key of this name)" if prefix else f"it belongs below {tables}"
            raise settings_error(file, f"unknown key {prefix}{key}; {hint}")
        if isinstance(value, dict) and isinstance(types[key], type) and issubclass(types[key], msgspec.Struct):
            reject_unknown_keys(file, value, types[key], f"{prefix}{key}.", whole)


def _tables_with(key: str, whole: type[msgspec.Struct]) -> str:
    """The tables that have a key, as a file names them; empty when none has it."""
    found = []
    for table, kind in get_type_hints(whole).items():
        repeated = get_args(kind)
        if key in get_type_hints(repeated[0] if repeated else kind):
            found.append(f"[[{table}]]" if repeated else f"[{table}]")
    return " or ".join(found)


def check_presets(file: Path, presets: Any, preset_type: type[msgspec.Struct], whole: type[msgspec.Struct]) -> None:
    """Check keys and names, for more helpful errors than the types give; the types check the rest."""
    _require_two_brackets(file, presets, "preset")
    if not isinstance(presets, list):
        return
    names = []
    for number, preset in enumerate(presets):
        if not isinstance(preset, dict):
            continue
        reject_unknown_keys(file, preset, preset_type, f"preset[{number}].", whole)
        if preset.get("name") in _EVENT_KINDS:
            raise settings_error(file, f"preset[{number}].name: {preset['name']} is an event already")
        names.append(preset.get("name"))
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise settings_error(file, f"two presets have the name {duplicate!r}")


def check_ignored(file: Path, detect: Any, ignore_type: type[msgspec.Struct], whole: type[msgspec.Struct]) -> None:
    """Check the keys of the ignored parts, and that these lie in the picture; the types check the rest."""
    parts = detect.get("ignore") if isinstance(detect, dict) else None
    _require_two_brackets(file, parts, "detect.ignore")
    for number, part in enumerate(parts if isinstance(parts, list) else ()):
        if not isinstance(part, dict):
            continue
        name = f"detect.ignore[{number}]"
        reject_unknown_keys(file, part, ignore_type, f"{name}.", whole)
        for first, length in (("left", "width"), ("top", "height")):
            shares = [s for s in (part.get(first), part.get(length)) if isinstance(s, int | float) and 0 <= s <= 1]
            if sum(shares) > 1 + 1e-9:
                raise settings_error(file, f"{name}: {first} + {length} is above 1: it leaves the picture")


def _require_two_brackets(file: Path, value: Any, table: str) -> None:
    if isinstance(value, dict):
        raise settings_error(file, f"[{table}]: write [[{table}]], with two brackets, because there may be several")


def settings_error(file: Path, text: str) -> SettingsError:
    """An error about a settings file. A value of thousands of characters is not repeated whole."""
    short = text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR // 2]} ... {text[-_LONGEST_ERROR // 2 :]}"
    return SettingsError(f"{file}: {short}")
