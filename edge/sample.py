"""The commented sample of the settings file, made from edge/settings.py: its docstrings are the only description.

``python -m edge.sample > systemd/config.toml`` writes the sample that is installed.
"""

import ast
import inspect
import json
import textwrap
from typing import Any

from edge import settings

_HEAD = """\
# Settings of fer-edge. Every key may be left out; what stands here, commented out, is the default.
# Take effect with: systemctl restart fer-edge
"""
_PRESET = settings.Preset(name="smile", expression="happy", for_seconds=1.5)


def sample() -> str:
    """The whole file as TOML; with every ``#key`` line uncommented it still gives the defaults."""
    described = {
        node.name: node for node in ast.parse(inspect.getsource(settings)).body if isinstance(node, ast.ClassDef)
    }
    everything = settings.Settings()
    tables = [
        _example(described["Preset"], _PRESET)
        if name == "preset"
        else _table(described[type(getattr(everything, name)).__name__], name, getattr(everything, name))
        for name in everything.__struct_fields__
    ]
    return "\n".join((_HEAD, *tables))


def _table(described: ast.ClassDef, name: str, section: settings.Section) -> str:
    about = (ast.get_docstring(described) or "").partition(": ")[2]
    lines = [*_comment(about[:1].upper() + about[1:]), f"[{name}]"]
    told = _field_docstrings(described)
    for key in section.__struct_fields__:
        lines += [*_comment(told.get(key, "")), f"#{key} = {_toml(getattr(section, key))}"]
    return "\n".join(lines) + "\n"


def _example(described: ast.ClassDef, preset: settings.Preset) -> str:
    """Tables of which there may be any number are shown by an example."""
    about = (ast.get_docstring(described) or "").partition(": ")[2]
    told = _field_docstrings(described)
    lines = [*_comment(about[:1].upper() + about[1:]), "# Such as:", "#", "# [[preset]]"]
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
    print(sample(), end="")
