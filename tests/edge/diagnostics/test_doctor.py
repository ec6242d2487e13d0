"""The doctor: real child processes, real brokers; what a Pi tells stands in files given as arguments."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.diagnostics import doctor
from edge.diagnostics.doctor import Coral, Finding
from edge.model.bundle import find_bundle
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.settings import CameraSettings, ModelSettings, MqttSettings
from edge.system.state import with_secret_files
from tests.conftest import Broker, StandIn, free_port, wait_until

ROOT = Path(__file__).parents[3]
PYTHON = (sys.executable,)


def level_of(finding: Finding) -> str:
    """The level; whatever is not well must say what to do."""
    assert finding.level == "ok" or finding.mend, finding
    return finding.level


def test_system_names_debian_and_the_board(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (tmp_path / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = doctor.check_system(tmp_path / "os-release", tmp_path / "model", "aarch64")
    assert found == Finding("system", "ok", "Debian GNU/Linux 12 (bookworm), aarch64, Raspberry Pi 4 Model B Rev 1.4")
    absent = doctor.check_system(tmp_path / "none", tmp_path / "none", "armv7l")
    assert level_of(absent) == "warn"
    assert "not a Raspberry Pi" in absent.sentence


@pytest.mark.parametrize(
    ("version", "environment", "level"),
    [("3.11.2", "/opt/fer-edge", "ok"), ("3.13.5", "/opt/fer-edge", "ok"), ("3.11.2", None, "warn")],
)
def test_python(version: str, environment: str | None, level: str) -> None:
    assert level_of(doctor.check_python(version, environment)) == level


def test_an_untested_python_is_a_warning() -> None:
    assert level_of(doctor.check_python("3.14.0", "/opt/fer-edge")) == "warn"


def test_clock() -> None:
    assert level_of(doctor.check_clock(synced=True)) == "ok"
    assert level_of(doctor.check_clock(synced=False)) == "warn"


@pytest.mark.parametrize(
    ("stored", "level", "words"),
    [
        ("0\n", "ok", "full power"),
        ("50000\n", "warn", "since the start: under-voltage, throttled"),
        ("50005\n", "fail", "now: under-voltage, throttled"),
        ("", "ok", "tells nothing"),
    ],
)
def test_throttling_from_the_kernel(tmp_path: Path, stored: str, level: str, words: str) -> None:
    (tmp_path / "get_throttled").write_text(stored)
    found = doctor.check_throttling(tmp_path / "get_throttled", ("no-such-vcgencmd",))
    assert level_of(found) == level
    assert words in found.sentence


def test_throttling_from_vcgencmd(tmp_path: Path) -> None:
    command = tmp_path / "vcgencmd"
    command.write_text("#!/bin/sh\necho throttled=0x8\n")
    command.chmod(0o755)
    found = doctor.check_throttling(tmp_path / "none", (str(command), "get_throttled"))
    assert (found.level, found.sentence) == ("fail", "now: soft temperature limit")


@pytest.mark.parametrize(("free", "level"), [(20, "fail"), (100, "warn"), (5000, "ok")])
def test_disk(free: int, level: str) -> None:
    assert level_of(doctor.judge_disk(Path("/var/lib/fer-edge"), free)) == level


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert str(tmp_path / "a" / "b") in doctor.check_disk(tmp_path / "a" / "b").sentence


def test_config(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[camera]\nsource = "demo"\n')
    bad.write_text('[camera]\nsauce = "demo"\n')
    found, settings = doctor.check_config(good, tmp_path / "none")
    assert level_of(found) == "ok"
    assert settings
    assert settings.camera.source == "demo"
    found, settings = doctor.check_config(bad, tmp_path / "none")
    assert level_of(found) == "fail"
    assert "did you mean camera.source?" in found.sentence
    assert settings is None


def test_checking_the_defaults_beside_an_installed_config_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    assert level_of(doctor.check_config(None, tmp_path / "config.toml")[0]) == "warn"
    assert level_of(doctor.check_config(None, tmp_path / "none")[0]) == "ok"


def test_the_packages_here_are_a_good_set() -> None:
    found = doctor.check_packages(PYTHON, CameraSettings(source="demo"))
    assert level_of(found) == "ok", found
    assert "numpy" in found.sentence


def test_a_picamera2_that_is_wanted_but_absent() -> None:
    found = doctor.check_packages(PYTHON, CameraSettings(source="picamera2"))
    assert level_of(found) == "fail"
    assert "apt install" in found.mend


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')", "numpy.dtype size"),
        ("import os; os.abort()", "crashed with SIGABRT"),
    ],
)
def test_a_picamera2_that_does_not_get_on_with_the_rest(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "picamera2.py").write_text(code)
    python = ("env", f"PYTHONPATH={tmp_path}", sys.executable)
    found = doctor.check_packages(python, CameraSettings(source="picamera2"))
    assert level_of(found) == "fail"
    assert found.sentence.startswith("picamera2 cannot be imported beside numpy")
    assert words in found.sentence
    assert level_of(doctor.check_packages(python, CameraSettings(source="demo"))) == "warn", "nobody needs it there"


def test_an_import_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text("import time; time.sleep(60)")
    found = doctor.check_packages(
        ("env", f"PYTHONPATH={tmp_path}", sys.executable), CameraSettings(source="picamera2"), 5
    )
    assert "picamera2 cannot be imported" in found.sentence
    assert "no answer within 5 s" in found.sentence


@pytest.fixture
def without_litert(tmp_path: Path) -> tuple[str, ...]:
    """A Python that sees all packages of this one but LiteRT, and numpy as version 2.1, whatever it is."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("ai_edge_litert", "numpy-")):
            (packages / entry.name).symlink_to(entry)
    (packages / "edge").unlink(missing_ok=True)
    (packages / "edge").symlink_to(ROOT / "edge")
    (packages / "numpy-2.1.0.dist-info").mkdir()
    (packages / "numpy-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    return ("env", f"PYTHONPATH={packages}", sys.executable, "-S")


def test_no_runtime(without_litert: tuple[str, ...]) -> None:
    found = doctor.check_packages(without_litert, CameraSettings(source="demo"))
    assert level_of(found) == "fail"
    assert "no TFLite runtime" in found.sentence
    assert "fer-edge[litert]" in found.mend


def test_tflite_runtime_beside_numpy_2(without_litert: tuple[str, ...], tmp_path: Path) -> None:
    package = tmp_path / "packages" / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "raise SystemError('initialization of _pywrap raised unreported exception')"
    )
    found = doctor.check_packages(without_litert, CameraSettings(source="demo"))
    assert level_of(found) == "fail"
    assert "tflite-runtime cannot be imported beside numpy 2.1.0" in found.sentence
    assert "'numpy<2'" in found.mend


