"""The pages are read by people in a hurry, often in their second language: their sentences are short."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, name_of, tokens

LONGEST = 24
"""Words. A name in backquotes counts as one word, whatever is in it."""

NOT_HELD = frozenset(
    f"docs/{name}"
    for name in (
        "accuracy.md",
        "configuration.md",
        "device-models.md",
        "edge-tpu.md",
        "events.md",
        "model-guide.md",
        "models.md",
        "mqtt.md",
        "performance.md",
        "reliability.md",
        "training.md",
    )
)
"""Pages that are still to be shortened. Remove a page from here when it is."""

KEPT = frozenset(("docs/history", "docs/experiments"))
"""Folders of notes that are kept as they were written."""


def sentences(page: Path) -> list[str]:
    """The sentences of paragraphs, list items, headings and table cells."""
    found = []
    for token in tokens(page):
        if token.type == "inline":
            words = {"softbreak": " ", "code_inline": "`code`"}
            text = "".join(words.get(child.type, child.content) for child in token.children or ())
            found += re.split(r"(?<=[.!?])[\")*]*\s+", text)
    return found


def length(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) not in NOT_HELD], ids=name_of)
def test_sentences_are_short(page: Path) -> None:
    if str(page.parent.relative_to(ROOT)) in KEPT:
        return
    assert [f"{words} words: {text}" for text in sentences(page) if (words := length(text)) > LONGEST] == []


def test_pages_that_are_not_held_need_it() -> None:
    short = {
        name_of(page) for page in PAGES if all(length(sentence) <= LONGEST for sentence in sentences(page))
    } & NOT_HELD
    assert short == set(), "take them out of NOT_HELD"
