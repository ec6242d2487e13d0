"""The documentation site: it builds strictly, loads nothing from outside, and a mistake in a page fails."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES

pytest.importorskip("mkdocs", reason="the docs extra is not installed")


def mkdocs_build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = mkdocs_build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs") for page in PAGES if page.is_relative_to(ROOT / "docs")}
    built = {page.relative_to(site) for page in site.rglob("*.html")}
    expected = {page.with_suffix(".html") if page.name != "README.md" else page.parent / "index.html" for page in pages}
    assert built - {Path("404.html")} == expected


class Assets(HTMLParser):
    """The addresses that a browser loads when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        if tag in ("script", "link", "img", "iframe", "source"):
            self.loaded += filter(None, (values.get("src"), values.get("href")))


def test_pages_load_nothing_from_outside(site: Path) -> None:
    for page in site.rglob("*.html"):
        assets = Assets()
        assets.feed(page.read_text())
        assert len(assets.loaded) > 3
        assert [address for address in assets.loaded if re.match(r"(https?:)?//", address)] == [], page.name
        # These would make the theme's own script ask GitHub, or fetch Mermaid.
        assert 'data-md-component="source"' not in page.read_text()
        assert 'class="mermaid"' not in page.read_text()


def test_lists_are_lists(site: Path) -> None:
    """mkdocs wants an empty line before a list; GitHub does not."""
    wrong = {page.name for page in site.rglob("*.html") if re.search(r"<p>[^<]*\n(- |\d+\. )", page.read_text())}
    assert wrong == set()


def test_pages_can_be_searched(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    places = {entry["location"] for entry in index["docs"]}
    assert {"kiosk.html#2-install", "api/sources.html#edge.camera.sources.Source"} <= places


def test_links_that_leave_the_pages_lead_to_the_repository(site: Path) -> None:
    assert "https://github.com/fer-edge/fer-edge/blob/main/.ci/run" in (site / "contributing.html").read_text()


@pytest.mark.parametrize(
    ("start", "other", "complaint"),
    [
        ("[other](other.md#there)", "## There", None),
        ("[other](missing.md)", "", "'missing.md'"),
        ("[other](other.md#nowhere)", "## There", "#nowhere"),
        ("![picture](missing.png)", "", "'missing.png'"),
        ("", None, "other.md"),
        ("", "outside the navigation", "forgotten.md"),
    ],
)
def test_a_mistake_in_a_page_fails(start: str, other: str | None, complaint: str | None, tmp_path: Path) -> None:
    """With the settings of the site, but two pages of its own."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Start\n\n{start}\n")
    if other is not None:
        (docs / "other.md").write_text(f"# Other\n\n{other}\n")
    if complaint == "forgotten.md":
        (docs / "forgotten.md").write_text("# Forgotten\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {docs}\nhooks: []\nplugins: []\nnav: [index.md, other.md]\n"
    )
    done = mkdocs_build(config, tmp_path / "site")
    assert (done.returncode == 0) == (complaint is None), done.stderr
    assert complaint is None or complaint in done.stderr