def test_groups() -> None:
    groups, usb = {"video", "plugdev", "fer-edge"}, CameraSettings(source="/dev/video0")
    assert level_of(doctor.check_groups("fer-edge", groups, groups, usb)) == "ok", "no group render here"
    lacking = doctor.check_groups("fer-edge", {"plugdev"}, groups, usb)
    assert level_of(lacking) == "fail"
    assert lacking.mend == "sudo usermod -aG video fer-edge"
    assert level_of(doctor.check_groups("fer-edge", {"plugdev"}, groups, CameraSettings(source="demo"))) == "warn"
    assert level_of(doctor.check_groups("root", set(), groups, usb)) == "ok"


def test_the_groups_of_this_very_user() -> None:
    user = doctor.service_user("no-such-user")
    assert subprocess.run(["id", "-gn", user], capture_output=True, text=True, check=True).stdout.strip() in (
        doctor.groups_of(user)
    )


def test_camera() -> None:
    found = doctor.check_camera(PYTHON, CameraSettings(source="demo"))
    assert (found.level, found.sentence) == ("ok", "source demo: a frame of 640x480")
    assert (
        "no answer within 0.01 s" in doctor.check_camera(PYTHON, CameraSettings(source="demo"), seconds=0.01).sentence
    )


def test_a_source_is_named_by_its_kind_and_without_its_password() -> None:
    assert doctor.kind_of("rtsp://kiosk:secret@10.0.0.7/live") == "stream rtsp://10.0.0.7/live"
    assert doctor.kind_of("/dev/video0") == "V4L2 camera /dev/video0"
    assert doctor.kind_of("picamera2:1") == "Raspberry Pi camera picamera2:1"


def test_a_camera_that_is_not_there() -> None:
    found = doctor.check_camera(PYTHON, CameraSettings(source="/dev/video99"))
    assert level_of(found) == "fail"
    assert "no such camera" in found.sentence


