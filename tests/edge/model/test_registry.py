"""ModelRegistry on the device: what is refused, what a power cut leaves, and what the service falls back to."""

import errno
import io
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from edge.cli.main import _parser
from edge.cli.model import list_models
from edge.errors import BundleError, StoreError, UsageError, VerificationError
from edge.model.archive import LARGEST, read_bundle_archive
from edge.model.bundle import DEFAULT, find_bundle, open_bundle
from edge.model.loader import deploy
from edge.model.registry import KEPT, ModelRegistry, state_folder
from edge.model.verification import decode
from edge.settings import Settings, StoreSettings
from edge.system.systemd import Service
from tests.conftest import ROOT, Broker, wait_until
from tests.edge.cli.test_main import PROGRAM, fer_edge
from tests.edge.listener import listening

BUNDLED = find_bundle("student-small")


def passing(_: object) -> None:
    """A check that has nothing to object."""


def variant(folder: Path, name: str) -> Path:
    """A sound bundle with another name, and so another fingerprint."""
    copy = Path(shutil.copytree(BUNDLED, folder / name))
    file = copy / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    return copy


def failing(folder: Path, name: str) -> Path:
    """A bundle that opens, but whose network gives something else than its goldens."""
    copy = variant(folder, name)
    with np.load(copy / "golden.npz") as stored:
        parts = dict(stored)
    np.savez(copy / "golden.npz", **{**parts, "outputs": np.roll(parts["outputs"], 1, axis=1)})
    return copy


def zipped(folder: Path, file: Path, under: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, f"{under}{part.name}")
    return file


@pytest.fixture
def models(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "state")


@pytest.mark.parametrize("form", ["folder", "zip", "zip with a folder"])
def test_a_bundle_is_installed_from_a_folder_and_from_a_zip(tmp_path: Path, models: ModelRegistry, form: str) -> None:
    source = variant(tmp_path, "mine")
    (source / "notes.txt").write_text("not part of a bundle")
    if form != "folder":
        source = zipped(source, tmp_path / "mine.zip", "mine/" if "with" in form else "")
    name = models.install(source, passing)
    assert models.choice.current == name
    assert name.startswith("mine-")
    folder = models.candidates()[0].folder
    assert open_bundle(folder).card.name == "mine"
    assert not (folder / "notes.txt").exists()
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}, "the service must read them"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(models.folder.stat().st_mode) == 0o755


def test_the_other_model_of_the_program_is_chosen_by_its_name(tmp_path: Path, models: ModelRegistry) -> None:
    models.use("student-small", passing)
    assert [candidate.called for candidate in models.candidates()] == ["student-small", DEFAULT]
    assert open_bundle(models.candidates()[0].folder).card.name == "student-small"
    mine = models.install(variant(tmp_path, "mine"), passing)
    assert models.rollback(passing) == "student-small"
    assert {one.name: one.role for one in list_models(models)} == {
        DEFAULT: "",
        "student-small": "in use",
        mine: "previous",
    }


def test_switching_rolling_back_and_the_programs_own(tmp_path: Path, models: ModelRegistry) -> None:
    one, two = (models.install(variant(tmp_path, name), passing) for name in ("one", "two"))
    assert (models.choice.current, models.choice.previous) == (two, one)
    assert models.rollback(passing) == one
    assert models.rollback(passing) == two
    models.use(DEFAULT, passing)
    assert [candidate.called for candidate in models.candidates()] == [DEFAULT, two]
    listed = {one.name: one.role for one in list_models(models)}
    assert listed == {DEFAULT: "in use", "student-small": "", two: "previous", one: ""}
    with pytest.raises(UsageError, match=f"did you mean {one}"):
        models.use(one[:-1], passing)


