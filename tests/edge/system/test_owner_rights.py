"""Root in a folder of a hostile user: whatever links that user puts there, no file of root changes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from edge.diagnostics.device_checks import check_model, deployed_model
from edge.errors import BundleError, FerEdgeError, UsageError
from edge.model.bundle import DEFAULT, find_bundle, open_bundle, read_card
from edge.model.registry import Choice, ModelRegistry
from edge.model.tuning import MeasuredSpeed, Tuning, load_tuning, save_tuning, tuning_conditions
from edge.mqtt.device_record import DeviceRecordStore
from edge.settings import MqttSettings, Settings, StoreSettings
from edge.system.installer import Machine, RunCommand, install_steps
from edge.system.instance import FIRST, Instance
from edge.system.owner_rights import require_own_folder, rights_of_owner
from edge.system.systemd import Service
from tests.conftest import Broker, wait_until
from tests.edge.listener import listening
from tests.edge.model.bundles import accept, bundle_named

HOSTILE = 65534  # nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root that every user can reach, with files of root and the state folder of a hostile user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "root").mkdir(mode=0o755)
        (folder / "root/file").write_text("of root")
        (folder / "root/file").chmod(0o600)
        state = folder / "state"
        state.mkdir(mode=0o750)
        os.chown(state, HOSTILE, HOSTILE)
        yield folder


def found(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Owner, mode, time of the last change and content of everything in a folder."""
    return {
        str(path): (kind.st_uid, kind.st_mode, kind.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
        for kind in [path.lstat()]
    }


def hostile_link(link: Path, target: Path) -> None:
    with rights_of_owner(link.parent):
        link.symlink_to(target)


def install(state: Path, source: Path) -> None:
    ModelRegistry(state).install(source, accept)


def use(state: Path, _: Path) -> None:
    ModelRegistry(state).use("student-small", accept)


def tune(state: Path, _: Path) -> None:
    conditions = tuning_conditions(open_bundle(find_bundle(DEFAULT)))
    chosen = MeasuredSpeed("cpu", 1, 1.0)
    save_tuning(state, Tuning(conditions, chosen, (chosen,), "", ""))


@needs_root
@pytest.mark.parametrize("command", [install, use, tune])
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("models", "root"),
        ("models/.lock", "root/file"),
        ("models/.lock", "root/new"),
        ("models/choice.new", "root/file"),
        ("models/choice.json", "root/file"),
        ("tuned.new", "root/file"),
        ("tuned.json", "root/new"),
    ],
)
def test_no_command_of_root_writes_through_a_link(
    place: Path, tmp_path: Path, name: str, target: str, command: Callable[[Path, Path], None]
) -> None:
    link = place / "state" / name
    if link.parent.name == "models":
        link.parent.mkdir()
        os.chown(link.parent, HOSTILE, HOSTILE)
    hostile_link(link, place / target)
    before = found(place / "root")
    try:
        command(place / "state", bundle_named(tmp_path, "mine"))
    except FerEdgeError as error:
        print(error)
    assert found(place / "root") == before
    assert {kind[0] for kind in found(place / "state").values()} == {HOSTILE}
    assert (os.geteuid(), os.getegid()) == (0, 0)


@needs_root
@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("models/choice.json", b'{"current":"","previous":"","number":7}', lambda state: ModelRegistry(state).choice),
        ("verdict.json", b'{"sentence":"of root"}', lambda state: ModelRegistry(state).verdict),
        ("tuned.json", b"of root", lambda state: load_tuning(state, open_bundle(find_bundle(DEFAULT)))),
        ("device.json", b'{"name":"of-root"}', lambda state: DeviceRecordStore(state).record),
        ("models/mine/card.json", b"of root", lambda state: read_card(state / "models/mine")),
        ("models/mine/card.json", b"of root", lambda state: open_bundle(state / "models/mine")),
    ],
)
def test_no_command_of_root_reads_through_a_link(
    place: Path, name: str, content: bytes, read: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    (place / "root/file").write_bytes(content)
    with rights_of_owner(place / "state"):
        link = place / "state" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place / "root/file")
    try:
        said = str(read(place / "state"))
    except BundleError as error:
        said = str(error)
    assert "of root" not in said
    assert "number=7" not in said
    assert "Permission denied" in said + caplog.text


