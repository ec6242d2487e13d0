"""``fer-edge verify`` as a technician types it: exit codes, and what it publishes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.model.bundle import find_bundle
from tests.conftest import Broker, free_port, wait_until
from tests.edge.cli.test_main import fer_edge, lines
from tests.edge.listener import listening


def flip_a_byte(folder: Path) -> None:
    model = bytearray((folder / "model.tflite").read_bytes())
    model[len(model) // 3] ^= 0x10
    (folder / "model.tflite").write_bytes(model)


def of_version_2(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"schema_version": 2}))


def golden_without_a_scene(folder: Path) -> None:
    with np.load(folder / "golden.npz") as stored:
        np.savez(folder / "golden.npz", **{name: stored[name] for name in ("faces", "outputs", "labels")})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "sha256"),
        (of_version_2, "a card of version 2, and this fer-edge reads 4"),
        (golden_without_a_scene, "fer-export golden"),
    ],
)
def test_a_damaged_bundle_ends_with_code_4(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    damage(folder)
    (tmp_path / "config.toml").write_text(f'[model]\nbundle = "{folder}"\n')
    done = fer_edge("verify", "--config", tmp_path / "config.toml")
    assert (done.returncode, words in done.stderr) == (4, True), done.stderr


def test_outputs_of_another_network_end_with_code_23(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    with np.load(folder / "golden.npz") as stored:
        parts = dict(stored)
    parts["outputs"] = np.roll(parts["outputs"], 1, axis=1)
    np.savez(folder / "golden.npz", **parts)
    (tmp_path / "config.toml").write_text(
        f'[model]\nbundle = "{folder}"\n[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\ndevice = "kiosk"\n'
    )
    done = fer_edge("verify", "--config", tmp_path / "config.toml", "--json", "--publish")
    assert (done.returncode, "golden outputs differ by up to" in done.stderr) == (23, True), done.stderr
    assert "cannot be reached" in done.stderr, "the broker's failure is told too"
    assert not lines(done)[0]["golden"]["ok"]


@pytest.mark.slow
def test_the_result_is_retained_at_the_broker(broker: Broker, tmp_path: Path, blobs: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n')
    done = fer_edge("verify", "--config", config, "--data", blobs, "--publish")
    assert (done.returncode, "is worse than the card's" in done.stderr) == (23, True), done.stderr
    with listening(broker.port) as late:
        wait_until(lambda: late.of("verification") and late.of("accuracy"), 5)
        [golden], [accuracy] = late.json("verification"), late.json("accuracy")
    assert (golden["ok"], accuracy["ok"], accuracy["n"]) == (True, False, 28)
    broker.stop()
    done = fer_edge("verify", "--config", config, "--publish")
    assert (done.returncode, "cannot be reached" in done.stderr) == (8, True), done.stderr
