"""The commented sample of the settings file and its reference, made from the types and docstrings of edge/settings.py.

``python -m edge.cli.reference > systemd/config.toml`` writes the sample that is installed, and
``python -m edge.cli.reference --markdown > docs/configuration.md`` the page that lists every key.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from typing import Any, Final

from msgspec import inspect as types

from edge import settings

_HEAD = """\
# Settings of fer-edge. Every key may be left out; what stands here, commented out, is the default.
# Take effect with: systemctl restart fer-edge
"""
_PRESET = settings.Preset(name="smile", expression="happy", for_seconds=1.5)
_PAGE: Final = """\
# Configuration

<!-- Written by `make sample` from edge/settings.py; change it there. -->

The service reads `/etc/fer-edge/config.toml`, and so do `fer-edge model` and `fer-edge verify` where it is there; any
other command reads the file that `--config` names, or takes the defaults. The file is TOML. Every table and key may be
left out. A key that is not known, or a value out of its range, ends the program with exit code 3 and a sentence that
names it. Changes take effect with `sudo systemctl restart fer-edge`, or by the [command](mqtt.md#commands) `reload`.

A [sample](../systemd/config.toml) with every key commented is what `fer-edge service install` puts there.
"""


def sample() -> str:
    """The whole file as TOML; with every ``#key`` line uncommented it still gives the defaults."""
    described = _classes()
    everything = settings.Settings()
    tables = [
        _example(described["Preset"], _PRESET)
        if name == "preset"
        else _table(described[type(getattr(everything, name)).__name__], name, getattr(everything, name))
        for name in everything.__struct_fields__
    ]
    return "\n".join((_HEAD, *tables))


def reference() -> str:
    """The whole reference as Markdown: a table for each table of the file, a row for each key."""
    described = _classes()
    sections = []
    for field in _fields(settings.Settings):
        several = field.encode_name == "preset"
        section = settings.Preset if several else type(field.default)
        name = f"[[{field.encode_name}]]" if several else f"[{field.encode_name}]"
        node = described[section.__name__]
        told = _field_docstrings(node)
        rows = "\n".join(
            f"| `{key.encode_name}` | {_described(key, told[key.encode_name])} |" for key in _fields(section)
        )
        sections.append(
            f"## {name}\n\n{_about(node)}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n{rows}\n"
        )
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", "\n".join((_PAGE, *sections)))


def _described(key: types.Field, meaning: str) -> str:
    default = "must be given" if key.required else f"`{_toml(key.default)}`"
    return f"{_takes(key.type)} | {default} | {meaning.replace(chr(10), ' ')}"


def _takes(kind: types.Type) -> str:
    """In words, what values a key takes."""
    match kind:
        case types.BoolType():
            words = "`true` or `false`"
        case types.LiteralType(values=values):
            words = " or ".join(f"`{_toml(value)}`" for value in values)
        case types.IntType():
            words = f"whole number{_range(kind)}"
        case types.FloatType():
            words = f"number{_range(kind)}"
        case types.StrType(pattern=str(pattern)):
            words = f"text like `{pattern}`"
        case types.StrType(min_length=least, max_length=most):
            words = f"text{', not empty' if least else ''}{f', up to {most} characters' if most else ''}"
        case types.TupleType(item_types=items):
            words = f"list of {len(items)}: {_takes(items[0])}"
        case types.UnionType(types=choices):
            words = " or ".join(_takes(choice) for choice in choices)
        case _:
            raise TypeError(f"no words for {kind}")
    return words


def _range(kind: types.IntType | types.FloatType) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    bounds = [f"{word} {getattr(kind, name):g}" for name, word in words.items() if getattr(kind, name) is not None]
    return f", {' '.join(bounds)}" if bounds else ""


def _fields(section: type[settings.Section]) -> tuple[types.Field, ...]:
    kind = types.type_info(section)
    assert isinstance(kind, types.StructType)
    return kind.fields


def _classes() -> dict[str, ast.ClassDef]:
    """The classes of edge/settings.py as they are written."""
    source = ast.parse(inspect.getsource(settings))
    return {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}


def _about(described: ast.ClassDef) -> str:
    """What a class says of its table, without the table's name."""
    about = (ast.get_docstring(described) or "").partition(": ")[2]
    return about[:1].upper() + about[1:]


def _table(described: ast.ClassDef, name: str, section: settings.Section) -> str:
    lines = [*_comment(_about(described)), f"[{name}]"]
    told = _field_docstrings(described)
    for key in section.__struct_fields__:
        lines += [*_comment(told.get(key, "")), f"#{key} = {_toml(getattr(section, key))}"]
    return "\n".join(lines) + "\n"


def _example(described: ast.ClassDef, preset: settings.Preset) -> str:
    """Tables of which there may be any number are shown by an example."""
    told = _field_docstrings(described)
    lines = [*_comment(_about(described)), "# Such as:", "#", "# [[preset]]"]
    for key in preset.__struct_fields__:
        lines.append(f"# {key} = {_toml(getattr(preset, key))}  # {told[key]}")
    return "\n".join(lines) + "\n"


def _field_docstrings(described: ast.ClassDef) -> dict[str, str]:
    """The string that follows each field, by the field's name."""
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(described.body, described.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 110)]


def _toml(value: Any) -> str:
    # For strings, numbers, booleans and lists of them, JSON is TOML.
    return json.dumps(value)


if __name__ == "__main__":
    print(reference() if sys.argv[1:] == ["--markdown"] else sample(), end="")