def test_a_stored_choice_names_no_other_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("/root/bundle", "../mine", "a/b", "a\\u0000b", "a\\n", "x" * 300):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models/choice.json").write_text(f'{{"current":"{name}","number":1}}')
        assert ModelRegistry(tmp_path).choice == Choice(), name
        assert "so the bundled model is used" in caplog.text
        caplog.clear()


@needs_root
def test_a_loop_of_links_ends_no_command(place: Path) -> None:
    (place / "loop").symlink_to(place / "loop")
    assert ModelRegistry(place / "loop").choice == Choice()
    with pytest.raises(BundleError, match="Too many levels of symbolic links"):
        open_bundle(place / "loop/models/mine")


def after(command: str, given: Path | str) -> tuple[list[dict[str, object]], tuple[int, ...]]:
    """The JSON lines that a command of root prints in a process of its own, and its user ids at its end."""
    program = (
        "import os, sys; from argparse import Namespace; from pathlib import Path; given = sys.argv[1]\n"
        f"{command}\nprint(list(os.getresuid() + os.getresgid()))"
    )
    done = subprocess.run([sys.executable, "-c", program, given], capture_output=True, text=True, check=False)
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    *printed, ids = map(json.loads, done.stdout.splitlines())
    return printed, tuple(ids)


@needs_root
@pytest.mark.slow
def test_verify_runs_a_network_for_good_as_the_user_whose_it_is(
    place: Path, tmp_path: Path, broker: Broker, blobs: Path
) -> None:
    """What only root may read is read before: settings, password, and labelled faces."""
    ModelRegistry(place / "state").install(bundle_named(tmp_path, "mine"), accept)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[store]\nfolder = "{place}/state"\n[mqtt]\nport = {broker.port}\ndevice = "kiosk"\nusername = "kiosk"\n'
        f'password_file = "{place}/root/file"\n'
    )
    config.chmod(0o600)
    command = (
        "from edge.cli.verify import verify; from edge.errors import VerificationError\n"
        f"arguments = Namespace(config=Path(given), data=Path({str(blobs)!r}), split=None, publish=True, json=True)\n"
        "try: verify(arguments)\nexcept VerificationError as error: print(error, file=sys.stderr)"
    )
    with listening(broker.port) as listener:
        [result], ids = after(command, config)
        wait_until(lambda: listener.of("verification") and listener.of("accuracy"), 5)
    assert (result["golden"]["model"], result["golden"]["ok"]) == ("mine", True)  # type: ignore[index]
    assert ids == (HOSTILE,) * 6


@needs_root
def test_the_doctor_runs_a_network_for_good_as_the_user_whose_it_is(place: Path, tmp_path: Path) -> None:
    name = ModelRegistry(place / "state").install(bundle_named(tmp_path, "mine"), accept)
    settings = Settings(store=StoreSettings(folder=str(place / "state")))
    model = deployed_model(settings, {})
    assert model.bundle == str(place / "state/models" / name)
    argument = msgspec.json.encode(model).decode()
    [golden], ids = after("from edge.diagnostics.probes import golden; golden(given)", argument)
    assert (golden["model"], golden["ok"]) == ("mine", True)
    assert ids == (HOSTILE,) * 6
    finding = check_model([sys.executable], model)
    assert (finding.level, "mine on " in finding.sentence) == ("ok", True)


@needs_root
def test_a_hostile_owner_above_the_state_folder_counts_too(place: Path, tmp_path: Path) -> None:
    hostile_link(place / "state/deeper", place / "root")
    before = found(place / "root")
    with pytest.raises(UsageError, match="cannot be written"):
        install(place / "state/deeper", bundle_named(tmp_path, "mine"))
    assert found(place / "root") == before