def test_a_covered_lens(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5 64 48 255\n" + bytes(64 * 48))
    assert level_of(doctor.check_camera(PYTHON, CameraSettings(source=str(tmp_path)))) == "warn"


def test_model() -> None:
    found = doctor.check_model(PYTHON, ModelSettings())
    assert level_of(found) == "ok", found
    assert "golden outputs" in found.sentence


def test_a_damaged_model(tmp_path: Path) -> None:
    folder = shutil.copytree(find_bundle("student-small"), tmp_path / "damaged")
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes() + b"\0")
    found = doctor.check_model(PYTHON, ModelSettings(bundle=str(folder)))
    assert level_of(found) == "fail"
    assert "sha256" in found.sentence


@pytest.mark.parametrize(("change", "level"), [("steps", "warn"), ("labels", "fail")])
def test_a_device_that_computes_something_else(tmp_path: Path, change: str, level: str) -> None:
    folder = shutil.copytree(find_bundle("student-small"), tmp_path / "other")
    with np.load(folder / "golden.npz") as stored:
        parts = dict(stored)
    outputs = parts["outputs"].astype(int)
    if change == "labels":
        outputs = np.roll(outputs, 1, axis=1)
    else:  # the lowest logit only, so that the expression stays
        outputs[0, outputs[0].argmin()] = max(-128, outputs[0].min() - 40)
    np.savez(folder / "golden.npz", **{**parts, "outputs": outputs.astype(np.int8)})
    found = doctor.check_model(PYTHON, ModelSettings(bundle=str(folder)))
    assert level_of(found) == level, found


def plugged(folder: Path, ids: str) -> Path:
    """A folder as the kernel's of USB devices, with a hub and this device."""
    for name, found in (("usb1", "1d6b:0002"), ("1-1", ids)):
        (folder / name).mkdir(parents=True)
        vendor, product = found.split(":")
        (folder / name / "idVendor").write_text(f"{vendor}\n")
        (folder / name / "idProduct").write_text(f"{product}\n")
    return folder


def test_edge_tpus_are_found_on_usb_and_pcie(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "apex_0").touch()
    for ids, words in (("1a6e:089a", "not used since"), ("18d1:9302", "used before")):
        [usb, pcie] = doctor.edge_tpus(Coral(plugged(tmp_path / ids, ids), tmp_path / "dev"))
        assert ids in usb
        assert words in usb
        assert pcie.startswith("PCIe ")
    assert doctor.edge_tpus(Coral(tmp_path / "none", tmp_path / "none")) == []


def coral(folder: Path, *, usb: bool) -> Coral:
    return Coral(plugged(folder / "usb", "18d1:9302" if usb else "0781:5581"), folder / "no-dev", ("echo", "-n"))


NO_LIBRARY = "libno-such-edgetpu.so.1"


@pytest.mark.parametrize(
    ("accelerator", "usb", "levels"),
    [
        ("cpu", True, ["ok"]),
        ("auto", False, ["ok"]),
        ("auto", True, ["ok", "warn", "warn"]),
        ("edgetpu", False, ["fail", "fail", "fail"]),
    ],
)
def test_a_device_without_the_library_of_edge_tpus(
    tmp_path: Path, accelerator: Literal["cpu", "auto", "edgetpu"], usb: bool, levels: list[str]
) -> None:
    model = ModelSettings(accelerator=accelerator, edgetpu_library=NO_LIBRARY)
    found = list(doctor.check_edgetpu(PYTHON, model, coral(tmp_path, usb=usb)))
    assert [level_of(finding) for finding in found] == levels


@pytest.mark.parametrize(
    ("mode", "level", "words"), [("present", "ok", "golden outputs"), ("crashes", "warn", "crashed with SIGABRT")]
)
def test_a_trial_of_an_edge_tpu(tmp_path: Path, standin: StandIn, mode: str, level: str, words: str) -> None:
    standin.plays(mode)
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    [device, library, trial] = doctor.check_edgetpu(PYTHON, model, coral(tmp_path, usb=True))
    assert level_of(device) == level_of(library) == "ok"
    assert "tells no version" in library.sentence
    assert level_of(trial) == level
    assert words in trial.sentence