def test_the_disk_keeps_the_models_that_were_last_in_use(tmp_path: Path, models: ModelRegistry) -> None:
    source = variant(tmp_path, "mine")

    def install(number: int) -> str:
        card = json.loads((source / "card.json").read_text())
        (source / "card.json").write_text(json.dumps(card | {"name": f"model{number}"}))
        name = models.install(source, passing)
        os.utime(models.folder / name, (number, number))  # installed one second after the other
        return name

    names = [install(number) for number in range(KEPT)]
    assert models.installed() == names, "none is removed before there are too many"
    models.use(names[1], passing)
    models.use(names[0], passing)
    (models.folder / "broken").mkdir()
    os.utime(models.folder / "broken", (0, 0))
    newest = install(KEPT)
    assert (models.choice.current, models.choice.previous) == (newest, names[0])
    assert models.installed() == sorted([names[0], names[1], names[3], names[4], newest])
    assert not (models.folder / "broken").exists(), "what is no bundle takes no place for ever"
    assert not list(models.folder.glob(".incoming*"))
    assert models.rollback(passing) == names[0]


def test_installing_the_same_again_changes_nothing_but_mends_what_was_damaged(
    tmp_path: Path, models: ModelRegistry
) -> None:
    source = variant(tmp_path, "mine")
    name = models.install(source, passing)
    (models.folder / name / "model.tflite").write_bytes(b"damaged")
    assert models.install(source, passing) == name
    assert open_bundle(models.folder / name).card.name == "mine"
    assert models.installed() == [name]


def test_a_model_that_fails_its_check_changes_nothing(tmp_path: Path, models: ModelRegistry) -> None:
    one = models.install(variant(tmp_path, "one"), passing)

    def objecting(_: object) -> None:
        raise VerificationError("no")

    with pytest.raises(VerificationError):
        models.install(variant(tmp_path, "two"), objecting)
    assert (models.choice.current, models.installed()) == (one, [one])
    assert not list(models.folder.glob(".incoming*"))


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
        (archive_of(CARD, (entry("model.tflite"), bytes(LARGEST["model.tflite"] + 1))), "larger than 33554432 bytes"),
        (archive_of(CARD, *((entry(f"{n}"), b"") for n in range(1000))), "1001 entries"),
        (archive_of((entry("a/card.json"), b"{}"), (entry("b/card.json"), b"{}")), "2 files card.json"),
        (archive_of((entry("model.tflite"), b"")), "no card.json at its top"),
        (b"hello", "neither a bundle's folder nor a readable zip"),
        (b"", "neither a bundle's folder nor a readable zip"),
    ],
)
def test_a_zip_that_is_not_to_be_trusted_is_refused(
    tmp_path: Path, models: ModelRegistry, content: bytes, words: str
) -> None:
    file = tmp_path / "bundle.zip"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=words):
        models.install(file, passing)
    assert models.installed() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.zip"]


def test_links_and_devices_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name, make in (
        ("link", lambda file: file.symlink_to("/etc/shadow")),
        ("pipe", os.mkfifo),
        ("folder", Path.mkdir),
    ):
        source = variant(tmp_path, name)
        (source / "model.tflite").unlink()
        make(source / "model.tflite")
        with pytest.raises(BundleError, match=r"not followed|not a regular file"):
            read_bundle_archive(source)


@pytest.mark.parametrize("name", ["../../etc", "", ".hidden", "a/b", "x" * 65])
def test_a_cards_name_makes_no_path(tmp_path: Path, models: ModelRegistry, name: str) -> None:
    source = variant(tmp_path, "mine")
    card = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps(card | {"name": name}))
    with pytest.raises(BundleError, match=f"^{source}: its card calls it"):
        models.install(source, passing)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_what_is_wrong_is_said_of_the_file_that_was_handed_over(
    tmp_path: Path, models: ModelRegistry, form: str
) -> None:
    """Not of the copy in the device's state, which is gone by then."""
    source = variant(tmp_path, "mine")
    (source / "model.tflite").write_bytes(b"damaged")
    source = source if form == "folder" else zipped(source, tmp_path / "mine.zip")
    with pytest.raises(BundleError, match=rf"^{source}/model\.tflite: its sha256 is") as refusal:
        models.install(source, passing)
    assert ".incoming" not in str(refusal.value)


