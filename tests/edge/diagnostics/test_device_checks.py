"""Checks of camera and model, with real child processes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.diagnostics.device_checks import check_camera, check_detector, check_model, describe_source
from edge.errors import VerificationError
from edge.model.bundle import DEFAULT, find_bundle
from edge.model.loader import open_deployed_model
from edge.settings import CameraSettings, DetectSettings, ModelSettings, Preset, Settings
from edge.system.systemd import Service
from tests.edge.diagnostics.findings import PYTHON, level_of
from tests.edge.mjpeg import FPS, Mjpeg, noisy_pictures

DETECT = DetectSettings(min_face=0.12)


def test_camera() -> None:
    found = check_camera(PYTHON, CameraSettings(source="demo"), DETECT)
    assert (found.level, found.sentence) == ("ok", "source demo: a frame of 640x480")
    assert (
        "no answer within 0.01 s" in check_camera(PYTHON, CameraSettings(source="demo"), DETECT, seconds=0.01).sentence
    )


def test_what_a_camera_delivers_is_shown() -> None:
    with Mjpeg(noisy_pictures) as server:
        sentence = check_camera(PYTHON, CameraSettings(source=server.url), DETECT).sentence
    measured = re.search(r"a frame of 320x240, ([\d.]+) frames/s measured$", sentence)
    assert measured, sentence
    assert 2 < float(measured[1]) < 1.5 * FPS
    frame = {"width": 1280, "height": 720, "darkest": 0, "brightest": 255, "fps": 4.96, "description": "YUYV 1280x720"}
    answering = ("sh", "-c", f"echo '{json.dumps(frame)}'")
    assert check_camera(answering, CameraSettings(), DETECT).sentence == (
        "V4L2 camera /dev/video0: a frame of 1280x720, 5.0 frames/s measured; it sends YUYV 1280x720"
    )


def test_a_source_is_described_by_its_kind_and_without_its_password() -> None:
    assert describe_source("rtsp://kiosk:secret@10.0.0.7/live") == "stream rtsp://***@10.0.0.7/live"
    assert describe_source("/dev/video0") == "V4L2 camera /dev/video0"
    assert describe_source("picamera2:1") == "Raspberry Pi camera picamera2:1"


def test_a_frame_that_is_too_small_for_the_smallest_face(tmp_path: Path) -> None:
    (tmp_path / "small.pgm").write_bytes(b"P5 480 270 255\n" + bytes(range(256)) * 506 + bytes(64))
    found = check_camera(PYTHON, CameraSettings(source=str(tmp_path)), DetectSettings(min_face=0.05))
    assert level_of(found) == "warn"
    assert "0.089 of the shorter side of 480x270" in found.sentence
    assert found.remedy.endswith("set detect.min_face = 0.089")
    reachable = DetectSettings(min_face=0.089)
    assert level_of(check_camera(PYTHON, CameraSettings(source=str(tmp_path)), reachable)) == "ok"


def test_a_missing_camera() -> None:
    found = check_camera(PYTHON, CameraSettings(source="/dev/video99"), DETECT)
    assert level_of(found) == "fail"
    assert "no such camera" in found.sentence


def test_a_covered_lens(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5 64 48 255\n" + bytes(64 * 48))
    assert level_of(check_camera(PYTHON, CameraSettings(source=str(tmp_path)), DETECT)) == "warn"


def test_model() -> None:
    found = check_model(PYTHON, ModelSettings())
    assert level_of(found) == "ok", found
    assert "golden outputs" in found.sentence


def test_a_damaged_model(tmp_path: Path) -> None:
    folder = shutil.copytree(find_bundle("student-small"), tmp_path / "damaged")
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes() + b"\0")
    found = check_model(PYTHON, ModelSettings(bundle=str(folder)))
    assert level_of(found) == "fail"
    assert "sha256" in found.sentence


def test_a_preset_whose_expression_the_model_lacks() -> None:
    found = check_model(PYTHON, ModelSettings(), (Preset("smile", "happy"), Preset("sneer", "contempt")))
    assert level_of(found) == "fail"
    assert f"preset 'sneer': the model {DEFAULT} has no expression 'contempt'" in found.sentence


@pytest.mark.parametrize("change", ["one output", "labels", "picture"])
def test_a_model_with_which_the_service_does_not_start(tmp_path: Path, change: str) -> None:
    folder = shutil.copytree(find_bundle("student-small"), tmp_path / "other")
    with np.load(folder / "golden.npz") as stored:
        parts = dict(stored)
    outputs = parts["outputs"].astype(int)
    if change == "labels":
        outputs = np.roll(outputs, 1, axis=1)
    elif change == "one output":  # the lowest logit only, so that the expression stays
        outputs[0, outputs[0].argmin()] = max(-128, outputs[0].min() - 40)
    else:  # as with another luma range
        parts["scene"] = (parts["scene"] * 0.85 + 16).astype(np.uint8)
    np.savez(folder / "golden.npz", **{**parts, "outputs": outputs.astype(np.int8)})
    settings = ModelSettings(bundle=str(folder))
    with pytest.raises(VerificationError) as refused:
        open_deployed_model(Settings(model=settings), {}, Service({}))
    found = check_model(PYTHON, settings)
    assert level_of(found) == "fail"
    assert str(refused.value) == f"{folder}: {found.sentence}"


def test_detector(tmp_path: Path) -> None:
    found = check_detector(PYTHON, DetectSettings())
    assert (found.level, found.sentence) == ("ok", "haar")
    missing = check_detector(PYTHON, DetectSettings(detector="yunet", model=str(tmp_path / "yunet.onnx")))
    assert level_of(missing) == "fail"
    assert "yunet.onnx is missing" in missing.sentence
