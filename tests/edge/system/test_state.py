from pathlib import Path

import pytest

from edge.settings import StoreSettings
from edge.system.state import (
    INSTALLED_CONFIG,
    SERVICE_STATE,
    DeviceState,
    StateStore,
    device_config,
    service_environ,
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
    for config, state in ((INSTALLED_CONFIG, SERVICE_STATE), (given, Path("/x/fer-edge")), (None, Path("/x/fer-edge"))):
        assert store_folder(StoreSettings(), service_environ(config, {"XDG_STATE_HOME": "/x"})) == state


def test_the_state_is_there_for_the_next_process_and_written_only_when_it_changes(tmp_path: Path) -> None:
    state_store = StateStore(tmp_path / "state", "kiosk")
    assert state_store.state == DeviceState()
    assert state_store.update(paused=True)
    [file] = (tmp_path / "state").iterdir()
    assert file.name == "kiosk.state.json"
    written = file.stat().st_mtime_ns
    assert state_store.update(paused=True)
    assert file.stat().st_mtime_ns == written
    assert StateStore(tmp_path / "state", "kiosk").state == DeviceState(paused=True)


@pytest.mark.parametrize("stored", [b"", b"{", b'{"paused": 3}', b"\xff"])
def test_a_file_that_cannot_be_read_gives_an_empty_state(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "kiosk.state.json").write_bytes(stored)
    assert StateStore(tmp_path, "kiosk").state == DeviceState()


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
