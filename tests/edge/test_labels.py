"""Which names a model's card may give its expressions."""

import json
import re

import jsonschema
import pytest

from edge.labels import FER2013_LABELS, LABEL, RESERVED, label_problem
from tests.conftest import ROOT


@pytest.mark.parametrize("labels", [FER2013_LABELS, FER2013_LABELS[::-1], ("happy", "neutral"), ("a", "x_1-b")])
def test_possible_labels(labels: tuple[str, ...]) -> None:
    assert label_problem(labels) == ""


@pytest.mark.parametrize("word", RESERVED)
def test_words_that_stand_for_no_expression_are_refused(word: str) -> None:
    assert "reserved" in label_problem(("happy", word))


@pytest.mark.parametrize("label", ["happy", "a", "very-happy", "Happy", "7", "", "x" * 33, "glücklich", "a b"])
def test_the_schemas_of_messages_take_the_same_names(label: str) -> None:
    schema = json.loads((ROOT / "docs" / "state.schema.json").read_text())
    state = {"faces": 1, "expression": label}
    fits = jsonschema.Draft202012Validator(schema).is_valid(state)
    assert fits == (re.fullmatch(LABEL, label) is not None) == (label_problem((label, "other")) == "")
    assert r"\Z" not in json.dumps(schema), "JavaScript does not know it"
