"""Extreme values for every key of the settings; keys and values follow from the settings' own types."""

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import inspect

from edge.camera.sources import DemoSource
from edge.errors import SettingsError
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.pipeline import make_pipeline
from edge.settings import CameraSettings, Section, Settings, load_settings

LONGEST_TEXT = 4096
REMEDY = (
    "Give the key a type of edge/settings.py that has bounds, such as Seconds, Count, Share, Text, FileName or Host, "
    "or Annotated[float, Meta(ge=..., le=...)] with the values that make sense for a user"
)
SETTINGS_FILE = Path("config.toml")


class Key(NamedTuple):
    """A key of the settings file; ``required`` are the lines that its table needs beside it."""

    table: str
    name: str
    kind: inspect.Type
    required: str = ""

    def file(self, value: str) -> str:
        """A settings file in which this key has a value, as TOML writes it."""
        return f"{self.table}\n{self.required}{self.name} = {value}\n"


def keys() -> Iterator[Key]:
    for table in fields(Settings):
        if isinstance(table.type, inspect.StructType):
            for field in table.type.fields:
                if isinstance(field.type, inspect.VarTupleType):
                    yield from keys_of_repeated(f"{table.name}.{field.name}", field.type)
                else:
                    yield Key(f"[{table.name}]", field.name, field.type)
        else:
            yield from keys_of_repeated(table.name, table.type)


REQUIRED = {"name": '"smile"', "expression": '"happy"', "left": 0, "top": 0, "width": 0.1, "height": 0.1}


def keys_of_repeated(table: str, kind: inspect.Type) -> Iterator[Key]:
    element = element_of(kind)
    assert isinstance(element, inspect.StructType), f"{table}: {REMEDY}"
    for field in element.fields:
        others = [other.name for other in element.fields if other.required and other.name != field.name]
        yield Key(f"[[{table}]]", field.name, field.type, "".join(f"{name} = {REQUIRED[name]}\n" for name in others))


def fields(kind: type[Section]) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described.fields


def element_of(kind: inspect.Type) -> inspect.Type:
    assert isinstance(kind, inspect.VarTupleType | inspect.ListType)
    assert kind.max_length, f"a list of any length. {REMEDY}"
    return kind.item_type


