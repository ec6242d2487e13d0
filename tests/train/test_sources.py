"""What a network was made of, told by runs and cards of this program and of earlier ones."""

import json
from pathlib import Path

import pytest

from edge.model.bundle import bundled, find_bundle, read_card
from edge.model.origin import Source
from train.sources import (
    OUR_LICENCE,
    as_teacher,
    data_source,
    distinct,
    earlier_sources,
    prefixed,
    sources_of_earlier_card,
    sources_of_lines,
)

ONE, TWO, THREE, FOUR = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
PUBLISHED = (
    "npm @vladmandic/human 3.3.6 models/faceres (HSE-FaceRes, MobileNetV1, MIT package; trained on VGGFace2; take it "
    f"as for research); faceres.json sha256 {ONE}; faceres.bin sha256 {TWO}"
)
VOTES = f"FERPlus fer2013new.csv, sha256 {THREE}"
RUN = (
    "fer-train run student --data fer2013.csv --weights faceres.json "
    f"(PublicTest 68.74%; weights: {PUBLISHED}; votes: {VOTES})"
)
BUNDLE = (
    f"int8 bundle student (PublicTest 69.63%; sha256 {FOUR}) of: "
    f"fer-train run student --data fer2013.csv --weights student-1 (weights: {RUN})"
)
GROWN = f"fer-train run teacher --data fer2013.csv (no epoch measured; weights: grown from: {BUNDLE}; votes: {VOTES})"


def test_a_line_of_an_earlier_program_becomes_a_flat_list() -> None:
    found = earlier_sources(GROWN)
    assert [(one.role, one.name, one.sha256) for one in found] == [
        ("start", "run teacher", None),
        ("start", "int8 bundle student", FOUR),
        ("start", "run student", None),
        ("start", "faceres.json", ONE),
        ("start", "faceres.bin", TWO),
        ("data", "fer2013new.csv", THREE),
    ]
    assert found[0].source == "fer-train run teacher --data fer2013.csv (no epoch measured)"
    assert found[1].source == "fer-train run student --data fer2013.csv --weights student-1 (PublicTest 69.63%)"
    assert (found[3].source or "").startswith("npm @vladmandic/human 3.3.6")
    assert "none stated for the weights" in (found[4].licence or "")
    assert earlier_sources("random") == ()


def test_what_an_earlier_line_does_not_say_is_unknown() -> None:
    line = f"fer-train run co-teacher (PublicTest 1.00%; weights: somebody's; mine.h5 sha256 {ONE}; votes: none)"
    assert earlier_sources(line)[1] == Source("start", "mine.h5", None, None, ONE)


def test_the_bank_of_an_earlier_teacher_and_what_the_teacher_was_made_of_are_listed_once() -> None:
    data = data_source("FER2013 Training", TWO, 3, 0)
    found = sources_of_lines(BUNDLE, [f"{RUN}; logits sha256 {THREE}", f"{GROWN}; logits sha256 {ONE}"], VOTES, data)
    assert [(one.role, one.name) for one in found] == [
        ("start", "int8 bundle student"),
        ("start", "run student"),
        ("start", "faceres.json"),
        ("start", "faceres.bin"),
        ("teacher", "view bank of run student"),
        ("teacher", "view bank of run teacher"),
        ("teacher", "run teacher"),
        ("data", "fer2013new.csv"),
        ("data", "FER2013 Training"),
    ]
    assert (found[4].sha256, found[5].sha256) == (THREE, ONE)


def test_a_teachers_own_start_is_a_teachers() -> None:
    network, start, data = Source("start", "run x", "made"), Source("start", "x.h5"), data_source("Training", ONE, 0, 2)
    found = as_teacher((network, start, data), TWO)
    assert [one.role for one in found] == ["teacher", "teacher", "teacher", "data"]
    assert found[0] == Source("teacher", "view bank of run x", "fer-train bank, of: made", OUR_LICENCE, TWO)
    assert found[3].source == "without 0 pictures that other splits hold too and without 2 bad rows"
    assert as_teacher((), TWO) == (Source("teacher", "view bank", None, OUR_LICENCE, TWO),)


def test_a_share_is_told_of_the_network_alone_and_things_are_listed_once() -> None:
    network, start = Source("start", "run x", "made"), Source("start", "x.h5")
    found = prefixed((network, start), "0.25 of:")
    assert [one.source for one in found] == ["0.25 of: made", None]
    taught = Source("teacher", "x.h5")
    assert distinct((data_source("Training", ONE, 0, 0), taught, start, start)) == (
        start,
        data_source("Training", ONE, 0, 0),
    )


def test_what_has_one_name_and_sha256_is_listed_once_as_it_is_told_first() -> None:
    """A member of a mean is also what another member was trained from."""
    member, start = Source("start", "run x", "0.25 of: made", None, ONE), Source("start", "run x", "made", None, ONE)
    other = Source("start", "run x", "made", None, TWO)
    assert distinct((member, start, other)) == (member, other)


@pytest.mark.parametrize("name", bundled())
def test_bundled_cards_list_their_sources_flat(name: str) -> None:
    card = read_card(find_bundle(name))
    assert card.schema_version == 5
    assert (card.origin.init, card.origin.teachers, card.origin.training_data) == ("", (), "")
    assert {one.role for one in card.origin.sources} == {"start", "teacher", "data"}
    assert all("weights:" not in (one.source or "") for one in card.origin.sources)
    files = {one.name: one for one in card.origin.sources}
    assert files["faceres.json"].sha256 == "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df"
    assert card.origin.training_sha256 in {one.sha256 for one in card.origin.sources if one.role == "data"}
    assert len(set(card.origin.sources)) == len(card.origin.sources)


def test_the_lines_of_a_card_of_version_4_become_its_sources(tmp_path: Path) -> None:
    stored = json.loads((find_bundle("student") / "card.json").read_text())
    lines = {
        "init": BUNDLE,
        "teachers": [f"{RUN}; logits sha256 {THREE}"],
        "training_data": f"FER2013 Training, without 351 pictures that other splits hold too; votes: {VOTES}",
    }
    origin = {key: value for key, value in stored["origin"].items() if key != "sources"} | lines
    (tmp_path / "card.json").write_text(json.dumps(stored | {"schema_version": 4, "origin": origin}))
    card = read_card(tmp_path)
    assert card.origin.sources == ()
    found = sources_of_earlier_card(card.origin)
    assert [one.name for one in found] == [
        "int8 bundle student",
        "run student",
        "faceres.json",
        "faceres.bin",
        "view bank of run student",
        "fer2013new.csv",
        "FER2013 Training",
    ]
    assert found[-1].source == "without 351 pictures that other splits hold too"
    assert found[-1].sha256 == card.origin.training_sha256