@needs_root
def test_the_installed_model_belongs_to_the_owner_and_can_be_switched(place: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(place / "state")
    seen = []
    name = registry.install(bundle_named(tmp_path, "mine"), lambda _: seen.append(os.geteuid()))
    registry.use("student-small", lambda _: seen.append(os.geteuid()))
    assert registry.rollback(lambda _: seen.append(os.geteuid())) == name
    assert seen == [HOSTILE] * 3, "an untrusted network is run without root's rights"


@needs_root
def test_models_that_an_earlier_version_installed_as_root_are_handed_over(place: Path, tmp_path: Path) -> None:
    state = place / "var/lib/fer-edge"
    state.parent.mkdir(parents=True)
    (place / "state").rename(state)
    (state / "models").mkdir()
    with pytest.raises(UsageError, match=f"must belong to nobody: sudo chown .* nobody: {state}/models$"):
        install(state, bundle_named(tmp_path, "mine"))
    [words] = [
        step.words for step in install_steps(Machine(place)) if isinstance(step, RunCommand) if "-P" in step.words
    ]
    assert words[-2:] == ("fer-edge:fer-edge", f"{state}/models")
    os.chown(state / "models", HOSTILE, HOSTILE)
    assert not [step for step in install_steps(Machine(place)) if "-P" in str(step)]
    install(state, bundle_named(tmp_path, "other"))


@needs_root
def test_an_installation_gives_away_nothing_to_which_an_instances_folder_leads(place: Path) -> None:
    """The state folder of an instance lies in a folder of the service's user, who may put a link in its place."""
    state = place / "var/lib/fer-edge"
    state.parent.mkdir(parents=True)
    (place / "state").rename(state)
    (place / "root/models").mkdir()
    hostile_link(state / "door", place / "root")
    for instances in ([Instance("door")], [FIRST, Instance("door")]):
        words = [step.words for step in install_steps(Machine(place), instances) if isinstance(step, RunCommand)]
        assert not [one for one in words if f"{state}/door/models" in one]


@needs_root
def test_root_does_not_run_in_the_folder_of_another_user(place: Path) -> None:
    from edge.app.broker_session import open_broker_session  # noqa: PLC0415  it imports most of the program
    from edge.mqtt.device_record import DeviceRecordStore  # noqa: PLC0415

    settings = Settings(store=StoreSettings(folder=str(place / "state")), mqtt=MqttSettings(device="kiosk"))
    with pytest.raises(UsageError, match=r"state belongs to nobody.*sudo -u nobody"):
        open_broker_session(settings, None, Service({}), DeviceRecordStore(place / "state"))
    assert not list((place / "state").iterdir())
    require_own_folder(place / "root")


@needs_root
def test_root_keeps_no_name_in_the_folder_of_another_user(place: Path) -> None:
    """The name is kept before anything else is opened there."""
    from edge.mqtt.device_record import DeviceRecordStore  # noqa: PLC0415
    from edge.mqtt.topics import with_device_name  # noqa: PLC0415

    state, victim = place / "state", place / "victim"
    victim.write_text("root's")
    hostile_link(state / "device.new", victim)
    with pytest.raises(UsageError, match=r"state belongs to nobody.*sudo -u nobody"):
        with_device_name(Settings(), DeviceRecordStore(state), keep=True, serial=place / "none")
    assert victim.read_text() == "root's"


@needs_root
def test_all_threads_get_their_rights_back_after_an_error(place: Path) -> None:
    groups = os.getgroups()
    with suppress(ZeroDivisionError), rights_of_owner(place / "state"):
        assert (os.geteuid(), os.getegid()) == (HOSTILE, HOSTILE)
        _ = 1 / 0
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(os.geteuid()))
    thread.start()
    thread.join()
    assert (seen, os.getegid(), os.getgroups()) == ([0], 0, groups)


def test_root_keeps_its_rights_in_a_folder_of_its_own(tmp_path: Path) -> None:
    before = os.geteuid()
    with rights_of_owner(tmp_path / "not made yet"):
        assert os.geteuid() == before
