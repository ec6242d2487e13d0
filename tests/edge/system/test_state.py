import os
from pathlib import Path

import pytest

from edge.settings import StoreSettings
from edge.system.instance import service_environ
from edge.system.state import (
    INSTALLED_CONFIG,
    SERVICE_STATE,
    DeviceState,
    StateStore,
    device_config,
    store_folder,
)


@pytest.mark.parametrize(
    ("store", "environ", "folder"),
    [
        ("/srv/kiosk", {"STATE_DIRECTORY": "/var/lib/fer-edge"}, "/srv/kiosk"),
        ("", {"STATE_DIRECTORY": "/var/lib/fer-edge:/var/lib/other", "XDG_STATE_HOME": "/x"}, "/var/lib/fer-edge"),
        ("", {"XDG_STATE_HOME": "/x"}, "/x/fer-edge"),
        ("", {}, str(Path.home() / ".local/state/fer-edge")),
    ],
)
def test_the_state_folder(store: str, environ: dict[str, str], folder: str) -> None:
    assert store_folder(StoreSettings(folder=store), environ) == Path(folder)


def test_a_technicians_command_takes_the_services_settings_and_state(tmp_path: Path) -> None:
    given, installed = tmp_path / "my.toml", tmp_path / "config.toml"
    assert device_config(None, installed) is None
    installed.touch()
    assert device_config(None, installed) == installed
    assert device_config(given, installed) == given
    door = INSTALLED_CONFIG.parent / "door" / "config.toml"
    others = (given, None, door.with_name("config.toml.new"), door.parent / "deeper" / "config.toml")
    for config, state in (
        (INSTALLED_CONFIG, SERVICE_STATE),
        (door, SERVICE_STATE / "door"),
        *((other, Path("/x/fer-edge")) for other in others),
    ):
        assert store_folder(StoreSettings(), service_environ(config, {"XDG_STATE_HOME": "/x"})) == state


def test_the_state_is_there_for_the_next_process_and_written_only_when_it_changes(tmp_path: Path) -> None:
    state_store = StateStore(tmp_path / "state", "kiosk")
    assert state_store.state == DeviceState()
    assert state_store.update(paused=True)
    file = tmp_path / "state" / "kiosk.state.json"
    assert {found.name for found in file.parent.iterdir()} == {file.name, "kiosk+copy.state.json"}
    written = file.stat().st_mtime_ns
    assert state_store.update(paused=True)
    assert file.stat().st_mtime_ns == written
    assert StateStore(tmp_path / "state", "kiosk").state == DeviceState(paused=True)