def test_an_edge_tpu_for_which_the_bundle_has_nothing(tmp_path: Path, standin: StandIn) -> None:
    model = ModelSettings(edgetpu_library=str(standin.library))
    trial = list(doctor.check_edgetpu(PYTHON, model, coral(tmp_path, usb=True)))[-1]
    assert level_of(trial) == "warn"
    assert "has no model_edgetpu.tflite" in trial.sentence
    assert "fer-export compile" in trial.mend


@pytest.mark.parametrize(
    ("packages", "level"),
    [("libedgetpu1-std 16.0", "warn"), ("libedgetpu1-std 16.0tf2.19.1-1.trixie", "ok"), ("", "ok")],
)
def test_corals_own_build_is_too_old_for_the_runtimes_of_today(
    tmp_path: Path, standin: StandIn, packages: str, level: str
) -> None:
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    shown = replace(coral(tmp_path, usb=True), packages=("echo", packages))
    assert level_of(list(doctor.check_edgetpu(PYTHON, model, shown))[1]) == level


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "def list_edge_tpus(): return [{'type': 'usb', 'path': '/sys/bus/usb/devices/1-1'}]",
            "pycoral lists /sys/bus",
        ),
        ("raise ImportError('this is Allen Coral Atlas')", "used before"),
    ],
)
def test_pycoral_only_lists_devices(tmp_path: Path, standin: StandIn, code: str, words: str) -> None:
    package = tmp_path / "pycoral" / "utils"
    package.mkdir(parents=True)
    (package / "edgetpu.py").write_text(code)
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    python = ("env", f"PYTHONPATH={tmp_path}", sys.executable)
    device = next(doctor.check_edgetpu(python, model, coral(tmp_path, usb=True)))
    assert device.level == "ok"
    assert words in device.sentence


def test_a_broker_that_is_absent() -> None:
    settings = MqttSettings(host="127.0.0.1", port=free_port())
    found = doctor.check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == "fail"
    assert "cannot be reached" in found.sentence
    assert level_of(doctor.check_broker(PYTHON, settings, needed=False)) == "warn", "who only tries it out needs none"


def test_a_password_file_that_is_absent(tmp_path: Path) -> None:
    settings = MqttSettings(host="127.0.0.1", username="kiosk", password_file=str(tmp_path / "none"))
    assert "cannot be used" in doctor.check_broker(PYTHON, settings, needed=True).sentence


def test_the_services_password_lies_beside_its_settings(tmp_path: Path) -> None:
    config, secret = tmp_path / "config.toml", tmp_path / "mqtt-password"
    assert not with_secret_files(MqttSettings(), config).password_file
    secret.touch()
    assert with_secret_files(MqttSettings(), config).password_file == str(secret)
    assert with_secret_files(MqttSettings(password_file="own"), config).password_file == "own"


@pytest.mark.slow
def test_a_broker_that_accepts(broker: Broker) -> None:
    found = doctor.check_broker(PYTHON, MqttSettings(host="127.0.0.1", port=broker.port), needed=True)
    assert level_of(found) == "ok", found


@pytest.fixture
def guarded_broker(broker: Broker, tmp_path: Path) -> Broker:
    """It knows one user, kiosk, with the password in the file ``right``."""
    (tmp_path / "right").write_text("a secret\n")
    (tmp_path / "wrong").write_text("another\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "kiosk", "a secret"], check=True)
    broker.stop()
    broker.options = f"{broker.options.replace('anonymous true', 'anonymous false')}\npassword_file {tmp_path}/users"
    broker.start()
    return broker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "password", "level", "words"),
    [
        ("kiosk", "right", "ok", "accepts user kiosk"),
        ("kiosk", "wrong", "fail", "refuses user kiosk"),
        ("", "", "fail", "refuses a device without a user name"),
    ],
)
def test_a_broker_with_passwords(
    guarded_broker: Broker, tmp_path: Path, user: str, password: str, level: str, words: str
) -> None:
    file = str(tmp_path / password) if password else ""
    settings = MqttSettings(host="127.0.0.1", port=guarded_broker.port, username=user, password_file=file)
    found = doctor.check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == level, found
    assert words in found.sentence


