"""The service in a booted systemd: installation, settings, sandbox, reboot and removal."""

import json
import time
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.platform.container import BOX, CONFIG, Container, Subscriber

pytestmark = pytest.mark.slow


def test_the_wheel_becomes_a_service_that_publishes_events(installed: Container, events: Subscriber) -> None:
    event = json.loads(events.wait(lambda topic, _: topic.endswith("/event"), 30))
    assert event["kind"] in ("appeared", "changed", "uncertain", "left")
    assert events.wait(lambda topic, _: topic.endswith("/availability"), 5) == "online"
    status = installed.status()
    assert (status["state"], status["enabled"]) == ("active", True)
    assert "cpu" in status["status"]


def test_installing_again_changes_nothing(installed: Container) -> None:
    again = installed.fer_edge("service", "install", "--dry-run")
    assert "write" not in again
    process = installed.show("MainPID")
    assert again in installed.fer_edge("service", "install")
    installed.ready(after=int(process))
    assert (installed.root / "etc/fer-edge/config.toml").read_text() == CONFIG


def test_pictures_stay_in_memory_and_state_with_its_owner(installed: Container) -> None:
    process = installed.ready()
    assert (installed.show("MemorySwapMax"), installed.show("MemoryMax")) == ("0", str(384 * 2**20))
    # The kernel gives this file to root when the process must not be dumped (proc(5)).
    assert installed.run("stat", "--format=%U", f"/proc/{process}/environ").strip() == "root"
    state = "/var/lib/fer-edge"
    open_to_others = installed.run("find", state, "-name", "kiosk*", "-perm", "/077")
    assert open_to_others == ""


def test_root_does_not_follow_links_of_the_services_user(installed: Container) -> None:
    models = "/var/lib/fer-edge/models"
    use = ("model", "use", "student-small", "--no-restart")
    installed.run("rm", "-rf", models)
    installed.run("runuser", "-u", "fer-edge", "--", "ln", "-s", "/root", models)
    before = installed.run("stat", "--format=%a %Z", "/root"), installed.run("ls", "-A", "/root")
    refused = installed.fer_edge(*use, check=False)
    assert f"{models} cannot be written: " in refused
    assert (installed.run("stat", "--format=%a %Z", "/root"), installed.run("ls", "-A", "/root")) == before
    installed.run("rm", models)
    installed.fer_edge(*use)
    assert installed.run("find", models, "!", "-user", "fer-edge") == ""
    installed.run("rm", "-r", models)


def test_statistics_are_complete_in_the_sandbox(installed: Container, events: Subscriber) -> None:
    installed.ready()
    statistics = json.loads(events.wait(lambda topic, _: topic.endswith("/statistics"), 30))
    print(statistics)
    assert statistics["fps"] > 0
    assert statistics["bytes_written_last_hour"] is not None
    assert statistics["outbox"]["durable"]


def test_reload_starts_it_again_with_new_settings(installed: Container, events: Subscriber) -> None:
    former = installed.restart()
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}user = "kiosk"\n')
    time.sleep(31)  # an earlier reload is refused
    installed.send_command("reload", "")
    refused = json.loads(events.wait(lambda topic, _: topic.endswith("/reply"), 10))
    assert (refused["error"], "unknown key mqtt.user" in refused["sentence"]) == ("failed", True)
    installed.write("etc/fer-edge/config.toml", CONFIG.replace("= 2", "= 1"))
    installed.send_command("reload", '{"id":"new"}')
    events.wait(lambda topic, payload: topic.endswith("/reply") and json.loads(payload)["ok"], 10)
    installed.ready(after=former)
    assert int(installed.show("NRestarts")) == 1
    installed.write("etc/fer-edge/config.toml", CONFIG)


