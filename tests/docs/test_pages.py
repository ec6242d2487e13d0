"""The pages hang together: links lead somewhere, examples are valid, figures are those of the bundled model."""

import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import cv2
import jinja2
import numpy as np
import pytest
import yaml

from edge.model.bundle import find_bundle, open_bundle
from edge.settings import MetricsSettings, ModelSettings, load_settings
from tests.conftest import ROOT
from tests.docs.pages import PAGES, Block, anchors, blocks, commands_of, links, name_of

LANGUAGES = {"console", "json", "toml", "yaml", "text"}


def blocks_in(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_anchor_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(link)
    assert wrong == []


def test_pages_that_the_code_names_exist() -> None:
    """In help, in errors, in the sample, in docstrings."""
    files = [
        file for room in ("edge", "train", "export", "systemd") for file in (ROOT / room).rglob("*") if file.is_file()
    ]
    texts = [file.read_text() for file in files if file.suffix in (".py", ".toml", ".service", ".rules")]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w-]+\.md\b", text)}
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    reached, waiting = set[Path](), [index]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)} & set(PAGES)
        waiting += linked - reached
    assert set(PAGES) - reached - {ROOT / "README.md"} == set()
    assert index in {(ROOT / link).resolve() for link in links(ROOT / "README.md")}


def test_every_code_block_says_what_it_is() -> None:
    unnamed = [str(block) for block in blocks() if block.language not in LANGUAGES]
    assert unnamed == []
    hidden = re.compile(r"^\s*(sudo|fer-(edge|train|export)|pip|make|python3?|pytest) ", re.MULTILINE)
    assert [str(block) for block in (*blocks_in("text"), *blocks_in("console")) if hidden.search(block.text)] == [], (
        "begin with $"
    )
    assert [command for block in blocks_in("console") for command in commands_of(block) if command.endswith("\\")] == []
    assert [str(block) for block in blocks_in("console") if not commands_of(block)] == []


@pytest.mark.parametrize("block", blocks_in("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    """One value, or one after another."""
    reader, text = json.JSONDecoder(), block.text.strip().removeprefix('"edgetpu":').strip()
    while text:
        _, end = reader.raw_decode(text)
        text = text[end:].strip()


@pytest.mark.parametrize("block", blocks_in("toml"), ids=str)
def test_settings_in_the_pages_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for text in (block.text, re.sub(r"^#(?=\w+ =)", "", block.text, flags=re.MULTILINE)):
        assert tomllib.loads(text)
        file.write_text(text)
        load_settings(file)


def test_the_home_assistant_automation_matches_its_preset() -> None:
    [block] = [one for one in blocks_in("yaml") if one.page == "docs/mqtt.md" and one.text.startswith("automation")]
    [automation] = yaml.safe_load(block.text)["automation"]
    [trigger] = automation["triggers"]
    assert trigger["topic"].endswith("/event")
    template = jinja2.Template(trigger["value_template"])
    events = [json.loads(line) for line in (ROOT / "tests" / "golden" / "events.jsonl").read_text().splitlines()]
    matched = [event["name"] for event in events if template.render(value_json=event) == trigger["payload"]]
    assert (matched, len(events) > 1) == ([trigger["payload"]], True)


def test_the_prometheus_example_uses_the_default_port() -> None:
    [block] = [block for block in blocks_in("yaml") if block.page == "docs/metrics.md"]
    [job] = yaml.safe_load(block.text)["scrape_configs"]
    targets = [target for group in job["static_configs"] for target in group["targets"]]
    assert {int(target.partition(":")[2]) for target in targets} == {MetricsSettings().port}


def test_keys_that_the_pages_name_exist() -> None:
    """`table.key` in backquotes, and [table] key in words."""
    known = load_settings(None)
    tables = {name: set(getattr(known, name).__struct_fields__) for name in known.__struct_fields__ if name != "preset"}
    wrong = []
    for page in PAGES:
        text = page.read_text()
        named = re.findall(rf"`({'|'.join(tables)})\.([a-z_]+)(?: = [^`]*)?`", text)
        named += re.findall(rf"`\[({'|'.join(tables)})\] ([a-z_]+)", text)
        wrong += [f"{name_of(page)}: {table}.{key}" for table, key in named if key not in tables[table]]
    assert [name for name in wrong if not re.search(r"\.(py|md|jsonl?|toml|tflite)$", name)] == []


def test_decisions_are_in_their_history() -> None:
    """In the order of their numbers; whatever names one by its number finds it there."""
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", (ROOT / "docs/history/decisions.md").read_text(), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    index = (ROOT / "docs" / "decisions.md").read_text()
    named = [int(n) for group in re.findall(r"\((\d+(?:, \d+)*)\)$", index, re.MULTILINE) for n in group.split(", ")]
    named += [int(n) for page in PAGES for n in re.findall(r"\bdecision (\d+)", page.read_text())]
    assert len(named) > 100
    assert set(named) - set(numbers) == set()


@pytest.mark.parametrize("package", ["edge", "train", "export"])
def test_the_floors_are_those_that_import_linter_holds(package: str) -> None:
    """A contract has the highest floor first, the page the lowest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {one["name"]: one for one in project["tool"]["importlinter"]["contracts"]}
    held = [sorted(floor.split(" | ")) for floor in contracts[f"{package} floors"]["layers"]]
    page = (ROOT / "docs" / "contributing.md").read_text()
    [text] = re.findall(rf"^The floors of `{package}/`.*?\n\n```text\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert [floor.split(" | ") for floor in text.splitlines()] == held[::-1]


PICTURES = sorted((ROOT / "docs" / "pictures").glob("*"))
DEMO = ROOT / "docs" / "pictures" / "demo.jpg"
PIXELS = [picture for picture in PICTURES if picture.suffix == ".png"]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda file: file.name)
def test_pictures_are_shown(picture: Path) -> None:
    assert picture in {(page.parent / link).resolve() for page in PAGES for link in links(page)}


@pytest.mark.parametrize(
    "picture", [file for file in PICTURES if file not in (DEMO, *PIXELS)], ids=lambda file: file.name
)
def test_pictures_are_drawings(picture: Path) -> None:
    """SVG without a pixel in it: no face can be there. The demo's portrait alone is a photograph."""
    assert picture.suffix == ".svg"
    kinds = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture.read_text()).iter()}
    assert "svg" in kinds
    assert not kinds & {"image", "script", "foreignObject"}