FORMER = b'{"paused":false,"discovery":"homeassistant/device/kiosk/config"}'  # as the version before wrote it


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The file of a device that is not paused, and has a copy."""
    assert StateStore(tmp_path, "kiosk").update(paused=False, discovery="ha/device/kiosk/config")
    return tmp_path / "kiosk.state.json"


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b'{"paused": 3}',
        b"\xff",
        b"\0" * 100,
        b" " * 2_000_000,
        b"[" * 5000,
        b'{"paused":false,"discovery":"","more":1}',
        b'{"paused":false,"discovery":"","checksum":"1"}',
    ],
)
def test_a_file_that_cannot_be_read_closes_the_camera_and_says_why(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "kiosk.state.json").write_bytes(stored)
    state_store = StateStore(tmp_path, "kiosk")
    assert state_store.state.paused
    assert f"{tmp_path}/kiosk.state.json is damaged" in state_store.damage
    assert '{"on":false}' in state_store.damage
    assert f"delete {tmp_path}/*.state.json" in state_store.damage


def test_every_flipped_bit_closes_the_camera(written: Path) -> None:
    whole = written.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        written.write_bytes(damaged)
        state_store = StateStore(written.parent, "kiosk")
        assert (state_store.state.paused, bool(state_store.damage)) == (True, True), bytes(damaged)
        assert state_store.state.discovery == "ha/device/kiosk/config", "of the copy"


def test_every_cut_closes_the_camera(written: Path) -> None:
    whole = written.read_bytes()
    for length in range(len(whole)):
        written.write_bytes(whole[:length])
        assert StateStore(written.parent, "kiosk").state.paused, whole[:length]


@pytest.mark.parametrize("what", ["folder", "broken link", "lost"])
def test_a_file_that_is_no_file_any_more_closes_the_camera(written: Path, what: str) -> None:
    written.unlink()
    if what == "folder":
        written.mkdir()
    elif what == "broken link":
        written.symlink_to("nowhere")
    state_store = StateStore(written.parent, "kiosk")
    assert state_store.state == DeviceState(paused=True, discovery="ha/device/kiosk/config")
    assert state_store.damage


def test_a_damaged_copy_does_no_harm(written: Path) -> None:
    copy = written.with_name("kiosk+copy.state.json")
    copy.write_bytes(b"")
    state_store = StateStore(written.parent, "kiosk")
    assert (state_store.state.paused, state_store.damage) == (False, "")
    copy.write_bytes(b"")
    written.write_bytes(b"")
    assert StateStore(written.parent, "kiosk").state == DeviceState(paused=True)


@pytest.mark.parametrize("what", ["lost", "damaged"])
def test_a_copy_is_made_again_at_the_next_start(tmp_path: Path, what: str) -> None:
    StateStore(tmp_path, "kiosk").update(paused=True)
    copy = tmp_path / "kiosk+copy.state.json"
    if what == "lost":
        copy.unlink()
    else:
        copy.write_bytes(b"{")
    assert StateStore(tmp_path, "kiosk").state.paused
    assert copy.read_bytes() == (tmp_path / "kiosk.state.json").read_bytes()
    (tmp_path / "kiosk.state.json").unlink()
    assert StateStore(tmp_path, "kiosk").state.paused, "a card loses one file after the other"


def test_a_copy_that_cannot_be_made_again_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    StateStore(tmp_path, "kiosk").update(paused=True)
    copy = tmp_path / "kiosk+copy.state.json"
    copy.unlink()
    copy.mkdir()
    assert StateStore(tmp_path, "kiosk").state == DeviceState(paused=True)
    assert f"{copy} cannot be written" in caplog.text


def test_the_file_of_the_former_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "kiosk.state.json"
    file.write_bytes(FORMER)
    state_store = StateStore(tmp_path, "kiosk")
    assert (state_store.state, state_store.damage) == (DeviceState(False, "homeassistant/device/kiosk/config"), "")
    file.write_bytes(FORMER.replace(b"false", b"true"))
    assert StateStore(tmp_path, "kiosk").state.paused


def test_only_its_owner_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        StateStore(tmp_path, "kiosk").update(paused=True)
    finally:
        os.umask(former)
    assert {found.stat().st_mode & 0o777 for found in tmp_path.iterdir()} == {0o600}


def test_a_device_without_a_file_is_not_paused(written: Path) -> None:
    for file in written.parent.glob("*.state.json"):  # as a technician does, who ends the pause
        file.unlink()
    state_store = StateStore(written.parent, "kiosk")
    assert (state_store.state, state_store.damage) == (DeviceState(), "")


@pytest.mark.parametrize("paused", [True, False])
def test_only_a_decision_about_the_camera_ends_the_damage(written: Path, paused: bool) -> None:
    written.write_bytes(b"")
    state_store = StateStore(written.parent, "kiosk")
    assert not state_store.update(discovery="other/device/kiosk/config")
    assert StateStore(written.parent, "kiosk").damage, "the next start still knows of it"
    assert state_store.update(paused=paused)
    assert not state_store.damage
    following = StateStore(written.parent, "kiosk")
    assert (following.state, following.damage) == (DeviceState(paused, "other/device/kiosk/config"), "")


def test_a_file_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    assert not StateStore(tmp_path / "state" / "deeper", "kiosk").update(paused=True)
    assert "kiosk.state.json cannot be written" in caplog.text


def test_a_failed_update_is_written_when_it_is_repeated(tmp_path: Path) -> None:
    """A pause that is ended while the disk is full must not come back with the next start."""
    folder = tmp_path / "state"
    folder.write_text("a file")
    state_store = StateStore(folder, "kiosk")
    assert not state_store.update(paused=True)
    assert not state_store.update(paused=True), "it still is not on the disk"
    folder.unlink()
    assert state_store.update(paused=True)
    assert StateStore(folder, "kiosk").state == DeviceState(paused=True)
