import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.mqtt.device_record import DeviceRecord, DeviceRecordStore, former_topics
from edge.mqtt.outbox import Outbox
from edge.mqtt.topics import client_id, device_id, file_stem, with_device_name
from edge.settings import MqttSettings, Settings, StoreSettings


def test_the_device_is_named_by_the_settings_else_by_its_serial_else_by_its_host(tmp_path: Path) -> None:
    serial = tmp_path / "serial-number"
    assert device_id(MqttSettings(), serial) == socket.gethostname()
    serial.write_bytes(b"10000000abcdef01\0")  # as a Raspberry Pi's kernel gives it
    assert device_id(MqttSettings(), serial) == "10000000abcdef01"
    assert device_id(MqttSettings(device="kiosk"), serial) == "kiosk"
    assert device_id(MqttSettings(device="{board}-door"), serial) == "10000000abcdef01-door"
    assert client_id(MqttSettings(prefix="house", device="kiosk")) == "house-kiosk"


def test_devices_on_different_topics_have_different_client_ids_and_keep_their_files() -> None:
    """A broker ends the session of a client whose id comes again."""
    names = [("site/a", "b"), ("site", "a-b"), ("site-a", "b"), ("fer-edge", "入口"), ("fer-edge", "出口")]
    devices = [MqttSettings(prefix=prefix, device=device) for prefix, device in names]
    assert len({client_id(one) for one in devices}) == len(devices)
    assert file_stem(devices[0]) == "site-a-b", "as before, or a stored pause would be forgotten"


def named(settings: Settings, serial: Path, *, keep: bool = False) -> Settings:
    """The settings as a start sees them."""
    return with_device_name(settings, DeviceRecordStore(Path(settings.store.folder)), keep=keep, serial=serial)


def test_a_computer_without_a_serial_number_keeps_its_first_name(tmp_path: Path) -> None:
    """A container has another host name at each start."""
    settings, serial = Settings(store=StoreSettings(folder=str(tmp_path / "state"))), tmp_path / "serial-number"
    assert named(settings, serial).mqtt.device == socket.gethostname()
    assert not (tmp_path / "state").exists(), "a command beside the service writes nothing"
    assert named(settings, serial, keep=True).mqtt.device == socket.gethostname()
    record = tmp_path / "state" / "device.json"
    record.write_text(record.read_text().replace(socket.gethostname(), "4f2a9c0b1d3e"))
    for keep in (True, False):
        assert named(settings, serial, keep=keep).mqtt.device == "4f2a9c0b1d3e"
    own = Settings(mqtt=MqttSettings(device="kiosk"), store=settings.store)
    assert named(own, serial, keep=True) == own
    serial.write_bytes(b"10000000abcdef01\0")
    assert named(settings, serial, keep=True) == settings


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name":3}', b"\xff\x00", b"[" * 100_000])
def test_a_damaged_record_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "device.json").write_bytes(content)
    settings = Settings(store=StoreSettings(folder=str(tmp_path)))
    assert named(settings, tmp_path / "none", keep=True).mqtt.device == socket.gethostname()
    assert DeviceRecordStore(tmp_path).record.name == socket.gethostname()


def test_a_folder_that_cannot_be_written_costs_only_the_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    settings = Settings(store=StoreSettings(folder=str(tmp_path / "state")))
    assert named(settings, tmp_path / "none", keep=True).mqtt.device == socket.gethostname()
    assert "cannot be written" in caplog.text


def test_a_record_that_the_disk_refused_is_written_once_it_takes_it(tmp_path: Path) -> None:
    blocked = tmp_path / "device.new"
    blocked.mkdir()
    store, record = DeviceRecordStore(tmp_path), DeviceRecord("4f2a9c0b1d3e")
    store.update(record)
    store.write_again()
    assert DeviceRecordStore(tmp_path).record == DeviceRecord()
    blocked.rmdir()
    store.write_again()
    assert DeviceRecordStore(tmp_path).record == record


NOW = DeviceRecord("", "ha/device/new/config", "fer-edge/new", "fer-edge-new", "1000")


@pytest.mark.parametrize(
    ("record", "now", "topics"),
    [
        (DeviceRecord(), NOW, []),
        (NOW, NOW, []),
        (
            OLD := replace(NOW, topic="t", base="fer-edge/old", stem="old"),
            NOW,
            ["t", "fer-edge/old/homeassistant/fault"],
        ),
        (replace(NOW, topic="t"), NOW, ["t"]),
        (replace(OLD, board="2000"), NOW, []),
        (NOW, replace(NOW, topic=""), [NOW.topic, "fer-edge/new/homeassistant/fault"]),
        (OLD, replace(NOW, topic=""), []),
    ],
    ids=["first", "same", "renamed", "other prefix", "a clone of another board", "turned off", "beside another"],
)
def test_what_a_former_name_has_left_is_removed(
    tmp_path: Path, record: DeviceRecord, now: DeviceRecord, topics: list[str]
) -> None:
    assert former_topics(record, now, tmp_path) == topics


def test_a_device_that_runs_under_the_former_name_keeps_its_description(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "old.outbox.db", 10)
    assert former_topics(OLD, NOW, tmp_path) == []
    outbox.close()
    assert former_topics(OLD, NOW, tmp_path)
