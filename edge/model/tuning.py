"""``fer-edge bench --autotune``: which accelerator, and how many threads, classify fastest on this very device.

What it finds is kept beside the outbox, and holds for this model, runtime and machine only.
"""

import json
import logging
import os
import platform
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from edge.errors import AcceleratorError, StoreError
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Network, find_runtime
from edge.model.edgetpu import open_edgetpu
from edge.model.edgetpu_trial import EdgeTpuTrial
from edge.records import Gray
from edge.settings import ModelSettings, load_settings
from edge.system import hardware
from edge.system.atomic_file import write_durably
from edge.system.clock import now
from edge.system.state import service_environ, store_folder

_log = logging.getLogger(__name__)

_FILE: Final = "tuned.json"
_MARGIN: Final = 1.05  # what is faster by less is not worth more threads, or a device that may vanish
_MOST_THREADS: Final = 8  # a network of this size gains nothing from more
_ROUNDS: Final = 40
_FACES_A_ROUND: Final = 5


class MeasuredSpeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to classify, and the median of the milliseconds that a face took."""

    accelerator: Literal["cpu", "edgetpu"]
    threads: int
    ms: float


class TuningConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measurement of time holds for; when any of it changes, it is worth nothing.

    ``model`` and ``edgetpu_model`` are the sha256 of the bundle's files, ``machine`` is the kind of processor.
    """

    model: str
    edgetpu_model: str | None
    runtime: str
    machine: str
    cores: int
    board: str


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found best, of what, and for what it holds; ``edgetpu`` is the outcome of the Edge TPU's trial."""

    holds_for: TuningConditions
    chosen: MeasuredSpeed
    measured: tuple[MeasuredSpeed, ...]
    edgetpu: str
    time: str

    def was_measured(self, accelerator: str) -> bool:
        """Whether an accelerator was there to be measured."""
        return any(way.accelerator == accelerator for way in self.measured)


@dataclass(frozen=True)
class RuntimeChoice:
    """A way to classify that is to be measured."""

    accelerator: Literal["cpu", "edgetpu"]
    threads: int
    run: Callable[[Gray], object]


def command(arguments: Namespace) -> int:
    """Carry out ``fer-edge bench --autotune`` with its parsed arguments."""
    settings = load_settings(arguments.config)
    folder = store_folder(settings.store, service_environ(arguments.config, os.environ))
    bundle = open_bundle(find_bundle(settings.model.bundle))
    tuned = tune(bundle, settings.model)
    file = folder / _FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(file, msgspec.json.encode(tuned), 0o644)  # root tunes, the service's own user reads
    except OSError as error:
        raise StoreError(f"{file}: the choice cannot be kept: {error.strerror}") from error
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(tuned) | {"file": str(file)}))
    else:
        print(f"{table(tuned)}\nkept in {file}; {in_use(settings.model)}")
    return 0


def tune(bundle: Bundle, settings: ModelSettings) -> Tuning:
    """Measure every way that works here. Takes some seconds; the Edge TPU is tried out in a child process first.

    Raises AcceleratorError when the Edge TPU fails after that.
    """
    threads = range(1, min(_cores(), _MOST_THREADS) + 1)
    ways = [RuntimeChoice("cpu", number, Network(bundle.model, bundle.folder, number).logits) for number in threads]
    edgetpu = "not asked for" if settings.accelerator == "cpu" else "the bundle has no model_edgetpu.tflite"
    if settings.accelerator != "cpu" and bundle.edgetpu_model:
        verdict = EdgeTpuTrial(settings).wait()
        edgetpu = f"{verdict.outcome}: {verdict.sentence}"
        if verdict.outcome == "healthy":
            ways.append(RuntimeChoice("edgetpu", 1, open_edgetpu(bundle, settings.edgetpu_library).logits))
    try:
        measured = measure(ways, list(bundle.golden.faces), time.perf_counter)
    except (RuntimeError, ValueError) as error:
        raise AcceleratorError(f"the Edge TPU failed while it was measured: {' '.join(str(error).split())}") from error
    return Tuning(
        tuning_conditions(bundle), choose(measured), tuple(measured), edgetpu, now().isoformat(timespec="seconds")
    )


def measure(ways: Sequence[RuntimeChoice], faces: Sequence[Gray], clock: Callable[[], float]) -> list[MeasuredSpeed]:
    """Time the ways by turns, so that whatever slows the board down for a while slows all of them."""
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(_ROUNDS):
        for way, taken in zip(ways, seconds, strict=True):
            for number in range(_FACES_A_ROUND):
                face = faces[(turn * _FACES_A_ROUND + number) % len(faces)]
                began = clock()
                way.run(face)
                taken.append(clock() - began)
    return [
        MeasuredSpeed(way.accelerator, way.threads, round(1000 * float(np.median(taken)), 4))
        for way, taken in zip(ways, seconds, strict=True)
    ]


def choose(measured: Sequence[MeasuredSpeed]) -> MeasuredSpeed:
    """The simplest that is nearly as fast as the fastest: fewer threads before more, the CPU before the Edge TPU."""
    enough = min(way.ms for way in measured) * _MARGIN
    return min((way for way in measured if way.ms <= enough), key=lambda way: (way.accelerator, way.threads))


def table(tuned: Tuning) -> str:
    """What was measured, for a person."""
    lines = [f"{tuned.holds_for.runtime}; ms a face, median of {_ROUNDS * _FACES_A_ROUND} by turns"]
    for way in tuned.measured:
        name = "Edge TPU" if way.accelerator == "edgetpu" else f"CPU, {way.threads} thread{'s'[: way.threads > 1]}"
        lines.append(f"  {name:16}{way.ms:>9.3f}{'   <- chosen' if way == tuned.chosen else ''}")
    if not tuned.was_measured("edgetpu"):
        lines.append(f"  {'Edge TPU':16}{'-':>9}   {tuned.edgetpu}")
    return "\n".join(lines)


def in_use(settings: ModelSettings) -> str:
    """Whether the choice that is kept is used, or which settings are instead."""
    fixed = [f"model.threads = {settings.threads}"] * (settings.threads != 0)
    fixed += [f'model.accelerator = "{settings.accelerator}"'] * (settings.accelerator != "auto")
    return f"but the settings say {' and '.join(fixed)}" if fixed else "used from the next start on"


def tuning_conditions(bundle: Bundle) -> TuningConditions:
    """What a measurement here and now would hold for."""
    card = bundle.card
    compiled = card.edgetpu.sha256 if card.edgetpu else None
    _, runtime = find_runtime()
    return TuningConditions(
        card.sha256, compiled, runtime, platform.machine(), _cores(), hardware.text_of(hardware.MODEL)
    )


def load_tuning(folder: Path, bundle: Bundle) -> Tuning | None:
    """The choice that is kept in the state folder, if it was made for this model on this machine."""
    file = folder / _FILE
    try:
        tuned = msgspec.json.decode(file.read_bytes(), type=Tuning)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("%s cannot be read, so nothing is tuned: %s", file, error)
        return None
    if tuned.holds_for != tuning_conditions(bundle):
        _log.warning("%s is of another model, runtime or machine: run fer-edge bench --autotune again", file)
        return None
    return tuned


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
