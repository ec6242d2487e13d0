"""The pages that users read, taken apart: blocks, commands, links, headings, tables."""

import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


@dataclass(frozen=True)
class Block:
    """A code block of a page; ``language`` is empty when the page names none."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks() -> list[Block]:
    """All code blocks of all pages, fenced or indented."""
    return [
        Block(name_of(page), (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for page in PAGES
        for token in tokens(page)
        if token.type in ("fence", "code_block")
    ]


def commands_of(block: Block) -> list[str]:
    """The commands of a console block: what follows ``$ ``, without the remark behind."""
    lines = (line[2:] for line in block.text.splitlines() if line.startswith("$ "))
    return [re.sub(r"\s+#\s.*$", "", line).strip() for line in lines]


def commands() -> dict[str, list[str]]:
    """Every command of the pages, and where it stands."""
    found: dict[str, list[str]] = {}
    for block in blocks():
        if block.language == "console":
            for command in commands_of(block):
                found.setdefault(command, []).append(str(block))
    return found


def links(page: Path) -> list[str]:
    """The targets of all links and pictures of a page."""
    inline = [child for token in tokens(page) if token.children for child in token.children]
    return [
        str(link.attrs.get("href") or link.attrs.get("src")) for link in inline if link.type in ("link_open", "image")
    ]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    parsed = tokens(page)
    headings = (after.children for before, after in itertools.pairwise(parsed) if before.type == "heading_open")
    seen: dict[str, int] = {}
    names = set()
    for children in headings:
        words = "".join(child.content for child in children or () if child.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        names.add(f"{slug}-{number}" if number else slug)
    return names


def rows(page: Path, first: str) -> list[list[str]]:
    """The rows, without head, of the page's only table whose first head is ``first``; cells as they are written."""
    [table] = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