def test_a_full_disk_leaves_nothing_half_installed(tmp_path: Path, models: ModelRegistry) -> None:
    one = models.install(variant(tmp_path, "one"), passing)
    two = variant(tmp_path, "two")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # the kernel then fails writes, as a full disk does
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            models.install(two, passing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (models.choice.current, models.installed()) == (one, [one])
    assert not list(models.folder.glob(".incoming*"))


def test_each_kind_of_trouble_with_the_disk_has_its_error(tmp_path: Path) -> None:
    def trouble(number: int) -> Callable[[str], None]:
        def step(_: str) -> None:
            raise OSError(number, os.strerror(number))

        return step

    source = variant(tmp_path, "mine")
    for number, kind, words in (
        (errno.EACCES, UsageError, "needs root"),
        (errno.ENOSPC, StoreError, "No space left on device"),
        (errno.EROFS, StoreError, "Read-only file system"),
    ):
        models = ModelRegistry(tmp_path / "state", trouble(number))
        with pytest.raises(kind, match=words):
            models.install(source, passing)
        assert not list(models.folder.glob(".incoming*"))


def test_a_choice_that_is_damaged_is_the_programs_own(tmp_path: Path, models: ModelRegistry) -> None:
    models.install(variant(tmp_path, "mine"), passing)
    (models.folder / "choice.json").write_bytes(b"\xff{")
    assert models.candidates()[0].folder == find_bundle(DEFAULT)


def test_a_power_cut_before_any_step_leaves_a_usable_model(tmp_path: Path) -> None:
    first, second = variant(tmp_path, "first"), variant(tmp_path, "second")
    done = subprocess.run(
        [sys.executable, "-m", "tests.edge.power_cuts", tmp_path / "state", first, second],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    *cuts, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cuts) >= 10, done.stdout
    steps = [cut["step"] for cut in cuts]
    after = ["chosen", "remove older-1", "remove its files", "remove older-0", "remove its files"]
    assert steps[-len(after) - 2 :] == ["sync the name", "choose", *after]
    for number, cut in enumerate(cuts):
        expected = "second-" if number >= len(cuts) - len(after) else "first-"
        assert cut["usable"].startswith(expected), cut
    assert end["usable"].startswith("second-")
    assert [name.rpartition("-")[0] for name in end["listed"]] == ["first", "older", "older", "older", "second"]
    assert end["ok"]


@pytest.mark.slow
def test_killing_a_real_installation_at_random_leaves_a_usable_model(tmp_path: Path) -> None:
    """SIGKILL between the first file that it makes and its end, wherever that falls."""
    bundles = [variant(tmp_path, f"model{number}") for number in range(2)]
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    models = ModelRegistry(tmp_path / "state")
    chance = random.Random(9)
    killed = 0
    for attempt in range(6):
        shutil.rmtree(models.folder, ignore_errors=True)
        if attempt % 2:
            models.install(bundles[1], passing)
        before = models.choice.current
        process = subprocess.Popen(
            [PROGRAM, "model", "install", bundles[0], "--config", config], stdout=subprocess.DEVNULL
        )
        wait_until(lambda: list(models.folder.glob(".incoming*")) or process.poll() is not None, 60)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        left = models.candidates()[0]
        assert left.name == before or left.name.startswith("model0-")
        open_bundle(left.folder)
        models.install(bundles[0], passing)
        assert not list(models.folder.glob(".incoming*")), "what was left is cleared by the next"
    assert killed >= 3


def service(folder: Path) -> Service:
    """A service as systemd starts it, up to where it opens its model."""
    folder.mkdir(exist_ok=True)
    made = Service({"NOTIFY_SOCKET": str(folder / "nobody"), "RUNTIME_DIRECTORY": str(folder)})
    made.wait_for_turn()
    return made


def settings(state: Path) -> Settings:
    return Settings(store=StoreSettings(folder=str(state)))


@pytest.mark.filterwarnings("ignore")
def test_a_service_falls_back_when_goldens_fail_and_says_so(tmp_path: Path, models: ModelRegistry) -> None:
    good = models.install(variant(tmp_path, "good"), passing)
    bad = models.install(failing(tmp_path, "bad"), passing)
    running = deploy(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert running.classifier.card.name == "good"
    assert running.verification.ok
    assert bad in running.refused
    assert "golden outputs differ" in running.refused
    again = deploy(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert (again.classifier.card.name, again.refused) == ("good", running.refused)
    assert {one.name: one.role for one in list_models(ModelRegistry(tmp_path / "state"))} == {
        DEFAULT: "",
        "student-small": "",
        good: "in use",
        bad: "refused",
    }
    models = ModelRegistry(tmp_path / "state")
    models.rollback(passing)
    assert deploy(settings(tmp_path / "state"), {}, service(tmp_path / "run")).refused == ""


def test_by_hand_a_model_that_fails_is_an_error(tmp_path: Path, models: ModelRegistry) -> None:
    models.install(failing(tmp_path, "bad"), passing)
    with pytest.raises(VerificationError, match="golden outputs differ"):
        deploy(settings(tmp_path / "state"), {}, Service({}))


def test_a_damaged_model_is_left_for_the_former_one_and_then_for_the_programs(
    tmp_path: Path, models: ModelRegistry
) -> None:
    one, two = (models.install(variant(tmp_path, name), passing) for name in ("one", "two"))
    for name in (one, two):
        (models.folder / name / "model.tflite").write_bytes(b"")
    running = deploy(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert running.classifier.card.name == DEFAULT
    assert "sha256" in running.refused


def test_a_crash_in_the_first_minute_makes_it_fall_back(tmp_path: Path, models: ModelRegistry) -> None:
    models.install(variant(tmp_path, "one"), passing)
    state, run = tmp_path / "state", tmp_path / "run"
    first = service(run)
    assert deploy(settings(state), {}, first).classifier.card.name == "one"
    first.lasted()
    models.install(variant(tmp_path, "two"), passing)
    assert deploy(settings(state), {}, service(run)).classifier.card.name == "two"
    running = deploy(settings(state), {}, service(run))  # the process before has ended without a word
    assert running.classifier.card.name == "one"
    assert "without a word in its first minute" in running.refused


def test_what_is_not_the_models_fault_does_not_make_it_fall_back(tmp_path: Path, models: ModelRegistry) -> None:
    models.install(variant(tmp_path, "one"), passing)
    state, run = tmp_path / "state", tmp_path / "run"
    for end in (lambda one: one.failed(UsageError("no camera")), Service.forget_failures):
        started = service(run)
        assert deploy(settings(state), {}, started).refused == ""
        end(started)
    assert deploy(settings(state), {}, service(run)).refused == ""
    shutil.rmtree(run)  # a power cut: what is in memory is gone
    started = service(run)
    assert deploy(settings(state), {}, started).refused == ""
    started.lasted()
    assert deploy(settings(state), {}, service(run)).refused == "", "a crash after it has lasted proves nothing"


def test_a_verdict_holds_until_the_next_switch(tmp_path: Path, models: ModelRegistry) -> None:
    one = models.install(variant(tmp_path, "one"), passing)
    models.refuse("it crashed")
    assert ModelRegistry(tmp_path / "state").candidates()[0].name == ""
    models.use(one, passing)
    assert ModelRegistry(tmp_path / "state").candidates()[0].name == one


def test_settings_that_name_a_bundle_win(tmp_path: Path, models: ModelRegistry) -> None:
    models.install(variant(tmp_path, "mine"), passing)
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n[model]\nbundle = "student-small"\n')
    done = fer_edge("model", "list", "--config", config)
    assert "that is what runs" in done.stderr
    assert done.stdout.splitlines()[2].startswith("in use    mine-")


def test_the_commands_as_they_are_typed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    archive = zipped(variant(tmp_path, "mine"), tmp_path / "mine.zip", "mine/")
    done = fer_edge("model", "install", archive, "--config", config)
    assert (done.returncode, done.stdout.startswith("in use: mine-")) == (0, True), done.stderr
    done = fer_edge("model", "install", failing(tmp_path, "bad"), "--config", config)
    assert (done.returncode, "was not put in use" in done.stderr) == (23, True), done.stderr
    [own, _, mine] = json.loads(fer_edge("model", "list", "--config", config, "--json").stdout)
    assert (own["role"], mine["role"]) == ("previous", "in use")
    assert fer_edge("model", "rollback", "--config", config).stdout == f"in use: {DEFAULT}\n"
    assert fer_edge("model", "use", mine["name"], "--config", config).returncode == 0
    assert mine["sha256"][:12] in fer_edge("verify", "--config", config).stdout
    assert fer_edge("model", "use", "nothing", "--config", config).returncode == 2
    assert fer_edge("model", "install", tmp_path / "absent", "--config", config).returncode == 4


def test_where_the_state_is(tmp_path: Path) -> None:
    assert state_folder(StoreSettings(folder="/data"), {"STATE_DIRECTORY": "/var/lib/x"}) == Path("/data")
    assert state_folder(StoreSettings(), {"STATE_DIRECTORY": "/var/lib/x"}) == Path("/var/lib/x")
    user = {"XDG_STATE_HOME": str(tmp_path)}
    assert state_folder(StoreSettings(), user, tmp_path / "absent") == tmp_path / "fer-edge"
    (tmp_path / "service").mkdir()
    assert state_folder(StoreSettings(), user, tmp_path / "service") == tmp_path / "service", (
        "a technician sees what it sees"
    )


@pytest.mark.parametrize("command", [["model", "list"], ["model", "use", "student"], ["verify"]])
def test_who_may_not_see_the_services_choice_is_told_so(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder is 0750: without this the program's own model would be taken for the one that runs."""
    with tempfile.TemporaryDirectory(dir="/tmp") as state:  # one to which nobody can come
        monkeypatch.setenv("STATE_DIRECTORY", state)
        Path(state).chmod(0o300)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            arguments = _parser().parse_args(command)
            with pytest.raises(UsageError, match=f"^{state} cannot be read: Permission denied. This needs root: sudo"):
                getattr(import_module(arguments.module), arguments.function)(arguments)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            Path(state).chmod(0o700)


@pytest.mark.slow
def test_the_service_tells_which_model_runs_and_why_another_does_not(tmp_path: Path, broker: Broker) -> None:
    state = tmp_path / "state"
    ModelRegistry(state).install(failing(tmp_path, "bad"), passing)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[store]\nfolder = "{state}"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n'
    )
    environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "RUNTIME_DIRECTORY": str(tmp_path)}
    words = [PROGRAM, "run", "--config", config, "--events", "mqtt", "--source", "demo", "--realtime"]
    with listening(broker.port) as listener, subprocess.Popen(words, env=environ, stderr=subprocess.DEVNULL) as kiosk:
        wait_until(lambda: listener.of("verification") and listener.json("fault"), 60)
        kiosk.terminate()
    assert (listener.json("verification")[0]["model"], listener.json("verification")[0]["ok"]) == (
        DEFAULT,
        True,
    )
    fault = listener.json("fault")[0]
    assert (fault["code"], "golden outputs differ" in fault["sentence"]) == (4, True)


def test_the_scene_decodes_here_as_where_it_was_made() -> None:
    scene = open_bundle(BUNDLED).golden.scene
    assert np.abs(decode(scene.jpeg).astype(int) - scene.luma).max() <= 3
