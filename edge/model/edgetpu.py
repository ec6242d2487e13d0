"""The Coral Edge TPU: tried in a child process, used while it works, replaced by the CPU when it fails.

A device may be unplugged at any moment, and a library that does not fit the runtime can crash the process or hang in
it. So a child process first computes the golden inputs. An error while running only costs a fallback to the CPU; the
device is then tried again, after delays that grow. What ends the whole process leaves a marker in the runtime
directory: the next process finds it, and starts on the CPU.

This was tested with a stand-in for Coral's library (tests/edge/standin_edgetpu.c), never with an Edge TPU.
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

from edge.errors import AcceleratorError, BundleError, RuntimeMissingError
from edge.model.bundle import Bundle
from edge.model.classifier import EDGE_TPU, Network, check_tensors, open_delegate
from edge.model.edgetpu_trial import CHECK_VERSIONS, HOW_TO_INSTALL, EdgeTpuTrial, Outcome, TrialResult
from edge.model.verification import check_golden
from edge.records import Gray

_log = logging.getLogger(__name__)

_MIN_TOP1: Final = 0.9  # with a smaller share of equal expressions, the device computes something else
_FIRST_RETRY_SECONDS: Final = 30.0
_FIRST_RETRY_AFTER_CRASH: Final = 600.0
_MAX_RETRY_SECONDS: Final = 3600.0
_RECOVERED_SECONDS: Final = 600.0  # only then are earlier failures forgotten: a loose plug needs long delays too
_POLL_SECONDS: Final = 0.02
_HOW_TO_COMPILE: Final = "compile the bundle's model.tflite (fer-export compile, or add-tpu)"


class EdgeTpuUnusableError(AcceleratorError):
    """There is an Edge TPU, or a library for one, but it does not work."""

    outcome: Outcome = "unusable"
    remedy = CHECK_VERSIONS


class LibraryNotFoundError(EdgeTpuUnusableError):
    """No library for an Edge TPU is installed."""

    outcome = "absent"
    remedy = HOW_TO_INSTALL


class DeviceNotFoundError(EdgeTpuUnusableError):
    """The library finds no Edge TPU that is free."""

    outcome = "absent"
    remedy = (
        "is it plugged in (lsusb: 18d1:9302 or 1a6e:089a)? Is it free (the service may be using it)? Is this user in "
        "the group plugdev?"
    )


class NotCompiledError(EdgeTpuUnusableError):
    """The bundle has no network that is compiled for the Edge TPU."""

    remedy = _HOW_TO_COMPILE


def open_edgetpu(bundle: Bundle, library: str) -> Network:
    """Open the bundle's compiled network on the Edge TPU.

    Raises a kind of EdgeTpuUnusableError that says why it cannot be used. May crash or hang.
    """
    if bundle.edgetpu_model is None:
        raise NotCompiledError(f"{bundle.folder} has no model_edgetpu.tflite")
    try:
        delegate = open_delegate(library)
    except OSError as error:
        if str(error).startswith(f"{library}: cannot open"):
            raise LibraryNotFoundError(f"the library {library} is not installed") from error
        raise EdgeTpuUnusableError(f"the library {library} cannot be loaded: {error}") from error
    except AttributeError as error:
        raise EdgeTpuUnusableError(f"{library} is not a library for the Edge TPU: {error}") from error
    except ValueError as error:
        detail = str(error).partition("\n")[2].strip()
        raise DeviceNotFoundError(f"{library} finds no device{f' ({detail})' if detail else ''}") from error
    try:
        network = Network(bundle.edgetpu_model, bundle.folder, delegates=[delegate])
        check_tensors(bundle, network)
    except (BundleError, RuntimeMissingError, OSError) as error:  # the last two when no file can be opened
        raise EdgeTpuUnusableError(f"the compiled network cannot be used: {error}") from error
    return network


def run_trial(bundle: Bundle, library: str, report: Callable[[dict[str, object]], None]) -> None:
    """Compute the golden inputs on the Edge TPU; ``report`` each step before it begins, and the outcome at the end.

    For the child process of an EdgeTpuTrial.
    """
    report({"step": "opening it"})
    try:
        network = open_edgetpu(bundle, library)
    except EdgeTpuUnusableError as error:
        report({"outcome": error.outcome, "sentence": str(error), "remedy": error.remedy})
        return
    report({"step": "computing with it"})
    began = time.perf_counter()
    try:
        agreement = check_golden(network, bundle.golden)
    except (RuntimeError, ValueError) as error:
        report({"outcome": "unusable", "sentence": f"it fails when it computes: {error}", "remedy": CHECK_VERSIONS})
        return
    milliseconds = (time.perf_counter() - began) * 1000 / agreement.n
    # Cards have no tolerance for the Edge TPU: it may differ as much as any runtime was measured to differ.
    allowed = bundle.card.allowed_lsb(EDGE_TPU, platform.machine())
    healthy = agreement.top1 >= _MIN_TOP1 and agreement.largest_lsb <= allowed
    sentence = (
        f"{agreement.n} golden outputs on {network.runtime} with {library}, largest difference {agreement.largest_lsb} "
        f"steps (up to {allowed} is rounding), {agreement.top1:.0%} the same expression, {milliseconds:.1f} ms a face"
    )
    outcome, remedy = ("healthy", "") if healthy else ("wrong", _HOW_TO_COMPILE)
    report({"outcome": outcome, "sentence": sentence, "remedy": remedy})


class CrashMarker:
    """A file in the runtime directory (in memory, not on the SD card) that is set while the Edge TPU computes.

    Use it as a context manager around every call into the library. A process that ends inside leaves the marker set:
    ``crashed`` says whether the previous process did, ``crashes`` how many did in a row. Without a directory, nothing
    is recorded.
    """

    def __init__(self, folder: str | None) -> None:
        self.crashes = 0
        self.crashed = False
        self._file: int | None = None
        if not folder:
            return
        path = Path(folder) / "edgetpu.mark"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            computing, crashes = os.pread(self._file, 2, 0).ljust(2, b"\0")
            self.crashes = min(255, crashes + 1) if computing else crashes
            self.crashed = bool(computing)
            os.pwrite(self._file, bytes((0, self.crashes)), 0)
        except OSError as error:
            _log.warning("%s: cannot be written: %s", path, error.strerror)

    def reset(self) -> None:
        """Forget earlier crashes, because the Edge TPU has worked for long."""
        self.crashes = 0
        self._write(1, 0)

    def __enter__(self) -> Self:
        self._write(0, 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._write(0, 0)

    def _write(self, position: int, value: int) -> None:
        if self._file is not None:
            with suppress(OSError):  # opening it has warned already
                os.pwrite(self._file, bytes((value,)), position)


def retry_delay(failures: int, crashes: int) -> float:
    """Seconds until the Edge TPU is tried again.

    They double with each of the ``failures`` from half a minute, or with each of the ``crashes`` from ten minutes.
    """
    first, times = (_FIRST_RETRY_AFTER_CRASH, crashes) if crashes else (_FIRST_RETRY_SECONDS, failures)
    return min(_MAX_RETRY_SECONDS, first * 2.0 ** min(times - 1, 16))


class EdgeTpu:
    """The Edge TPU as an accelerator (edge.model.classifier.Accelerator), used from a healthy trial to a failure.

    ``library`` is the name or path of its library. With ``wanted``, its absence is a degraded state too. ``trial``
    starts a trial of a bundle's folder with a library; ``clock`` counts seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        library: str,
        marker: CrashMarker,
        *,
        wanted: bool,
        trial: Callable[[str, str], EdgeTpuTrial] = EdgeTpuTrial,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.degraded: str | None = None
        self._bundle, self._library, self._marker, self._wanted = bundle, library, marker, wanted
        self._start_trial, self._clock = trial, clock
        self._network: Network | None = None
        self._trial: EdgeTpuTrial | None = None
        self._failures = 0
        self._used_since = 0.0
        self._next_trial: float | None = clock()
        if bundle.edgetpu_model is None:
            self._next_trial = None  # that cannot change while this process lives
            self._set_degraded(f"{bundle.folder} has no model_edgetpu.tflite for the Edge TPU: {_HOW_TO_COMPILE}")
        elif marker.crashed:
            self._fail("the last process ended, by a crash or the watchdog, while the Edge TPU computed")

    @property
    def working(self) -> bool:
        """Whether the Edge TPU is used now."""
        return self._network is not None

    def poll(self) -> None:
        """Start a trial that is due, or take the result of one. To be called between frames; returns at once."""
        now = self._clock()
        if self._trial:
            if result := self._trial.poll():
                self._trial = None
                self._take_result(result)
        elif self._network:
            if self._failures + self._marker.crashes and now - self._used_since >= _RECOVERED_SECONDS:
                self._failures = 0
                self._marker.reset()
        elif self._next_trial is not None and now >= self._next_trial:
            try:
                self._trial = self._start_trial(str(self._bundle.folder), self._library)
            except OSError as error:  # no memory, too many processes
                self._fail(f"no trial of the Edge TPU can be started: {error}")

    def wait(self) -> None:
        """Wait for the result of a trial that is due or running."""
        self.poll()
        while self._trial:
            time.sleep(_POLL_SECONDS)
            self.poll()

    def logits(self, face: Gray) -> NDArray[np.int8] | None:
        """Quantized logits, ``(48, 48)`` uint8 to ``(7,)`` int8; None when it is not used, or fails on this face."""
        if self._network is None:
            return None
        try:
            with self._marker:
                return self._network.logits(face)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
        self._fail(f"the Edge TPU failed while it computed: {reason}")
        return None

    def _take_result(self, result: TrialResult) -> None:
        if result.outcome == "healthy":
            self._start_using(result)
        elif result.outcome == "absent" and not self._wanted and not self._failures:
            self._next_trial = None
            _log.info("%s; the CPU is used", result.sentence)
        else:
            self._fail(f"{result.sentence}: {result.remedy}")

    def _start_using(self, result: TrialResult) -> None:
        try:
            with self._marker:
                self._network = open_edgetpu(self._bundle, self._library)
        except EdgeTpuUnusableError as error:
            self._fail(str(error))
            return
        self._used_since = self._clock()
        self._next_trial = None
        self.degraded = None
        _log.warning("the Edge TPU is used from now on (%s)", result.sentence)

    def _fail(self, sentence: str) -> None:
        """Use the CPU, and plan the next trial."""
        with self._marker:  # closing the network calls into the library too
            self._network = None
        self._failures += 1
        delay = retry_delay(self._failures, self._marker.crashes)
        self._next_trial = self._clock() + delay
        _log.warning("the Edge TPU is tried again in %.0f s", delay)
        self._set_degraded(sentence)

    def _set_degraded(self, sentence: str) -> None:
        if sentence != self.degraded:
            _log.warning("degraded: the CPU is used. %s", sentence)
        self.degraded = sentence