def leaves(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The simple types that a type is made of."""
    match kind:
        case inspect.UnionType(types=parts) | inspect.TupleType(item_types=parts):
            for part in parts:
                yield from leaves(part)
        case inspect.VarTupleType() | inspect.ListType():
            yield from leaves(element_of(kind))
        case _:
            yield kind


KEYS = list(keys())
every_key = pytest.mark.parametrize("key", KEYS, ids=[f"{key.table}{key.name}" for key in KEYS])


def bounds(kind: inspect.IntType | inspect.FloatType) -> tuple[float | None, float | None]:
    lowest = kind.ge if kind.ge is not None else kind.gt
    return lowest, kind.le if kind.le is not None else kind.lt


@every_key
def test_every_key_has_finite_bounds_in_its_type(key: Key) -> None:
    where = f"{key.table} {key.name}"
    for kind in leaves(key.kind):
        match kind:
            case inspect.BoolType() | inspect.LiteralType():
                pass
            case inspect.IntType() | inspect.FloatType():
                for bound in bounds(kind):
                    assert math.isfinite(math.inf if bound is None else bound), (
                        f"{where}: has no finite bounds. {REMEDY}"
                    )
                assert kind.gt != 0, f"{where}: 1e-320 is above 0, and dividing by it overflows. {REMEDY}"
            case inspect.StrType(pattern=str(pattern), max_length=int(length)):
                assert length <= LONGEST_TEXT, f"{where}: {length} characters are too many. {REMEDY}"
                for character in "\0\n\x7f":
                    for text in (character, f"a{character}a", f"a{character}"):
                        assert not re.search(pattern, text), f"{where}: accepts {text!r}. {REMEDY}"
            case inspect.StrType():
                pytest.fail(f"{where}: text of any length, or with control characters. {REMEDY}")
            case _:
                pytest.fail(f"{where}: this test knows no bounds of {kind}. Teach it, or use another type")


HOSTILE = {
    "9" * 4300,
    "9" * 4301,
    "-" + "9" * 4000,
    "[" * 3000 + "]" * 3000,
    "[" * 3000,
    "{a=" * 900 + "1" + "}" * 900,
    "inf",
    "-inf",
    "nan",
    "1e308",
    "-1e308",
    "1e-320",
    json.dumps("x" * 70_000),
    '"\\u0000"',
    '"a\\nb"',
    '"' + "%s%n{0}" * 4 + '"',
    '"../../x"',
    '"http://[bad/"',
    "1979-05-27T07:32:00Z",
    "",
}


@every_key
def test_every_key_refuses_a_hostile_value_by_its_name_or_takes_it(tmp_path: Path, key: Key) -> None:
    file = tmp_path / SETTINGS_FILE
    for value in HOSTILE:
        file.write_text(key.file(value))
        try:
            load_settings(file)
        except SettingsError as error:
            said = str(error)
            assert "not valid TOML" in said or key.name in said, said
            assert len(said) < 1000, f"{key.name}: the error repeats the value"


def test_a_file_that_would_take_long_to_parse_is_no_settings_file(tmp_path: Path) -> None:
    file = tmp_path / SETTINGS_FILE
    file.write_text("# \n" * 40_000)
    with pytest.raises(SettingsError, match="larger than 100,000 bytes"):
        load_settings(file)
    file.write_text("a." * 40_000 + "a = 1")
    with pytest.raises(SettingsError, match="a line has more than 200 dots"):
        load_settings(file)


@pytest.mark.parametrize("address", ["../../x", "a/b", "a b", "a" * 64, "a..b", "\u00fc" * 70, "-" * 300, "[::1]"])
def test_an_address_is_a_host_name_or_an_ip_address(tmp_path: Path, address: str) -> None:
    file = tmp_path / SETTINGS_FILE
    for table, key in (("mqtt", "host"), ("metrics", "address")):
        file.write_text(f"[{table}]\n{key} = {json.dumps(address)}\n")
        with pytest.raises(SettingsError, match=rf"{table}\.{key}"):
            load_settings(file)


@pytest.mark.parametrize("address", ["::", "::1", "fe80::1%eth0", "10.0.0.1", "broker", "my_broker.local", "a.b.c."])
def test_usual_addresses_are_accepted(tmp_path: Path, address: str) -> None:
    (tmp_path / SETTINGS_FILE).write_text(f'[mqtt]\nhost = "{address}"\n[metrics]\naddress = "{address}"\n')
    assert load_settings(tmp_path / SETTINGS_FILE).mqtt.host == address


def extreme(settings: Any, end: int) -> Any:
    """A table in which every number has the lowest (0) or the highest (1) value of its type."""
    changes = {}
    for field in fields(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Section):
            changes[field.name] = extreme(value, end)
            continue
        for kind in leaves(field.type):
            if isinstance(kind, inspect.IntType | inspect.FloatType) and not isinstance(value, tuple):
                changes[field.name] = within(kind, end)
    return msgspec.structs.replace(settings, **changes)


def within(kind: inspect.IntType | inspect.FloatType, end: int) -> float:
    value = bounds(kind)[end]
    assert value is not None
    excluded = (kind.gt, kind.lt)[end] is not None
    if not excluded:
        return value
    step = 1 if isinstance(kind, inspect.IntType) else 1e-9
    return value - step if end else value + step


@pytest.mark.parametrize("end", [0, 1], ids=["lowest", "highest"])
def test_the_pipeline_works_with_the_extremes_of_all_keys(end: int) -> None:
    settings = extreme(Settings(), end)
    assert msgspec.convert(msgspec.to_builtins(settings), Settings) == settings, "these values are accepted"
    pipeline = make_pipeline(settings, Classifier(open_bundle(find_bundle("student-small"))))
    assert len(list(pipeline.run(islice(DemoSource().frames(), 60, 66)))) == 6, "frames with a face"


def test_a_key_without_bounds_is_found() -> None:
    class Careless(CameraSettings, frozen=True):
        zoom: float = 1.0

    key = Key("[camera]", "zoom", fields(Careless)[-1].type)
    with pytest.raises(AssertionError, match=r"\[camera\] zoom: has no finite bounds. Give the key a type"):
        test_every_key_has_finite_bounds_in_its_type(key)
