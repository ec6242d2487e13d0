"""``fer-edge verify``: whether the deployed model works on this device as its card states.

Without data, only the golden outputs are checked (edge.model.verification). With labelled faces, the accuracy is
measured and compared with the card's (edge.evaluation.accuracy).
"""

import json
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.errors import DataError, DeliveryError, UsageError, VerificationError
from edge.evaluation.accuracy import MeasuredAccuracy, judge_accuracy, measure_accuracy
from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.evaluation.metrics import Figures
from edge.labels import Labels
from edge.model.bundle import read_card
from edge.model.loader import become_network_owner, open_classifier
from edge.model.registry import folder_in_use
from edge.model.verification import MAX_CROP_DIFFERENCE, MAX_LUMA_DIFFERENCE, verify_golden
from edge.mqtt.connection import new_client, publish_retained
from edge.mqtt.device_record import DeviceRecordStore
from edge.mqtt.topics import base_topic, client_id, with_device_name
from edge.records import Accuracy, Verification
from edge.settings import MqttSettings, Settings, load_settings
from edge.system.instance import service_environ
from edge.system.memory_budget import memory_budget
from edge.system.secret_files import with_secret_files
from edge.system.state import device_config, store_folder

_DATA_MEMORY: Final = 300 * 2**20  # bytes; all of FER2013 takes 180 MB


def verify(arguments: Namespace) -> int:
    """Carry out ``fer-edge verify``. Raises VerificationError when the model does not work as its card states.

    Raises DeliveryError when only the broker has failed.
    """
    if arguments.split and not arguments.data:
        raise UsageError("--split names a part of labelled data: give that with --data")
    config = device_config(arguments.config)
    settings = load_settings(config)
    environ = service_environ(config, os.environ)
    # The network may be another user's, and is run as that user. What only root may read comes before.
    folder = folder_in_use(settings, environ)
    labels = read_card(folder).labels
    faces = _read_faces(arguments.data, arguments.split, labels) if arguments.data else None
    mqtt = _broker(with_secret_files(settings, config), environ) if arguments.publish else None
    publish = _publisher(mqtt) if mqtt else lambda *_: None
    become_network_owner(folder)
    classifier, bundle = open_classifier(folder, settings, environ)
    classifier.wait_for_accelerator()
    golden = verify_golden(classifier, bundle.golden)
    measured = measure_accuracy(classifier, faces) if faces else None
    accuracy = judge_accuracy(classifier, faces, measured) if faces and measured else None
    if arguments.json:
        print(json.dumps(_as_json(golden, accuracy, measured.figures if measured else None)))
    else:
        print(_as_text(golden, accuracy, measured))
    failures = [result.sentence for result in (golden, accuracy) if result and not result.ok]
    try:
        publish(golden, accuracy)
    except DeliveryError as error:
        if not failures:
            raise
        failures.append(str(error))  # the exit code is that of the graver fact, the model's
    if failures:
        raise VerificationError("; ".join(failures))
    return 0


def _read_faces(data: Path, split: str | None, names: Labels) -> LabelledFaces:
    try:
        with memory_budget(_DATA_MEMORY):
            return read_faces(data, split or measured_split(data, names), names)
    except MemoryError as error:
        raise DataError(
            f"{data}: reading it takes more than {_DATA_MEMORY // 2**20} MB. Give fewer faces, such as one split"
        ) from error


def _broker(settings: Settings, environ: Mapping[str, str]) -> MqttSettings:
    """The broker, and the name that the state folder keeps for this device."""
    return with_device_name(settings, DeviceRecordStore(store_folder(settings.store, environ))).mqtt


def _publisher(mqtt: MqttSettings) -> Callable[[Verification, Accuracy | None], None]:
    """A function that publishes the results. The files with its secrets are read now."""
    # A client id of its own: with the service's, the broker would disconnect the running service.
    client = new_client(mqtt, f"{client_id(mqtt)}-verify")

    def publish(golden: Verification, accuracy: Accuracy | None) -> None:
        results = {"verification": golden, **({"accuracy": accuracy} if accuracy else {})}
        payloads = {f"{base_topic(mqtt)}/{name}": msgspec.json.encode(result) for name, result in results.items()}
        publish_retained(client, mqtt, payloads)

    return publish


def _as_json(golden: Verification, accuracy: Accuracy | None, figures: Figures | None) -> dict[str, Any]:
    report = {"golden": msgspec.to_builtins(golden)}
    if accuracy and figures:
        report |= msgspec.to_builtins(accuracy) | figures.as_json()
    return report


def _as_text(golden: Verification, accuracy: Accuracy | None, measured: MeasuredAccuracy | None) -> str:
    lines = [
        f"{golden.model} ({golden.sha256[:12]}) on {golden.runtime}, {golden.accelerator}",
        f"golden     {_mark(golden.ok)}  {golden.n} outputs differ by {golden.largest_lsb} steps "
        f"(up to {golden.allowed_lsb} is rounding); luma by {golden.luma_levels} levels (up to {MAX_LUMA_DIFFERENCE}), "
        f"crops by {golden.crop_levels} (up to {MAX_CROP_DIFFERENCE})",
    ]
    if accuracy and measured:
        lines += [
            f"accuracy   {_mark(accuracy.ok)}  {accuracy.sentence}",
            f"           {accuracy.n} faces{', ' + accuracy.split if accuracy.split else ''}; macro-F1 "
            f"{accuracy.macro_f1:.2%}; calibration error {accuracy.ece:.3f}, NLL {accuracy.nll:.3f}; "
            f"{accuracy.ms_p50} ms a face (p99 {accuracy.ms_p99})",
            "",
            *measured.figures.rows(),
        ]
    return "\n".join(lines)


def _mark(ok: bool) -> str:
    return "ok  " if ok else "FAIL"