@pytest.mark.parametrize("hangs", [False, True])
def test_it_stops_within_five_seconds_even_when_the_camera_hangs(installed: Container, *, hangs: bool) -> None:
    installed.restart()
    if hangs:
        installed.run("systemctl", "kill", "--signal=STOP", "camera")
        time.sleep(0.5)
    began = time.monotonic()
    installed.run("systemctl", "stop", "fer-edge")
    took = time.monotonic() - began
    print(f"stopped in {took:.2f} s")
    installed.run("systemctl", "kill", "--signal=CONT", "camera")
    assert took < 5
    assert installed.show("Result") == "success"
    late = Subscriber(installed, "fer-edge/kiosk/availability")
    assert late.wait(lambda _topic, _payload: True, 5) == "offline"
    late.close()


def test_the_sandbox_denies_what_the_service_does_not_need(installed: Container) -> None:
    installed.run("mknod", "--mode=666", "/dev/forbidden", "c", "10", "229")  # harmless: it is /dev/fuse
    inside = _run_probe(installed, "")
    assert inside["devices"] == {"null": "done", "forbidden": "EPERM"}
    # Only the policy denied it.
    assert _run_probe(installed, "DevicePolicy=auto\nDeviceAllow=\n")["devices"]["forbidden"] == "done"
    allowed = {file for file, outcome in inside["writes"].items() if outcome == "done"}
    assert allowed == {"/var/lib/fer-edge/probe", "/run/fer-edge/probe"}
    assert set(inside["writes"].values()) == {"done", "EROFS", "EACCES"}
    groups = {installed.run("getent", "group", name).split(":")[2] for name in ("video", "render", "plugdev")}
    assert groups <= {str(group) for group in inside["groups"]}
    assert inside["user"] != 0
    assert inside["packet_socket"] == "EAFNOSUPPORT"
    assert inside["mount"] == inside["set_clock"] == "EPERM"
    assert inside["ask_clock"] == "done"
    assert inside["capabilities"] == ["0000000000000000"]
    assert inside["no_new_privileges"]
    assert inside["callback"] == "done"  # TFLite's delegates need one, in spite of MemoryDenyWriteExecute=


def _run_probe(container: Container, changes: str) -> dict[str, Any]:
    """Run the probe in the unit's own sandbox."""
    result = "/run/fer-edge/probe.json"
    container.run("systemctl", "stop", "fer-edge")
    # --wait would need a main process that ends: Type=oneshot is the one whose start returns with its end.
    text = f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nRuntimeDirectoryPreserve=yes\nExecStart=\n{changes}"
    text += f"ExecStart=/usr/bin/python3 /{BOX}/sandbox_probe.py\n"
    container.write("etc/systemd/system/fer-edge.service.d/test.conf", text)
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", "fer-edge")
    return dict(json.loads(container.run("cat", result)))


def test_the_password_comes_as_a_credential_and_may_be_absent(installed: Container) -> None:
    secret = installed.root / "etc/fer-edge/mqtt-password"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.unlink()
    installed.restart()
    installed.write("etc/mosquitto/conf.d/locked.conf", "listener 1884 127.0.0.1\npassword_file /etc/mosquitto/users\n")
    installed.run("mosquitto_passwd", "-b", "-c", "/etc/mosquitto/users", "kiosk", "open sesame")
    installed.run("chown", "mosquitto", "/etc/mosquitto/users")
    installed.run("systemctl", "restart", "mosquitto")
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}port = 1884\nusername = "kiosk"\n')
    began = time.time()
    installed.restart()
    wait_until(lambda: "connected to the MQTT broker at localhost:1884" in installed.journal(began), 10)
    process = installed.show("MainPID")
    assert "sesame" not in installed.run("cat", f"/proc/{process}/cmdline", f"/proc/{process}/environ")
    installed.write("etc/fer-edge/config.toml", CONFIG)
    (installed.root / "etc/mosquitto/conf.d/locked.conf").unlink()
    installed.run("systemctl", "restart", "mosquitto")


