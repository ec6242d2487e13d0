"""The page in a real browser: a desktop's, and one as narrow as a telephone."""

from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.edge.preview.chromium import Page, chromium
from tests.edge.preview.running import previewing

pytestmark = pytest.mark.slow

DEMO = ("--source", "demo", "--port", "0")
# The box of the first face, in pixels of the page and of the camera's picture.
PLACES = """
(() => {
  const of = (id) => document.querySelector(id).getBoundingClientRect();
  const [stage, box, picture] = [of('#stage'), of('.box'), of('#picture')];
  return [stage.width - picture.width, stage.height - picture.height, box.width / picture.width,
    document.documentElement.scrollWidth - window.innerWidth];
})()
"""


@pytest.fixture
def page(tmp_path: Path):  # noqa: ANN201
    with chromium(tmp_path / "profile") as one:
        yield one


def test_the_demo_is_seen_with_its_face_until_the_preview_ends(page: Page) -> None:
    with previewing(*DEMO) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        page.open(preview.invitation)
        text = page.wait_for("happy")
        assert "9:" in text
        assert "frames/s" in text
        assert "smallest face that is looked for (24 px)" in text
        assert page.value("location.hash") == ""
        wider, higher, share, beyond = page.value(PLACES)
        assert (abs(wider), abs(higher), beyond) == (0, 0, 0)
        assert 0.1 < share < 0.6
        page.open(preview.invitation.partition("#")[0], 360, 740, mobile=True)  # the session is kept
        page.wait_for("frames/s")
        assert page.value("document.documentElement.scrollWidth") <= 360
        assert preview.interrupt() == 0
        text = page.wait_for("The preview has ended. To go on, start fer-edge preview again")
        assert "frames/s" not in text
        assert page.value("document.querySelector('#picture').hasAttribute('src')") is False
    assert page.errors == []


def test_a_preview_that_was_killed_is_missed_and_the_next_one_opens_in_the_same_tab(page: Page) -> None:
    missed = "the preview has ended, or the connection is lost. If it has ended, start fer-edge preview again"
    port = free_port()
    again = ("--source", "demo", "--port", port)
    with previewing(*again) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        page.open(preview.invitation)
        page.wait_for("frames/s")
    assert "frames/s" not in page.wait_for(missed)
    with previewing(*again) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        page.wait_for("The code that stands at the terminal")
        page.open(preview.invitation)
        page.wait_for("frames/s")
    page.wait_for(missed)
    with previewing(*again) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        page.open(preview.invitation.partition("#")[0])
        page.wait_for("The code that stands at the terminal")
    page.value("document.querySelector('#code').value = 'abc'; document.querySelector('button').click()")
    page.wait_for(missed)
    assert page.errors == []


def test_what_quality_refuses_is_seen_with_its_reason_after_the_code_was_typed(page: Page, tmp_path: Path) -> None:
    config = tmp_path / "strict.toml"
    config.write_text("[quality]\nmin_size = 400\n")
    with previewing(*DEMO, "--config", config) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        address, _, code = preview.invitation.partition("#")
        page.open(address)
        page.wait_for("The code that stands at the terminal")
        enter = "document.querySelector('#code').value = '{}'; document.querySelector('button').click()"
        page.value(enter.format("wrong"))
        page.wait_for("This is not the code")
        page.value(enter.format(code.upper()))
        assert "at least 400 px" in page.wait_for("refused: too small")
    assert page.errors == []
