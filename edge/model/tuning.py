"""Measure which accelerator, and how many threads, classify fastest on this device, and keep the choice.

The choice is kept in the state folder (``tuned.json``). It holds for this model, runtime and machine only.
"""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np

from edge.errors import AcceleratorError, StoreError
from edge.model.bundle import Bundle
from edge.model.classifier import Network, find_runtime
from edge.model.edgetpu import open_edgetpu
from edge.model.edgetpu_trial import EdgeTpuTrial
from edge.records import Gray
from edge.settings import ModelSettings
from edge.system import hardware
from edge.system.atomic_file import write_durably
from edge.system.clock import now
from edge.system.owner_rights import rights_of_owner
from edge.untrusted_file import MALFORMED_JSON, read_regular

_log = logging.getLogger(__name__)

_TUNING_FILE: Final = "tuned.json"
_LARGEST_TUNING: Final = 2**16  # bytes
_MARGIN: Final = 1.05  # a smaller gain is not worth more threads, or a device that may be unplugged
_MAX_THREADS: Final = 8  # a network of this size gains nothing from more
_ROUNDS: Final = 40
_FACES_PER_ROUND: Final = 5
SAMPLES: Final = _ROUNDS * _FACES_PER_ROUND
"""How many faces each measured time is the median of."""

AcceleratorName: TypeAlias = Literal["cpu", "edgetpu"]


class MeasuredSpeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An accelerator with a number of threads, and the median time of a face in milliseconds."""

    accelerator: AcceleratorName
    threads: int
    ms: float


class TuningConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measurement depends on; when any of it changes, the measurement is void.

    ``model`` and ``edgetpu_model`` are the sha256 of the bundle's files, ``machine`` is the kind of processor.
    """

    model: str
    edgetpu_model: str | None
    runtime: str
    machine: str
    cores: int
    board: str


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of a tuning: the choice, all measurements, and the conditions that they hold for.

    ``edgetpu`` is the outcome of the Edge TPU's trial, or why there was none.
    """

    holds_for: TuningConditions
    chosen: MeasuredSpeed
    measured: tuple[MeasuredSpeed, ...]
    edgetpu: str
    time: str

    def was_measured(self, accelerator: str) -> bool:
        """Whether an accelerator was there to be measured."""
        return any(speed.accelerator == accelerator for speed in self.measured)


@dataclass(frozen=True)
class RuntimeChoice:
    """An accelerator with a number of threads that is to be measured; ``run`` classifies one face."""

    accelerator: AcceleratorName
    threads: int
    run: Callable[[Gray], object]


def tune(bundle: Bundle, settings: ModelSettings) -> Tuning:
    """Measure every accelerator and number of threads that works here, and choose. Takes some seconds.

    The Edge TPU is tried in a child process first. Raises AcceleratorError when it fails after that.
    """
    threads = range(1, min(_usable_cores(), _MAX_THREADS) + 1)
    choices = [RuntimeChoice("cpu", number, Network(bundle.model, bundle.folder, number).logits) for number in threads]
    edgetpu = "not asked for" if settings.accelerator == "cpu" else "the bundle has no model_edgetpu.tflite"
    if settings.accelerator != "cpu" and bundle.edgetpu_model:
        result = EdgeTpuTrial(str(bundle.folder), settings.edgetpu_library).wait()
        edgetpu = f"{result.outcome}: {result.sentence}"
        if result.outcome == "healthy":
            choices.append(RuntimeChoice("edgetpu", 1, open_edgetpu(bundle, settings.edgetpu_library).logits))
    try:
        measured = measure_speed(choices, list(bundle.golden.faces), time.perf_counter)
    except (RuntimeError, ValueError) as error:
        raise AcceleratorError(f"the Edge TPU failed while it was measured: {' '.join(str(error).split())}") from error
    return Tuning(
        tuning_conditions(bundle), choose(measured), tuple(measured), edgetpu, now().isoformat(timespec="seconds")
    )


def measure_speed(
    choices: Sequence[RuntimeChoice], faces: Sequence[Gray], clock: Callable[[], float]
) -> list[MeasuredSpeed]:
    """Time the choices in turn, a few faces each, so that a slow phase of the board slows all of them alike.

    ``faces`` are ``(48, 48)`` uint8; ``clock`` counts seconds.
    """
    seconds: list[list[float]] = [[] for _ in choices]
    for turn in range(_ROUNDS):
        for choice, samples in zip(choices, seconds, strict=True):
            for number in range(_FACES_PER_ROUND):
                face = faces[(turn * _FACES_PER_ROUND + number) % len(faces)]
                began = clock()
                choice.run(face)
                samples.append(clock() - began)
    return [
        MeasuredSpeed(choice.accelerator, choice.threads, round(1000 * float(np.median(samples)), 4))
        for choice, samples in zip(choices, seconds, strict=True)
    ]


def choose(measured: Sequence[MeasuredSpeed]) -> MeasuredSpeed:
    """The simplest that is nearly as fast as the fastest: fewer threads before more, the CPU before the Edge TPU."""
    slowest_accepted = min(speed.ms for speed in measured) * _MARGIN
    accepted = [speed for speed in measured if speed.ms <= slowest_accepted]
    return min(accepted, key=lambda speed: (speed.accelerator, speed.threads))


def tuning_conditions(bundle: Bundle) -> TuningConditions:
    """The conditions of a measurement with this bundle on this machine now."""
    card = bundle.card
    compiled = card.edgetpu.sha256 if card.edgetpu else None
    _, runtime = find_runtime()
    return TuningConditions(
        card.sha256, compiled, runtime, platform.machine(), _usable_cores(), hardware.text_of(hardware.MODEL)
    )


def save_tuning(folder: Path, tuning: Tuning) -> Path:
    """Keep the choice in the state folder; returns its file. Raises StoreError when it cannot be written."""
    file = folder / _TUNING_FILE
    try:
        with rights_of_owner(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(file, msgspec.json.encode(tuning), 0o644)
    except OSError as error:
        raise StoreError(f"{file}: the choice cannot be kept: {error.strerror}") from error
    return file


def load_tuning(folder: Path, bundle: Bundle) -> Tuning | None:
    """The choice that is kept in the state folder, if it was made for this model on this machine, else None."""
    file = folder / _TUNING_FILE
    try:
        with rights_of_owner(folder):
            content = read_regular(file, _LARGEST_TUNING)
        tuning = msgspec.json.decode(content, type=Tuning)
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED_JSON) as error:
        _log.warning("%s cannot be read and is ignored: %s", file, error)
        return None
    if tuning.holds_for != tuning_conditions(bundle):
        _log.warning("%s is of another model, runtime or machine: run fer-edge bench --autotune again", file)
        return None
    return tuning


def _usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