def authority(folder: Path, name: str) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key beside it."""
    made = folder / f"{name}.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out", made]
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)
    return made


@pytest.fixture
def tls_broker(broker: Broker, tmp_path: Path) -> Broker:
    """It speaks TLS only, with the certificate ``ours``; ``other`` is one that it does not have."""
    authority(tmp_path, "other")
    certificate = authority(tmp_path, "ours")
    broker.stop()
    broker.options += f"\ncertfile {certificate}\nkeyfile {tmp_path}/ours.key"
    broker.start()
    return broker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ca", "level", "words"),
    [
        ("ours.pem", "ok", ", TLS"),
        ("other.pem", "fail", "certificate verify failed"),
        ("", "fail", "gives no MQTT answer"),
    ],
)
def test_a_broker_with_tls(tls_broker: Broker, tmp_path: Path, ca: str, level: str, words: str) -> None:
    settings = MqttSettings(host="127.0.0.1", port=tls_broker.port, ca_file=str(tmp_path / ca) if ca else "")
    found = doctor.check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == level, found
    assert words in found.sentence


@pytest.mark.slow
def test_tls_asked_of_a_broker_that_has_none(broker: Broker, tmp_path: Path) -> None:
    settings = MqttSettings(host="127.0.0.1", port=broker.port, ca_file=str(authority(tmp_path, "ours")))
    found = doctor.check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == "fail"
    assert "TLS" in found.sentence


def run_doctor(
    tmp_path: Path, port: int, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "config.toml"
    config.write_text(f'[camera]\nsource = "demo"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n')
    program = Path(sys.executable).with_name("fer-edge")
    command = [program, "doctor", "--config", config, *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | (environment or {})
    )


def test_a_numpy_that_does_not_import_is_a_finding_and_not_the_end_of_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('built for another Python')\n")
    done = run_doctor(tmp_path, free_port(), "--json", environment={"PYTHONPATH": str(tmp_path)})
    findings = {told["name"]: told for told in json.loads(done.stdout)}
    assert done.returncode == 1
    assert findings["packages"]["level"] == "fail"
    assert "built for another Python" in findings["packages"]["sentence"]
    assert findings["config"]["level"] == "ok"


def test_the_command_fails_with_the_worst_finding(tmp_path: Path) -> None:
    done = run_doctor(tmp_path, free_port(), "--json")
    findings = {told["name"]: told for told in json.loads(done.stdout)}
    assert list(findings) == [
        *("system", "python", "clock", "throttling", "disk", "config"),
        *("privacy", "packages", "groups", "camera", "model", "edgetpu", "broker"),
    ]
    assert all(set(told) == {"name", "level", "sentence", "mend"} for told in findings.values())
    assert findings["camera"]["level"] == findings["model"]["level"] == "ok"
    assert findings["broker"]["level"] == "fail"
    assert done.returncode == 1


def test_without_valid_settings_the_rest_is_told_as_unchecked(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[camera\n")
    found = {finding.name: finding.level for finding in doctor.examine(tmp_path / "bad.toml")}
    assert found["config"] == "fail"
    assert found["camera"] == found["model"] == found["broker"] == "warn"


@pytest.mark.slow
def test_the_command_on_a_healthy_device(broker: Broker, tmp_path: Path) -> None:
    done = run_doctor(tmp_path, broker.port)
    assert done.returncode == 0, done.stdout
    assert "ok    camera      source demo: a frame of 640x480\n" in done.stdout
    assert "\nfail" not in done.stdout


@pytest.mark.slow
def test_a_running_service_stays_connected(broker: Broker, tmp_path: Path) -> None:
    """A client that comes with the same id would throw it out."""
    settings = MqttSettings(host="127.0.0.1", port=broker.port, device="kiosk")
    seen: list[bytes] = []
    watcher = paho.Client(CallbackAPIVersion.VERSION2)
    watcher.on_connect = lambda client, *_: client.subscribe("fer-edge/kiosk/availability", qos=1)
    watcher.on_message = lambda _client, _data, message: seen.append(message.payload)
    watcher.connect("127.0.0.1", broker.port)
    watcher.loop_start()
    service = MqttPublisher(settings, Outbox(tmp_path / "outbox.db", 10))
    service.start()
    wait_until(lambda: seen == [b"online"], 10)
    assert doctor.check_broker(PYTHON, settings, needed=True).level == "ok"
    service.close(5)
    wait_until(lambda: seen[-1] == b"offline", 10)
    watcher.loop_stop()
    watcher.disconnect()
    assert seen == [b"online", b"offline"]
