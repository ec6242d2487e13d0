"""Which model runs: what the service falls back to when the chosen one fails."""

import shutil
from pathlib import Path

import pytest

from edge.cli.model import model_rows
from edge.errors import UsageError, VerificationError
from edge.model.bundle import DEFAULT, bundled
from edge.model.loader import open_deployed_model
from edge.model.registry import ModelRegistry
from edge.settings import Settings, StoreSettings
from edge.system.systemd import Service
from tests.edge.model.bundles import accept, bundle_named, failing_bundle


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "state")


def service(folder: Path) -> Service:
    """A service as systemd starts it, up to where it opens its model."""
    folder.mkdir(exist_ok=True)
    made = Service({"NOTIFY_SOCKET": str(folder / "nobody"), "RUNTIME_DIRECTORY": str(folder)})
    made.wait_for_turn()
    return made


def settings(state: Path) -> Settings:
    return Settings(store=StoreSettings(folder=str(state)))


@pytest.mark.filterwarnings("ignore")
def test_a_service_falls_back_when_golden_outputs_fail_and_reports_it(tmp_path: Path, registry: ModelRegistry) -> None:
    good = registry.install(bundle_named(tmp_path, "good"), accept)
    bad = registry.install(failing_bundle(tmp_path, "bad"), accept)
    running = open_deployed_model(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert running.classifier.card.name == "good"
    assert running.verification.ok
    assert bad in running.refused
    assert "golden outputs differ" in running.refused
    again = open_deployed_model(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert (again.classifier.card.name, again.refused) == ("good", running.refused)
    assert {row.name: row.role for row in model_rows(ModelRegistry(tmp_path / "state"))} == {
        **dict.fromkeys(bundled(), ""),
        good: "in use",
        bad: "refused",
    }
    registry = ModelRegistry(tmp_path / "state")
    registry.rollback(accept)
    assert open_deployed_model(settings(tmp_path / "state"), {}, service(tmp_path / "run")).refused == ""


def test_a_failing_model_is_an_error_without_a_service(tmp_path: Path, registry: ModelRegistry) -> None:
    registry.install(failing_bundle(tmp_path, "bad"), accept)
    with pytest.raises(VerificationError, match="golden outputs differ"):
        open_deployed_model(settings(tmp_path / "state"), {}, Service({}))


def test_damaged_models_fall_back_to_the_previous_and_then_the_bundled_one(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    one, two = (registry.install(bundle_named(tmp_path, name), accept) for name in ("one", "two"))
    for name in (one, two):
        (registry.folder / name / "model.tflite").write_bytes(b"")
    running = open_deployed_model(settings(tmp_path / "state"), {}, service(tmp_path / "run"))
    assert running.classifier.card.name == DEFAULT
    assert "sha256" in running.refused


def test_a_crash_in_the_first_minute_causes_a_fallback(tmp_path: Path, registry: ModelRegistry) -> None:
    registry.install(bundle_named(tmp_path, "one"), accept)
    state, run = tmp_path / "state", tmp_path / "run"
    first = service(run)
    assert open_deployed_model(settings(state), {}, first).classifier.card.name == "one"
    first.lasted()
    registry.install(bundle_named(tmp_path, "two"), accept)
    assert open_deployed_model(settings(state), {}, service(run)).classifier.card.name == "two"
    # The process before exited without an error message.
    running = open_deployed_model(settings(state), {}, service(run))
    assert running.classifier.card.name == "one"
    assert "without an error message in its first minute" in running.refused


def test_other_failures_cause_no_fallback(tmp_path: Path, registry: ModelRegistry) -> None:
    registry.install(bundle_named(tmp_path, "one"), accept)
    state, run = tmp_path / "state", tmp_path / "run"
    for end in (lambda one: one.failed(UsageError("no camera")), Service.forget_failures):
        started = service(run)
        assert open_deployed_model(settings(state), {}, started).refused == ""
        end(started)
    assert open_deployed_model(settings(state), {}, service(run)).refused == ""
    shutil.rmtree(run)  # a power cut: what is in memory is gone
    started = service(run)
    assert open_deployed_model(settings(state), {}, started).refused == ""
    started.lasted()
    assert open_deployed_model(settings(state), {}, service(run)).refused == "", (
        "a crash after it has lasted proves nothing"
    )
