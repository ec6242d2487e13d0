"""The Edge TPU present, failing and recovering, simulated by a stand-in for its library in real processes.

Nothing here has seen an Edge TPU.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.edgetpu import CrashMarker, EdgeTpu, retry_delay
from edge.model.edgetpu_trial import TRIAL_SECONDS, EdgeTpuTrial, TrialResult
from edge.model.loader import open_deployed
from edge.model.registry import ModelRegistry
from edge.model.tuning import tune
from edge.settings import ModelSettings, Settings, StoreSettings
from tests.conftest import StandIn, no_more_files, wait_until
from tests.edge.model.bundles import accept
from tests.edge.system.test_systemd import Systemd, start


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def model(standin: StandIn, **more: str) -> ModelSettings:
    return ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library), **more)


@pytest.mark.parametrize(
    ("mode", "outcome", "words", "remedy"),
    [
        ("present", "healthy", "largest difference 0 steps", ""),
        ("absent", "absent", "finds no device (stand-in: no device)", "plugged in"),
        ("crashes", "crashed", "crashed with SIGABRT while opening it", "fit the TFLite runtime"),
        ("wrong", "wrong", "golden outputs", "compile"),
    ],
)
def test_a_trial_reports_what_it_finds(standin: StandIn, mode: str, outcome: str, words: str, remedy: str) -> None:
    standin.plays(mode)
    verdict = EdgeTpuTrial(str(standin.bundle), str(standin.library)).wait()
    assert verdict.outcome == outcome, verdict
    assert words in verdict.sentence
    assert remedy in verdict.remedy


def test_a_hanging_trial_is_killed_and_reports_its_step(standin: StandIn) -> None:
    standin.plays("hangs")
    clock = Clock()
    trial = EdgeTpuTrial(str(standin.bundle), str(standin.library), clock=clock)
    wait_until(lambda: trial.step == "computing with it", 60)
    assert trial.poll() is None
    clock.now += TRIAL_SECONDS
    verdict = trial.poll()
    assert verdict
    assert (verdict.outcome, verdict.sentence) == (
        "hung",
        "a trial of the Edge TPU gave no answer within 30 s while computing with it",
    )


@pytest.mark.parametrize(
    ("library", "outcome", "words"),
    [
        ("libno-such-edgetpu.so.1", "absent", "the library libno-such-edgetpu.so.1 is not installed"),
        ("libm.so.6", "unusable", "libm.so.6 is not a library for the Edge TPU"),
        (__file__, "unusable", "invalid ELF header"),
    ],
)
def test_a_wrong_library_is_named(standin: StandIn, library: str, outcome: str, words: str) -> None:
    verdict = EdgeTpuTrial(str(standin.bundle), library).wait()
    assert verdict.outcome == outcome
    assert words in verdict.sentence
    assert "docs/edge-tpu.md" in verdict.remedy


class Device:
    """A classifier with an Edge TPU, and its clock."""

    def __init__(self, standin: StandIn, *, wanted: bool = False, runtime: str | None = None) -> None:
        self.clock = Clock()
        self.bundle: Bundle = open_bundle(standin.bundle)
        self.edgetpu = EdgeTpu(self.bundle, str(standin.library), CrashMarker(runtime), wanted=wanted, clock=self.clock)
        self.classifier = Classifier(self.bundle, accelerator=self.edgetpu)

    def after(self, seconds: float) -> str:
        """Advance the clock, and wait for a trial that is due; returns the accelerator that is used then."""
        self.clock.now += seconds
        self.classifier.wait_for_accelerator()
        return self.classifier.accelerator

    def matches_golden(self) -> bool:
        """Whether a face gives its golden output."""
        return np.array_equal(self.classifier.logits(self.bundle.golden.faces[0]), self.bundle.golden.outputs[0])


def test_the_cpu_is_used_until_the_first_trial_succeeds(standin: StandIn) -> None:
    device = Device(standin)
    assert device.classifier.accelerator == "cpu"
    assert device.matches_golden()
    assert device.after(0) == "edgetpu"
    assert device.matches_golden()
    assert device.classifier.degraded is None


def test_a_device_that_vanishes_costs_no_frame_and_is_used_again(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(standin)
    device.after(0)
    standin.plays("vanished")
    assert device.matches_golden(), "the CPU classifies the face that failed"
    assert device.classifier.accelerator == "cpu (degraded)"
    assert "failed while it computed: stand-in: the device has vanished" in (device.classifier.degraded or "")
    assert device.after(29) == "cpu (degraded)"
    assert "finds no device" not in (device.classifier.degraded or ""), "not tried again yet"
    assert device.after(1) == "cpu (degraded)"
    assert "finds no device" in (device.classifier.degraded or ""), "though absence alone would not be degraded"
    standin.plays("present")
    assert device.after(59) == "cpu (degraded)"
    assert device.after(1) == "edgetpu"
    assert device.classifier.degraded is None
    assert device.matches_golden()
    assert "is tried again in 30 s" in caplog.text
    assert "is tried again in 60 s" in caplog.text


def test_failures_are_forgotten_after_ten_minutes(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    device = Device(standin)
    device.after(0)
    for lasted in (599, 601):
        device.after(lasted)
        standin.plays("vanished")
        device.matches_golden()
        standin.plays("present")
        assert device.after(60) == "edgetpu"
        caplog.clear()
    device.after(601)
    standin.plays("vanished")
    device.matches_golden()
    assert "is tried again in 30 s" in caplog.text


def test_a_trial_that_cannot_be_started_is_a_failure(standin: StandIn) -> None:
    def no_python(bundle: str, library: str) -> EdgeTpuTrial:
        return EdgeTpuTrial(bundle, library, python=("/no/such/python",))

    edgetpu = EdgeTpu(
        open_bundle(standin.bundle), str(standin.library), CrashMarker(None), wanted=False, trial=no_python
    )
    edgetpu.wait()
    assert not edgetpu.working
    assert "no trial of the Edge TPU can be started" in (edgetpu.degraded or "")


@pytest.mark.parametrize(("wanted", "accelerator"), [(False, "cpu"), (True, "cpu (degraded)")])
def test_a_missing_device_is_degraded_only_where_it_is_wanted(standin: StandIn, wanted: bool, accelerator: str) -> None:
    standin.plays("absent")
    device = Device(standin, wanted=wanted)
    assert device.after(0) == accelerator
    assert device.matches_golden()
    standin.plays("present")
    assert device.after(3600) == ("edgetpu" if wanted else "cpu"), "one that is not wanted is looked for at starts only"


@pytest.mark.parametrize("mode", ["crashes", "wrong"])
def test_a_device_that_does_not_work_is_not_used(standin: StandIn, mode: str) -> None:
    standin.plays(mode)
    device = Device(standin)
    assert device.after(0) == "cpu (degraded)"
    assert device.matches_golden()


def test_a_device_that_vanishes_between_trial_and_use_is_not_used(standin: StandIn) -> None:
    device = Device(standin)
    device.edgetpu.poll()
    trial = device.edgetpu._trial
    assert trial
    wait_until(lambda: trial._process.poll() is not None, 60)
    standin.plays("absent")
    assert device.after(0) == "cpu (degraded)"


class HealthyTrial(EdgeTpuTrial):
    """A trial that has succeeded, and has no files open that its end could close."""

    def __init__(self, _bundle: str, _library: str) -> None: ...

    def poll(self) -> TrialResult:
        return TrialResult("healthy", "the Edge TPU works")


@pytest.mark.parametrize("loaded", [False, True])
def test_a_process_that_can_open_no_more_files_goes_on_with_the_cpu(standin: StandIn, loaded: bool) -> None:
    if loaded:  # the library, so that the runtime is the next thing that needs a file
        assert Device(standin).after(0) == "edgetpu"
    bundle = open_bundle(standin.bundle)
    edgetpu = EdgeTpu(bundle, str(standin.library), CrashMarker(None), wanted=False, trial=HealthyTrial)
    edgetpu.poll()
    with no_more_files():
        edgetpu.poll()
    assert not edgetpu.working
    assert edgetpu.degraded
    assert np.array_equal(
        Classifier(bundle, accelerator=edgetpu).logits(bundle.golden.faces[0]), bundle.golden.outputs[0]
    )


def test_a_trial_that_cannot_be_started_keeps_no_files(standin: StandIn) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for spare in range(4):
        with no_more_files(spare), pytest.raises(OSError, match="Too many open files"):
            EdgeTpuTrial(str(standin.bundle), str(standin.library))
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_a_bundle_without_a_compiled_network_stays_degraded(standin: StandIn) -> None:
    bundle = open_bundle(find_bundle("student-small"))
    edgetpu = EdgeTpu(bundle, str(standin.library), CrashMarker(None), wanted=True, clock=Clock())
    edgetpu.wait()
    assert not edgetpu.working
    assert "has no model_edgetpu.tflite" in (edgetpu.degraded or "")


@pytest.mark.parametrize(
    ("failures", "crashes", "seconds"),
    [(1, 0, 30), (2, 0, 60), (3, 0, 120), (8, 0, 3600), (10_000, 0, 3600), (1, 1, 600), (1, 2, 1200), (1, 255, 3600)],
)
def test_retry_delays_double_up_to_an_hour(failures: int, crashes: int, seconds: float) -> None:
    assert retry_delay(failures, crashes) == seconds


def test_a_crash_is_remembered_until_the_device_has_worked_for_long(standin: StandIn, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    for crashes in (1, 2):
        CrashMarker(str(runtime)).__enter__()  # and never leaves it
        marker = CrashMarker(str(runtime))
        assert (marker.crashed, marker.crashes) == (True, crashes)
    assert not CrashMarker(str(runtime)).crashed, "the mark that was found is not found again"
    CrashMarker(str(runtime)).__enter__()
    device = Device(standin, runtime=str(runtime))
    assert device.classifier.accelerator == "cpu (degraded)"
    assert "crash or the watchdog" in (device.classifier.degraded or "")
    assert device.after(2399) == "cpu (degraded)"
    assert device.after(1) == "edgetpu"
    assert CrashMarker(str(runtime)).crashes == 3
    device.after(600)
    assert CrashMarker(str(runtime)).crashes == 0


@pytest.mark.parametrize(
    ("accelerator", "mode", "computes"),
    [("auto", "present", "edgetpu"), ("cpu", "present", "cpu"), ("edgetpu", "absent", "cpu (degraded)")],
)
def test_the_settings_choose_the_accelerator(
    standin: StandIn, tmp_path: Path, accelerator: str, mode: str, computes: str
) -> None:
    standin.plays(mode)
    settings = Settings(model=model(standin, accelerator=accelerator), store=StoreSettings(str(tmp_path)))
    classifier, _ = open_deployed(settings, os.environ)
    classifier.wait_for_accelerator()
    assert classifier.accelerator == computes


def test_an_installed_model_is_tried_with_its_own_compiled_file(standin: StandIn, tmp_path: Path) -> None:
    """The settings name no bundle then: model install has put it in use."""
    ModelRegistry(tmp_path / "state").install(standin.bundle, accept)
    model = ModelSettings(edgetpu_library=str(standin.library))
    classifier, bundle = open_deployed(Settings(model=model, store=StoreSettings(str(tmp_path / "state"))), {})
    classifier.wait_for_accelerator()
    assert (classifier.accelerator, classifier.degraded) == ("edgetpu", None)
    measured = tune(bundle, model)
    assert measured.edgetpu.startswith("healthy"), measured.edgetpu
    assert measured.was_measured("edgetpu")


def test_a_bundle_without_a_compiled_file_starts_no_trial() -> None:
    assert open_deployed(Settings(), os.environ)[0]._accelerator is None


def configured(standin: StandIn, folder: Path) -> Path:
    config = folder / "config.toml"
    config.write_text(
        f'[model]\nbundle = "{standin.bundle}"\nedgetpu_library = "{standin.library}"\n[store]\nfolder = "{folder}"\n'
    )
    return config


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.mark.slow
def test_the_start_after_a_watchdog_kill_uses_the_cpu(standin: StandIn, tmp_path: Path, systemd: Systemd) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    config = configured(standin, tmp_path)
    command = ("run", "--config", str(config), "--source", "demo", "--realtime")
    with start(systemd, *command, RUNTIME_DIRECTORY=str(runtime)) as process:
        assert systemd.until("READY")["STATUS"] == "the first frame has been seen, on edgetpu"
        standin.plays("hangs")
        wait_until(lambda: (runtime / "edgetpu.mark").read_bytes()[0] == 1, 30)
        process.kill()  # by the real watchdog: tests/platform/test_systemd.py
        assert process.wait(10) == -signal.SIGKILL
    with start(systemd, *command, RUNTIME_DIRECTORY=str(runtime)) as process:
        assert systemd.until("READY")["STATUS"] == "the first frame has been seen, on cpu (degraded)"
        process.terminate()
        _, told = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "the last process ended, by a crash or the watchdog, while the Edge TPU computed" in told


@pytest.mark.slow
def test_verify_computes_all_faces_on_the_edge_tpu(standin: StandIn, tmp_path: Path, blobs: Path) -> None:
    command = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())", "verify", "--json"]
    config = configured(standin, tmp_path)
    done = subprocess.run(
        [*command, "--config", config, "--data", blobs], capture_output=True, text=True, check=False, env=os.environ
    )
    told = json.loads(done.stdout)
    assert (told["golden"]["accelerator"], told["golden"]["ok"]) == ("edgetpu", True)
    assert (done.returncode, told["ok"]) == (23, False), "shades are no faces"