@pytest.mark.parametrize(
    ("ca_file", "words"),
    [
        ("/home/pi/ca.pem", "mqtt.ca_file: /home/pi/ca.pem is hidden from the service"),
        ("ca.pem", "mqtt: ca.pem cannot be used: No such file or directory"),
        ("/etc/fer-edge/ca.pem", "mqtt.ca_file: fer-edge may not read /etc/fer-edge/ca.pem"),
    ],
)
def test_the_doctor_names_what_root_can_read_and_the_service_cannot(
    installed: Container, ca_file: str, words: str
) -> None:
    installed.write("home/pi/ca.pem", "")
    installed.run("install", "-m", "600", "/home/pi/ca.pem", "/etc/fer-edge/ca.pem")
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}ca_file = "{ca_file}"\n')
    doctor = ("/opt/fer-edge/bin/fer-edge", "doctor", "--config", "/etc/fer-edge/config.toml")
    told = installed.run("env", "-C", "/home/pi", *doctor, check=False)
    installed.write("etc/fer-edge/config.toml", CONFIG)
    assert words in told


def test_an_upgrade_keeps_the_settings_and_names_a_key_that_is_gone(installed: Container) -> None:
    former = installed.restart()
    pip = ("/opt/fer-edge/bin/pip", "install", "--quiet", "--no-index", "--find-links", f"/{BOX}/wheels")
    installed.run(*pip, "--upgrade", "--force-reinstall", "--no-deps", "fer-edge")
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}user = "kiosk"\n')
    refused = installed.fer_edge("service", "install", check=False)
    assert "unknown key mqtt.user; did you mean mqtt.username?" in refused
    assert int(installed.show("MainPID")) == former
    installed.write("etc/fer-edge/config.toml", CONFIG)
    installed.fer_edge("service", "install")
    installed.ready(after=former)
    assert (installed.root / "etc/fer-edge/config.toml").read_text() == CONFIG
    assert (installed.root / "etc/fer-edge/config.toml.new").read_text().startswith("# Settings of fer-edge.")


def test_invalid_settings_end_it_with_their_exit_code(installed: Container) -> None:
    installed.restart("RestartSec=60\n")
    installed.write("etc/fer-edge/config.toml", "[mqtt]\nuser = 1\n")
    installed.run("systemctl", "restart", "fer-edge", check=False)
    status = installed.status()
    assert status["exit_code"] == 3
    assert "mqtt.user" in status["status"]
    installed.write("etc/fer-edge/config.toml", CONFIG)


def test_it_comes_back_after_a_reboot(installed: Container) -> None:
    installed.restart()
    installed.reboot()
    installed.ready()
    later = Subscriber(installed, "fer-edge/kiosk/availability")
    later.wait(lambda _, payload: payload == "online", 10)
    later.close()
    assert installed.status()["state"] == "active"


def test_a_pause_survives_a_reboot(installed: Container, events: Subscriber) -> None:
    installed.send_command("pause", '{"on":true}')
    events.wait(lambda topic, payload: topic.endswith("/paused") and payload == "ON", 10)
    installed.reboot()
    installed.ready()
    assert installed.status()["status"] == "paused: the camera is closed"
    time.sleep(25)  # longer than the watchdog waits
    assert (installed.show("ActiveState"), installed.show("NRestarts")) == ("active", "0")
    tcp = [line.split() for line in installed.run("cat", "/proc/net/tcp").splitlines()]
    assert not [fields for fields in tcp if fields[2].endswith(":1F90") and fields[3] == "01"], "the camera is closed"
    installed.send_command("pause", '{"on":false}')
    wait_until(lambda: "frames/s" in installed.show("StatusText"), 40)


def test_uninstalling_leaves_the_settings(installed: Container) -> None:
    installed.fer_edge("service", "uninstall")
    assert installed.status()["state"] == "not installed"
    assert (installed.root / "etc/fer-edge/config.toml").exists()
    for file in ("systemd/system/fer-edge.service", "udev/rules.d/60-fer-edge.rules", "sysusers.d/fer-edge.conf"):
        assert not (installed.root / "etc" / file).exists()
    installed.fer_edge("service", "uninstall")
    installed.fer_edge("service", "install")  # the container is shared
    installed.ready()