@pytest.mark.parametrize("picture", PIXELS, ids=lambda file: file.name)
def test_pictures_of_pages_and_charts_show_no_photograph(picture: Path) -> None:
    """Few colours, of paper, margin and bars, fill most of a page or chart; no few colours fill a photograph."""
    shown = cv2.imread(str(picture))
    _, pixels = np.unique(shown.reshape(-1, 3), axis=0, return_counts=True)
    assert np.sort(pixels)[-6:].sum() > 0.9 * pixels.sum()


def test_the_picture_of_the_demo_is_small() -> None:
    assert DEMO.stat().st_size < 150_000


@pytest.mark.parametrize("name", ["student", "student-small"])
def test_tables_have_the_figures_of_each_bundled_models_card(name: str) -> None:
    bundle = open_bundle(find_bundle(name))
    figures, floats, size = bundle.card.figures, bundle.card.origin.float_figures, len(bundle.model)
    shares = (figures.accuracy, figures.macro_f1, floats.accuracy, floats.macro_f1)
    accuracy, macro_f1, *of_floats = (f"{share:.1%}".replace("%", " %") for share in shares)
    readme, page = (ROOT / "README.md").read_text(), (ROOT / "docs" / "accuracy.md").read_text()
    row = f"**{accuracy}** (float: {of_floats[0]}) | {macro_f1} (float: {of_floats[1]}) | {size / 1e6:.1f} MB |"
    assert [line for line in readme.splitlines() if line.startswith(f"| `{name}`, int8 |") and row in line]
    [rows] = re.findall(rf"^\| `{name}`[^|]*\| int8.*\n.*", page, re.MULTILINE)
    assert re.findall(r"[\d.]+ %", rows) == [accuracy, macro_f1, *of_floats]
    [compared] = re.findall(rf"^{name} +([\d.]+)% +([\d.]+)% +{size:,} ", page, re.MULTILINE)
    # The card has five digits, so rounding them to four may differ from rounding the figure itself.
    assert np.allclose([float(percent) / 100 for percent in compared], shares[:2], atol=6e-5, rtol=0)


def test_sentences_have_the_figures_of_the_default_models_card() -> None:
    card = open_bundle(find_bundle(ModelSettings().bundle)).card
    accuracy, device = ((ROOT / "docs" / name).read_text() for name in ("accuracy.md", "device-models.md"))
    assert f"error {card.calibration.ece:.3f})" in re.sub(r"\s+", " ", accuracy)
    assert f"{card.figures.n:,} faces" in accuracy
    assert f"{card.name} ({card.sha256[:12]}) on {card.golden_runtime}" in device
    assert device.count(f"{card.figures.accuracy:.2%}") == 2


def test_the_confusion_matrix_is_that_of_the_bundled_models_report() -> None:
    """Both draw the shares of each label's faces, in the same order."""
    bundled = find_bundle(ModelSettings().bundle)

    def shares(svg: str) -> list[str]:
        return re.findall(r">\s*(\d+%)\s*<", svg)

    drawn = shares((ROOT / "docs" / "pictures" / "confusion.svg").read_text())
    report = (bundled / "report.html").read_text().partition("Confusion matrix")[2].partition("</svg>")[0]
    assert len(drawn) == 49
    how = f"fer-train evaluate {bundled.name} --data fer2013.csv --out docs/pictures/confusion.svg"
    assert drawn == shares(report), f"run: {how}"
