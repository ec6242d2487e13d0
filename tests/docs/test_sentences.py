"""The pages are read by people in a hurry, often in their second language: their sentences are short."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, name_of, tokens

LONGEST = 24
"""Words. A name in backquotes counts as one word, whatever is in it."""

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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if str(page.parent.relative_to(ROOT)) not in KEPT], ids=name_of
)
def test_sentences_are_short(page: Path) -> None:
    assert [f"{words} words: {text}" for text in sentences(page) if (words := length(text)) > LONGEST] == []
