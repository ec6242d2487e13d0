"""The Coral Edge TPU: tried out in a child process, used while it works, given up for the CPU when it fails.

A device may vanish at any moment, and a library that does not fit the runtime can crash the process or hang in it.
So a child process computes the golden inputs first. An error while running costs nothing but a fallback to the CPU, and
the device is tried again with growing patience. For what ends the whole process there is a mark in the runtime
directory: the next process finds it, and begins on the CPU.

What is here was tested with a stand-in for Coral's library (tests/edge/standin_edgetpu.c), never with an Edge TPU.
"""

import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.errors import AcceleratorError, BundleError
from edge.model.bundle import Bundle
from edge.model.classifier import Network, expect_quantization, open_delegate
from edge.model.edgetpu_trial import INSTALL, PAIR, EdgeTpuTrial, Outcome, TrialResult
from edge.model.verification import check_golden
from edge.records import Gray
from edge.settings import ModelSettings

_log = logging.getLogger(__name__)

_USUAL_TOP1: Final = 0.9  # below this share of golden inputs with the same expression, something else is computed
_FIRST_WAIT: Final = 30.0
_WAIT_AFTER_DEATH: Final = 600.0
_LONGEST_WAIT: Final = 3600.0
_LASTING_SECONDS: Final = 600.0  # only then are earlier losses forgotten: a loose plug must be waited for too
_POLL_SECONDS: Final = 0.02
_COMPILE: Final = "compile the bundle's model.tflite (fer-export compile, or add-tpu)"


class Unusable(AcceleratorError):  # noqa: N818  these say what is
    """There is an Edge TPU, or a library for one, that does not do its work."""

    outcome: Outcome = "unusable"
    mend = PAIR


class LibraryAbsent(Unusable):
    """There is no library for an Edge TPU here."""

    outcome = "absent"
    mend = INSTALL


class DeviceAbsent(Unusable):
    """There is no Edge TPU here."""

    outcome = "absent"
    mend = "is it plugged in (lsusb: 18d1:9302 or 1a6e:089a), free (is the service running?), its group plugdev yours?"


class Uncompiled(Unusable):
    """The bundle has nothing for an Edge TPU."""

    mend = _COMPILE


def open_edgetpu(bundle: Bundle, library: str) -> Network:
    """The bundle's compiled network on the Edge TPU.

    Raises a kind of Unusable that says why not. May crash or hang.
    """
    if bundle.edgetpu_model is None:
        raise Uncompiled(f"{bundle.folder} has no model_edgetpu.tflite")
    try:
        delegate = open_delegate(library)
    except OSError as error:
        if str(error).startswith(f"{library}: cannot open"):
            raise LibraryAbsent(f"the library {library} is not installed") from error
        raise Unusable(f"the library {library} cannot be loaded: {error}") from error
    except AttributeError as error:
        raise Unusable(f"{library} is no library of an Edge TPU: {error}") from error
    except ValueError as error:
        detail = str(error).partition("\n")[2].strip()
        raise DeviceAbsent(f"{library} finds none{f' ({detail})' if detail else ''}") from error
    try:
        network = Network(bundle.edgetpu_model, bundle.folder, delegates=[delegate])
        expect_quantization(bundle, network)
    except BundleError as error:
        raise Unusable(f"the compiled network cannot be used: {error}") from error
    return network


def try_out(bundle: Bundle, library: str, tell: Callable[[dict[str, object]], None]) -> None:
    """Compute the golden inputs on the Edge TPU, and tell each step before it is taken. For a child process."""
    tell({"doing": "opened it"})
    try:
        network = open_edgetpu(bundle, library)
    except Unusable as error:
        tell({"outcome": error.outcome, "sentence": str(error), "mend": error.mend})
        return
    tell({"doing": "computed with it"})
    began = time.perf_counter()
    try:
        agreed = check_golden(network, bundle.golden)
    except (RuntimeError, ValueError) as error:
        tell({"outcome": "unusable", "sentence": f"it fails when it computes: {error}", "mend": PAIR})
        return
    milliseconds = (time.perf_counter() - began) * 1000 / agreed.n
    # The card knows no Edge TPU: it may differ by as much as one runtime was measured to differ from another.
    allowed = bundle.card.allowed_lsb("an Edge TPU", platform.machine())
    right = agreed.top1 >= _USUAL_TOP1 and agreed.largest_lsb <= allowed
    sentence = (
        f"{agreed.n} golden outputs on {network.runtime} with {library}, largest difference {agreed.largest_lsb} steps "
        f"(up to {allowed} is rounding), {agreed.top1:.0%} the same expression, {milliseconds:.1f} ms a face"
    )
    tell({"outcome": "healthy" if right else "wrong", "sentence": sentence, "mend": "" if right else _COMPILE})


