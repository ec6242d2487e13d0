"""The threat model: each line names a test that exists, or says why there is none."""

import ast
import re

import pytest

from tests.conftest import ROOT

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PARTIES = ("broker", "publish", "camera", "metrics", "preview", "service's user", "technician", "thief")


def rows(page: str) -> list[list[str]]:
    """The cells of each row of the tables, without their heads."""
    lines = [line for line in page.splitlines() if re.match(r"\| (can|cannot) ", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "can or cannot" not in line]


def faults(row: list[str]) -> list[str]:
    """What is wrong with a row: it names no test, or one that does not exist."""
    can, what, test = row
    named = _NAMED.findall(test)
    if not named and (can == "cannot" or not test.startswith("none: ")):
        return [f"{what}: no test"]
    return [f"{what}: {file}::{name} does not exist" for file, name in named if name not in functions(file)]


def functions(file: str) -> set[str]:
    if not (ROOT / file).is_file():
        return set()
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


PAGE = (ROOT / "docs" / "threat-model.md").read_text()


@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row[1][:40])
def test_each_line_names_a_test_that_exists(row: list[str]) -> None:
    assert faults(row) == []


def test_each_party_has_lines() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert all(rows(section) for section in sections)
    heads = " ".join(section.splitlines()[0].lower() for section in sections)
    assert [party for party in _PARTIES if party not in heads] == []


@pytest.mark.parametrize(
    "row",
    [
        "| cannot | open it | none: too hard |",
        "| cannot | open it | `tests/docs/test_threat_model.py::test_x` |",
        "| can | open it | |",
        "| can | open it | `tests/absent.py::test_x` |",
    ],
)
def test_a_line_without_a_test_is_found(row: str) -> None:
    [cells] = rows(row)
    assert len(faults(cells)) == 1
