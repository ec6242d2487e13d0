"""Bundles from untrusted folders and zips: damaged and hostile ones are rejected."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from edge.errors import BundleError
from edge.model.archive import MAX_BYTES, read_bundle_archive
from edge.model.registry import ModelRegistry
from tests.edge.model.bundles import accept, bundle_named, zip_bundle


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "state")


def entry(name: str, *, link: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK if link else stat.S_IFREG | 0o644) << 16
    return info


def archive_of(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return stored.getvalue()


CARD = (entry("card.json"), b"{}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive_of(CARD, (entry("../evil"), b"")), "leads out of the zip"),
        (archive_of(CARD, (entry("/etc/passwd"), b"")), "leads out of the zip"),
        (archive_of(CARD, (entry("..\\evil"), b"")), "leads out of the zip"),
        (archive_of(CARD, (entry("model.tflite", link=True), b"/etc/shadow")), "is a link"),
        (archive_of(CARD, (entry("model.tflite"), bytes(MAX_BYTES["model.tflite"] + 1))), "larger than 33554432 bytes"),
        (archive_of(CARD, *((entry(f"{n}"), b"") for n in range(1000))), "1001 entries"),
        (archive_of((entry("a/card.json"), b"{}"), (entry("b/card.json"), b"{}")), "2 files card.json"),
        (archive_of((entry("model.tflite"), b"")), "no card.json at its top"),
        (b"hello", "neither a bundle's folder nor a readable zip"),
        (b"", "neither a bundle's folder nor a readable zip"),
    ],
)
def test_a_hostile_or_damaged_zip_is_rejected(
    tmp_path: Path, registry: ModelRegistry, content: bytes, words: str
) -> None:
    file = tmp_path / "bundle.zip"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=words):
        registry.install(file, accept)
    assert registry.installed() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.zip"]


def test_links_and_devices_in_a_folder_are_rejected(tmp_path: Path) -> None:
    for name, make in (
        ("link", lambda file: file.symlink_to("/etc/shadow")),
        ("pipe", os.mkfifo),
        ("folder", Path.mkdir),
    ):
        source = bundle_named(tmp_path, name)
        (source / "model.tflite").unlink()
        make(source / "model.tflite")
        with pytest.raises(BundleError, match=r"not followed|not a regular file"):
            read_bundle_archive(source)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_errors_name_the_file_that_the_user_gave(tmp_path: Path, registry: ModelRegistry, form: str) -> None:
    """Not the copy in the device's state, which is removed by then."""
    source = bundle_named(tmp_path, "mine")
    (source / "model.tflite").write_bytes(b"damaged")
    source = source if form == "folder" else zip_bundle(source, tmp_path / "mine.zip")
    with pytest.raises(BundleError, match=rf"^{source}/model\.tflite: its sha256 is") as refusal:
        registry.install(source, accept)
    assert ".incoming" not in str(refusal.value)
