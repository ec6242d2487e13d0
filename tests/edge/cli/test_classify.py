"""`fer-edge classify` with the settings of a device."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import cv2
import pytest

from edge.camera.sources import read_gray
from edge.cli.classify import classify
from edge.errors import BundleError, SettingsError, UsageError
from edge.model.bundle import find_bundle
from tests.conftest import PORTRAIT


@pytest.fixture
def lying(tmp_path: Path) -> Path:
    """The portrait as a camera sees it that is to be turned clockwise."""
    file = tmp_path / "lying.png"
    cv2.imwrite(str(file), cv2.rotate(read_gray(PORTRAIT), cv2.ROTATE_90_COUNTERCLOCKWISE))
    return file


def faces(
    file: Path, config: Path | None, capsys: pytest.CaptureFixture[str], bundle: str | None = None
) -> list[dict[str, object]]:
    assert classify(Namespace(config=config, images=[file], json=True, bundle=bundle)) == 0
    return list(json.loads(capsys.readouterr().out)["faces"])


def test_the_settings_turn_the_picture(tmp_path: Path, lying: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[camera]\nrotation = 90\n")
    upright = faces(PORTRAIT, None, capsys)
    assert upright
    assert faces(lying, config, capsys) == upright
    assert faces(lying, None, capsys) != upright


def test_a_detect_key_counts_and_the_others_keep_the_finer_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[detect]\nmin_face = 0.99\n")
    assert faces(PORTRAIT, config, capsys) == []
    config.write_text("[model]\nthreads = 1\n")
    assert faces(PORTRAIT, config, capsys) == faces(PORTRAIT, None, capsys)


def test_no_face_is_found_where_the_settings_ignore_it(
    tmp_path: Path, lying: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is in the upright picture: so somebody can try the parts on one picture of the camera."""
    config = tmp_path / "config.toml"
    [found] = faces(PORTRAIT, None, capsys)
    height, width = read_gray(PORTRAIT).shape
    box = found["box"]
    assert isinstance(box, list)
    x, y, side, _ = box
    for left, expected in ((x / width, []), (0.0, [found])):
        config.write_text(
            f"[camera]\nrotation = 90\n[[detect.ignore]]\nleft = {left}\ntop = {y / height}\n"
            f"width = {min(side, x) / width}\nheight = {side / height}\n"
        )
        assert faces(lying, config, capsys) == expected


def test_a_wrong_value_is_still_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    for text in ("detect = 3\n", "[detect]\nmin_face = 3\n"):
        config.write_text(text)
        with pytest.raises(SettingsError, match="detect"):
            classify(Namespace(config=config, images=[PORTRAIT], json=True, bundle=None))


def test_a_bundle_of_the_command_line_comes_before_that_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[model]\nbundle = "student"\n')
    small = faces(PORTRAIT, None, capsys, str(find_bundle("student-small")))
    assert faces(PORTRAIT, config, capsys, "student-small") == small
    assert faces(PORTRAIT, config, capsys) != small
    with pytest.raises(BundleError, match="missing: neither a bundled model"):
        faces(PORTRAIT, config, capsys, "missing")


def test_a_folder_gives_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "it").mkdir(parents=True)
    with pytest.raises(UsageError, match="there is no picture in this folder"):
        faces(tmp_path, None, capsys)
    copy = shutil.copy(PORTRAIT, tmp_path / "in" / "it")
    assert faces(tmp_path, None, capsys) == faces(Path(copy), None, capsys) != []
