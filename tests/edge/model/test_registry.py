"""The installed models of a device: installing, switching, disk failures and power cuts."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli.model import model_rows
from edge.errors import BundleError, StoreError, UsageError, VerificationError
from edge.model.bundle import DEFAULT, bundled, find_bundle, open_bundle
from edge.model.registry import MAX_INSTALLED, ModelRegistry, state_folder
from edge.settings import StoreSettings
from tests.conftest import ROOT, wait_until
from tests.edge.cli.test_main import PROGRAM
from tests.edge.model.bundles import accept, bundle_named, zip_bundle


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "state")


@pytest.mark.parametrize("form", ["folder", "zip", "zip with a folder"])
def test_a_bundle_is_installed_from_a_folder_and_from_a_zip(tmp_path: Path, registry: ModelRegistry, form: str) -> None:
    source = bundle_named(tmp_path, "mine")
    (source / "notes.txt").write_text("not part of a bundle")
    if form != "folder":
        source = zip_bundle(source, tmp_path / "mine.zip", "mine/" if "with" in form else "")
    name = registry.install(source, accept)
    assert registry.choice.current == name
    assert name.startswith("mine-")
    folder = registry.candidates()[0].folder
    assert open_bundle(folder).card.name == "mine"
    assert not (folder / "notes.txt").exists()
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}, "the service must read them"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(registry.folder.stat().st_mode) == 0o755


def test_a_bundled_model_is_chosen_by_its_name(tmp_path: Path, registry: ModelRegistry) -> None:
    registry.use("student-small", accept)
    assert [candidate.display_name for candidate in registry.candidates()] == ["student-small", DEFAULT]
    assert open_bundle(registry.candidates()[0].folder).card.name == "student-small"
    mine = registry.install(bundle_named(tmp_path, "mine"), accept)
    assert registry.rollback(accept) == "student-small"
    assert {row.name: row.role for row in model_rows(registry)} == {
        **dict.fromkeys(bundled(), ""),
        "student-small": "in use",
        mine: "previous",
    }


def test_switching_rolling_back_and_the_default_model(tmp_path: Path, registry: ModelRegistry) -> None:
    one, two = (registry.install(bundle_named(tmp_path, name), accept) for name in ("one", "two"))
    assert (registry.choice.current, registry.choice.previous) == (two, one)
    assert registry.rollback(accept) == one
    assert registry.rollback(accept) == two
    registry.use(DEFAULT, accept)
    assert [candidate.display_name for candidate in registry.candidates()] == [DEFAULT, two]
    listed = {row.name: row.role for row in model_rows(registry)}
    assert listed == {**dict.fromkeys(bundled(), ""), DEFAULT: "in use", two: "previous", one: ""}
    with pytest.raises(UsageError, match=f"did you mean {one}"):
        registry.use(one[:-1], accept)


def install_numbered(registry: ModelRegistry, source: Path, number: int) -> str:
    """Install the bundle with a number in its name, in this second of 1970; returns its name in the registry."""
    card = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps(card | {"name": f"model{number}"}))
    name = registry.install(source, accept)
    os.utime(registry.folder / name, (number, number))
    return name


@pytest.mark.parametrize("name", [DEFAULT, "student-small"])
def test_a_bundled_model_takes_no_place_among_the_installed_ones(
    tmp_path: Path, registry: ModelRegistry, name: str
) -> None:
    source = bundle_named(tmp_path, "mine")
    names = [install_numbered(registry, source, number) for number in range(MAX_INSTALLED - 1)]
    registry.use(name, accept)
    names.append(install_numbered(registry, source, MAX_INSTALLED - 1))
    assert registry.installed() == names
    registry.use(name, accept)
    newest = install_numbered(registry, source, MAX_INSTALLED)
    assert registry.installed() == [*names[1:], newest]


def test_the_models_last_in_use_stay_on_the_disk(tmp_path: Path, registry: ModelRegistry) -> None:
    source = bundle_named(tmp_path, "mine")
    names = [install_numbered(registry, source, number) for number in range(MAX_INSTALLED)]
    assert registry.installed() == names, "none is removed before there are too many"
    registry.use(names[1], accept)
    registry.use(names[0], accept)
    (registry.folder / "broken").mkdir()
    os.utime(registry.folder / "broken", (0, 0))
    newest = install_numbered(registry, source, MAX_INSTALLED)
    assert (registry.choice.current, registry.choice.previous) == (newest, names[0])
    assert registry.installed() == sorted([names[0], names[1], names[3], names[4], newest])
    assert not (registry.folder / "broken").exists(), "a folder without a bundle is removed too"
    assert not list(registry.folder.glob(".incoming*"))
    assert registry.rollback(accept) == names[0]


def test_installing_a_model_again_only_repairs_a_damaged_copy(tmp_path: Path, registry: ModelRegistry) -> None:
    source = bundle_named(tmp_path, "mine")
    name = registry.install(source, accept)
    (registry.folder / name / "model.tflite").write_bytes(b"damaged")
    assert registry.install(source, accept) == name
    assert open_bundle(registry.folder / name).card.name == "mine"
    assert registry.installed() == [name]


def test_a_model_that_fails_its_check_changes_nothing(tmp_path: Path, registry: ModelRegistry) -> None:
    one = registry.install(bundle_named(tmp_path, "one"), accept)

    def reject(_: object) -> None:
        raise VerificationError("no")

    with pytest.raises(VerificationError):
        registry.install(bundle_named(tmp_path, "two"), reject)
    assert (registry.choice.current, registry.installed()) == (one, [one])
    assert not list(registry.folder.glob(".incoming*"))


@pytest.mark.parametrize("name", ["../../etc", "", ".hidden", "a/b", "x" * 65])
def test_a_cards_name_cannot_lead_out_of_the_folder(tmp_path: Path, registry: ModelRegistry, name: str) -> None:
    source = bundle_named(tmp_path, "mine")
    card = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps(card | {"name": name}))
    with pytest.raises(BundleError, match=f"^{source}: its card calls it"):
        registry.install(source, accept)


def test_a_full_disk_leaves_no_partial_bundle(tmp_path: Path, registry: ModelRegistry) -> None:
    one = registry.install(bundle_named(tmp_path, "one"), accept)
    two = bundle_named(tmp_path, "two")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # the kernel then fails writes, as a full disk does
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            registry.install(two, accept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (registry.choice.current, registry.installed()) == (one, [one])
    assert not list(registry.folder.glob(".incoming*"))


def test_each_kind_of_disk_failure_has_its_error(tmp_path: Path) -> None:
    def trouble(number: int) -> Callable[[str], None]:
        def step(_: str) -> None:
            raise OSError(number, os.strerror(number))

        return step

    source = bundle_named(tmp_path, "mine")
    for number, kind, words in (
        (errno.EACCES, UsageError, "needs root"),
        (errno.ENOSPC, StoreError, "No space left on device"),
        (errno.EROFS, StoreError, "Read-only file system"),
    ):
        registry = ModelRegistry(tmp_path / "state", trouble(number))
        with pytest.raises(kind, match=words):
            registry.install(source, accept)
        assert not list(registry.folder.glob(".incoming*"))


def test_a_damaged_choice_means_the_default_model(tmp_path: Path, registry: ModelRegistry) -> None:
    registry.install(bundle_named(tmp_path, "mine"), accept)
    (registry.folder / "choice.json").write_bytes(b"\xff{")
    assert registry.candidates()[0].folder == find_bundle(DEFAULT)


def test_a_power_cut_before_any_step_leaves_a_usable_model(tmp_path: Path) -> None:
    first, second = bundle_named(tmp_path, "first"), bundle_named(tmp_path, "second")
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
    """SIGKILL at a random moment between the first file and the end of the installation."""
    bundles = [bundle_named(tmp_path, f"model{number}") for number in range(2)]
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    registry = ModelRegistry(tmp_path / "state")

    def begun() -> subprocess.Popen[bytes]:
        """An installation that has written its first file."""
        command = [PROGRAM, "model", "install", bundles[0], "--config", config]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: list(registry.folder.glob(".incoming*")) or process.poll() is not None, 60)
        return process

    chance, latest = random.Random(9), 0.1
    killed = 0
    for attempt in range(30):
        shutil.rmtree(registry.folder, ignore_errors=True)
        if attempt % 2:
            registry.install(bundles[1], accept)
        before = registry.choice.current
        process = begun()
        time.sleep(chance.uniform(0, latest))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            latest *= 0.7  # it had ended: machines differ
        left = registry.candidates()[0]
        assert left.name == before or left.name.startswith("model0-")
        open_bundle(left.folder)
        registry.install(bundles[0], accept)
        assert not list(registry.folder.glob(".incoming*")), "what was left is cleared by the next"
        if killed == 4:
            return
    pytest.fail(f"only {killed} of 30 were killed")


def test_a_verdict_holds_until_the_next_switch(tmp_path: Path, registry: ModelRegistry) -> None:
    one = registry.install(bundle_named(tmp_path, "one"), accept)
    registry.refuse_choice("it crashed")
    assert ModelRegistry(tmp_path / "state").candidates()[0].name == ""
    registry.use(one, accept)
    assert ModelRegistry(tmp_path / "state").candidates()[0].name == one


@pytest.mark.parametrize(
    "verdict", [ModelRegistry.confirm_choice, lambda registry: registry.refuse_choice("it crashed")]
)
@pytest.mark.parametrize("loss", [shutil.rmtree, lambda models: (models / "choice.json").write_bytes(b"")])
def test_a_verdict_is_not_about_a_model_that_is_chosen_after_the_choice_was_lost(
    tmp_path: Path, registry: ModelRegistry, verdict: Callable[[ModelRegistry], None], loss: Callable[[Path], object]
) -> None:
    registry.install(bundle_named(tmp_path, "one"), accept)
    verdict(registry)
    loss(registry.folder)
    two = ModelRegistry(tmp_path / "state").install(bundle_named(tmp_path, "two"), accept)
    after = ModelRegistry(tmp_path / "state")
    assert (after.verdict.lasted, after.verdict.sentence) == (False, "")
    assert after.candidates()[0].name == two


def test_the_state_folder_is_the_settings_the_services_or_the_users(tmp_path: Path) -> None:
    assert state_folder(StoreSettings(folder="/data"), {"STATE_DIRECTORY": "/var/lib/x"}) == Path("/data")
    assert state_folder(StoreSettings(), {"STATE_DIRECTORY": "/var/lib/x"}) == Path("/var/lib/x")
    user = {"XDG_STATE_HOME": str(tmp_path)}
    assert state_folder(StoreSettings(), user, tmp_path / "absent") == tmp_path / "fer-edge"
    (tmp_path / "service").mkdir()
    assert state_folder(StoreSettings(), user, tmp_path / "service") == tmp_path / "service", (
        "a technician sees what it sees"
    )
