"""Checks of the camera and of the deployed model."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edge.camera.address import is_stream, safe_source
from edge.diagnostics.finding import Finding
from edge.diagnostics.package_check import install_command
from edge.diagnostics.probe_runner import run_probe
from edge.errors import SettingsError
from edge.settings import CameraSettings, DetectSettings, ModelSettings, Preset, Settings, require_expressions
from edge.vision.face_size import pixel_shortage

_MIN_CONTRAST: Final = 8  # grey levels between the darkest and the brightest pixel; a covered lens gives less


def check_camera(python: Sequence[str], camera: CameraSettings, detect: DetectSettings, seconds: float = 20) -> Finding:
    """Whether the source gives a frame within the time limit, and one that is large enough for the smallest face."""
    source = describe_source(camera.source)
    probe = run_probe(python, "frame", camera, seconds)
    if probe.problem or not probe.output:
        return Finding("camera", "fail", probe.problem or f"{source}: no frame", _camera_remedy(camera))
    frame = probe.output[0]
    sentence = f"{source}: a frame of {frame['width']}x{frame['height']}"
    if frame["fps"] is not None:
        sentence += f", {frame['fps']:.1f} frames/s measured"
    if frame["description"]:
        sentence += f"; it sends {frame['description']}"
    if frame["brightest"] - frame["darkest"] < _MIN_CONTRAST:
        return Finding(
            "camera", "warn", f"{sentence}, but it is blank", "take the cap off the lens, or turn on a light"
        )
    if shortage := pixel_shortage(detect, (frame["width"], frame["height"])):
        return Finding("camera", "warn", f"{sentence}; {shortage.problem}", shortage.remedy)
    return Finding("camera", "ok", sentence)


def describe_source(source: str) -> str:
    """The kind of a camera source, and its name without user and password."""
    if is_stream(source):
        return f"stream {safe_source(source)}"
    if source.startswith("picamera2"):
        return f"Raspberry Pi camera {safe_source(source)}"
    if source.startswith("/dev/"):
        return f"V4L2 camera {safe_source(source)}"
    return f"source {safe_source(source)}"


def _camera_remedy(camera: CameraSettings) -> str:
    if camera.source.startswith("picamera2"):
        return "rpicam-hello --list-cameras (is it plugged in?); sudo systemctl stop fer-edge (is it in use?)"
    if camera.source.startswith("/dev/"):
        return "ls -l /dev/video* (is it plugged in?); sudo systemctl stop fer-edge (is it in use?)"
    if is_stream(camera.source):
        return "check camera.source, camera.username and camera.password_file, and who may read that file"
    return "check camera.source"


def check_detector(python: Sequence[str], detect: DetectSettings, seconds: float = 20) -> Finding:
    """Whether the face detector opens with its files and searches a picture."""
    probe = run_probe(python, "detector", detect, seconds)
    if probe.problem or not probe.output:
        return Finding("detector", "fail", probe.problem or "no answer", "check the table [detect]; docs/detectors.md")
    return Finding("detector", "ok", f"{detect.detector}{f' with {detect.model}' if detect.model else ''}")


def check_model(
    python: Sequence[str], model: ModelSettings, presets: Sequence[Preset] = (), seconds: float = 60
) -> Finding:
    """Whether the bundle opens, has the expressions of the presets, and would not be refused by a start here."""
    probe = run_probe(python, "golden", model, seconds)
    if probe.problem or not probe.output:
        return Finding("model", "fail", probe.problem or "no answer", f"check model.bundle ({model.bundle})")
    golden = probe.output[0]
    try:
        require_expressions(presets, tuple(golden["labels"]), golden["model"])
    except SettingsError as error:
        return Finding("model", "fail", str(error), "change the preset, or the model")
    if not golden["ok"]:
        return Finding("model", "fail", golden["sentence"], f"{install_command('ai-edge-litert')}; or another model")
    return Finding(
        "model",
        "ok",
        f"{golden['model']} on {golden['runtime']}: {golden['n']} golden outputs, largest difference "
        f"{golden['largest_lsb']} steps (up to {golden['allowed_lsb']} is rounding), {golden['top1']:.0%} the same "
        "expression",
    )


def deployed_model(settings: Settings, environ: Mapping[str, str]) -> ModelSettings:
    """The settings of the model, with the folder of the bundle that ``fer-edge run`` would use."""
    if settings.model.bundle:
        return settings.model
    try:
        from edge.model.registry import deployed_folder  # noqa: PLC0415  doctor must work when numpy does not import
    except ImportError:
        return settings.model
    return msgspec.structs.replace(settings.model, bundle=str(deployed_folder(settings, environ)))