class TrialMark:
    """A note in the runtime directory, which is memory and not the SD card, that the Edge TPU computes right now.

    Use it as a context manager around whatever calls into the library. The process that dies inside leaves the note
    behind: ``died`` says whether the former one did, ``deaths`` how many in a row. Without a directory none is noted.
    """

    def __init__(self, folder: str | None) -> None:
        self.deaths = 0
        self.died = False
        self._file: int | None = None
        if not folder:
            return
        path = Path(folder) / "edgetpu.mark"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            busy, deaths = os.pread(self._file, 2, 0).ljust(2, b"\0")
            self.deaths = min(255, deaths + 1) if busy else deaths
            self.died = bool(busy)
            os.pwrite(self._file, bytes((0, self.deaths)), 0)
        except OSError as error:
            _log.warning("%s: cannot be written: %s", path, error.strerror)

    def forget(self) -> None:
        """The Edge TPU has worked for long."""
        self.deaths = 0
        self._write(1, 0)

    def __enter__(self) -> Self:
        self._write(0, 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._write(0, 0)

    def _write(self, place: int, value: int) -> None:
        if self._file is not None:
            with suppress(OSError):  # its first writing has warned
                os.pwrite(self._file, bytes((value,)), place)


def wait_after(losses: int, deaths: int) -> float:
    """Seconds until the Edge TPU is tried again: doubling from half a minute, or from ten after it ended a process."""
    first, times = (_WAIT_AFTER_DEATH, deaths) if deaths else (_FIRST_WAIT, losses)
    return min(_LONGEST_WAIT, first * 2.0 ** min(times - 1, 16))


class EdgeTpu:
    """The Edge TPU as an accelerator (edge.model.classifier.Accelerator): the CPU computes until a trial is healthy.

    With ``wanted``, its absence is degraded too. ``trial`` starts a trial; ``clock`` counts seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: ModelSettings,
        mark: TrialMark,
        *,
        wanted: bool,
        trial: Callable[[ModelSettings], EdgeTpuTrial] = EdgeTpuTrial,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.degraded: str | None = None
        self._bundle, self._settings, self._mark, self._wanted = bundle, settings, mark, wanted
        self._start_trial, self._clock = trial, clock
        self._network: Network | None = None
        self._trial: EdgeTpuTrial | None = None
        self._losses = 0
        self._since = 0.0
        self._due: float | None = clock()
        if bundle.edgetpu_model is None:
            self._due = None  # nothing that could change while this process lives
            self._say_degraded(f"{bundle.folder} has no model_edgetpu.tflite for the Edge TPU: {_COMPILE}")
        elif mark.died:
            self._lose("the last process ended, by a crash or the watchdog, while the Edge TPU computed")

    @property
    def working(self) -> bool:
        """Whether the Edge TPU computes now."""
        return self._network is not None

    def tend(self) -> None:
        """Begin a trial when it is time, and take its verdict when there is one."""
        now = self._clock()
        if self._trial:
            if verdict := self._trial.poll():
                self._trial = None
                self._decide(verdict)
        elif self._network:
            if self._losses + self._mark.deaths and now - self._since >= _LASTING_SECONDS:
                self._losses = 0
                self._mark.forget()
        elif self._due is not None and now >= self._due:
            try:
                self._trial = self._start_trial(self._settings)
            except OSError as error:  # no memory, too many processes
                self._lose(f"the Edge TPU cannot be tried out: {error}")

    def settle(self) -> None:
        """Wait for the first trial's verdict."""
        self.tend()
        while self._trial:
            time.sleep(_POLL_SECONDS)
            self.tend()

    def logits(self, face: Gray) -> NDArray[np.int8] | None:
        """Quantized logits, ``(48, 48)`` uint8 to ``(7,)`` int8; None when it does not work, or stops to work now."""
        if self._network is None:
            return None
        try:
            with self._mark:
                return self._network.logits(face)
        except (RuntimeError, ValueError) as error:
            trouble = " ".join(str(error).split())
        self._lose(f"the Edge TPU failed while it computed: {trouble}")
        return None

    def _decide(self, verdict: TrialResult) -> None:
        if verdict.outcome == "healthy":
            self._begin(verdict)
        elif verdict.outcome == "absent" and not self._wanted and not self._losses:
            self._due = None
            _log.info("%s; the CPU computes", verdict.sentence)
        else:
            self._lose(f"{verdict.sentence}: {verdict.mend}")

    def _begin(self, verdict: TrialResult) -> None:
        try:
            with self._mark:
                self._network = open_edgetpu(self._bundle, self._settings.edgetpu_library)
        except Unusable as error:
            self._lose(str(error))
            return
        self._since = self._clock()
        self._due = None
        self.degraded = None
        _log.warning("the Edge TPU computes from now on (%s)", verdict.sentence)

    def _lose(self, sentence: str) -> None:
        with self._mark:  # letting go calls into the library too
            self._network = None
        self._losses += 1
        wait = wait_after(self._losses, self._mark.deaths)
        self._due = self._clock() + wait
        _log.warning("the Edge TPU is tried again in %.0f s", wait)
        self._say_degraded(sentence)

    def _say_degraded(self, sentence: str) -> None:
        if sentence != self.degraded:
            _log.warning("degraded: the CPU computes. %s", sentence)
        self.degraded = sentence
