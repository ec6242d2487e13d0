"""The process as a systemd service: readiness, the watchdog, a clean stop, and patience after failures.

Started by hand nothing of this acts, except that SIGTERM stops cleanly: systemd is recognised by ``$NOTIFY_SOCKET``,
``$WATCHDOG_USEC``, ``$RUNTIME_DIRECTORY`` and ``$CREDENTIALS_DIRECTORY`` (sd_notify(3), systemd.exec(5)).
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from edge.errors import FerEdgeError
from edge.records import Fault

_log = logging.getLogger(__name__)

STOP_SECONDS: Final = 2.0
"""How long a service that was asked to stop, or that has a fault to tell, waits for the broker."""

_NOTIFY_SECONDS: Final = 2.0  # systemd that is busy, as while it reads its units again, is waited for
_HANG_SECONDS: Final = 3.0  # a clean stop that takes longer hangs in a camera; the unit allows five seconds
_STATUS_SECONDS: Final = 10.0
_LASTING_SECONDS: Final = 60.0  # only then are earlier failures forgotten: a camera that flaps must be waited for too
_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
_STARTING_SECONDS: Final = 90.0  # what a start may take beyond a wait, as TimeoutStartSec= in the unit


class Failures(msgspec.Struct, frozen=True):
    """How many starts in a row did not last, what the last one said, and the switch of models that it was to prove."""

    count: int = 0
    sentence: str = "ended without a word"
    trial: int = 0


def wait_after(failures: int) -> float:
    """Seconds to wait before a start, on top of the unit's ``RestartSec=``: none after one failure, then doubling."""
    doublings = min(failures - 2, 10)  # after a day without a camera the power would be too large for a float
    return 0.0 if failures < 2 else min(_LONGEST_WAIT, _FIRST_WAIT * 2**doublings)


class Notifier:
    """Sends to the socket of sd_notify(3), given by path or as ``@`` and an abstract name; None keeps it quiet."""

    def __init__(self, address: str | None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def send(self, **assignments: str) -> None:
        """Send assignments in one message. It is lost, with a warning, when nobody listens, or nobody reads in time."""
        if not self._address:
            return
        # A line break in a value would begin another assignment.
        message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in assignments.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_NOTIFY_SECONDS)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("systemd could not be told %s: %s", message.partition("\n")[0], error)


class Progress:
    """What to notify systemd of as frames go by. Pure: time, in seconds, is passed in.

    ``watchdog`` is the watchdog's time in seconds, None without one.
    """

    def __init__(self, watchdog: float | None) -> None:
        self._feed_every = watchdog / 2 if watchdog else None
        self._ready: float | None = None
        self._fed = -math.inf
        self._counted = 0.0
        self._frames = 0
        self._resting = False

    def frame(self, now: float, accelerator: str) -> dict[str, str]:
        """Take a frame that went through the whole pipeline; returns the assignments for systemd, often none.

        ``accelerator`` is what classifies now.
        """
        assignments = {}
        if self._ready is None:
            self._ready = self._counted = now
            assignments = {"READY": "1", "STATUS": f"the first frame has been seen, on {accelerator}"}
        elif self._resting:
            self._counted, self._frames = now, 0
            assignments = {"STATUS": f"seeing again, on {accelerator}"}
        else:
            self._frames += 1
        self._resting = False
        if now - self._counted >= _STATUS_SECONDS:
            assignments["STATUS"] = f"{self._frames / (now - self._counted):.1f} frames/s on {accelerator}"
            self._counted, self._frames = now, 0
        return assignments | self._feed(now)

    def rest(self, now: float) -> dict[str, str]:
        """The camera is closed on purpose: the service is ready all the same, and the watchdog is fed."""
        assignments = {}
        if self._ready is None:
            self._ready = now
            assignments["READY"] = "1"
        if not self._resting:
            self._resting = True
            assignments["STATUS"] = "paused: the camera is closed"
        return assignments | self._feed(now)

    def lasts(self, now: float) -> bool:
        """Whether this start has been ready for long enough to forget earlier failures."""
        return self._ready is not None and now - self._ready >= _LASTING_SECONDS

    def _feed(self, now: float) -> dict[str, str]:
        if self._feed_every is None or now - self._fed < self._feed_every:
            return {}
        self._fed = now
        return {"WATCHDOG": "1"}


class FailureLog:
    """Remembers failures in the runtime directory, which is memory and not the SD card; without one, nowhere."""

    def __init__(self, folder: str | None) -> None:
        self._file = Path(folder) / "failures.json" if folder else None

    def read(self) -> Failures:
        """What is remembered; nothing when the file is absent or damaged."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Failures) if self._file else Failures()
        except (OSError, msgspec.DecodeError):
            return Failures()

    def write(self, failures: Failures) -> None:
        """Remember; a full disk must not be a reason to fail, so it only warns."""
        if not self._file:
            return
        try:
            self._file.write_bytes(msgspec.json.encode(failures))
        except OSError as error:
            _log.warning("%s: cannot be written: %s", self._file, error.strerror)


class Service:
    """A run under systemd. Use it as a context manager: from then on SIGTERM, and under systemd SIGINT, ask to stop.

    A thread of its own takes the request at once, even while the main thread hangs in a camera's C code. When the main
    thread has not left the context ``_HANG_SECONDS`` later, the process exits without it.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.managed = "NOTIFY_SOCKET" in environ
        self.stopping = threading.Event()
        self._before_forced_exit: list[Callable[[], object]] = []
        self._once_lasted: list[Callable[[], object]] = []
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET"))
        self._log = FailureLog(environ.get("RUNTIME_DIRECTORY"))
        self._watchdog = int(environ["WATCHDOG_USEC"]) / 1e6 if "WATCHDOG_USEC" in environ else None
        self._clock = clock
        self._leave = leave
        self._left = threading.Event()
        self._progress = Progress(self._watchdog)
        self._lasted = False
        self._former = Failures()

    def __enter__(self) -> Self:
        self._asked, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signals = (signal.SIGTERM, signal.SIGINT) if self.managed else (signal.SIGTERM,)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
        self._former_wakeup = signal.set_wakeup_fd(self._wakeup.fileno())
        self._thread = threading.Thread(target=self._await_stop, args=(signals,), name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._left.set()
        signal.set_wakeup_fd(self._former_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wakeup.close()
        self._thread.join()
        self._asked.close()

    def wait_for_turn(self) -> bool:
        """Count this start, and wait if earlier ones failed; returns whether to go on, as a stop may come first."""
        failures = self._former = self._log.read()
        self._log.write(Failures(failures.count + 1))
        seconds = wait_after(failures.count)
        if seconds:
            status = f"waiting {seconds:.0f} s after {failures.count} failures in a row; the last: {failures.sentence}"
            _log.warning(status)
            self._notifier.send(EXTEND_TIMEOUT_USEC=str(int((seconds + _STARTING_SECONDS) * 1e6)), STATUS=status)
        if self.stopping.wait(seconds):
            self.forget_failures()
            return False
        return True

    def before_forced_exit(self, action: Callable[[], object]) -> None:
        """Have this called before the process exits although the main thread hangs."""
        self._before_forced_exit.append(action)

    def once_lasted(self, action: Callable[[], object]) -> None:
        """Have this called once, when this start has lasted."""
        self._once_lasted.append(action)

    def frame(self, accelerator: str) -> None:
        """Take a frame that went through the whole pipeline; the first one makes the service ready."""
        now = self._clock()
        self._progressed(now, self._progress.frame(now, accelerator))

    def rest(self) -> None:
        """The camera is closed on purpose; call it again and again. The service is ready then too."""
        now = self._clock()
        self._progressed(now, self._progress.rest(now))

    def lasted(self) -> None:
        """Forget earlier failures, because this start has lasted, and call what was registered for that."""
        self._lasted = True
        self.forget_failures()
        for action in self._once_lasted:
            action()

    def stop(self) -> None:
        """Ask this process to stop, as SIGTERM does. For any thread."""
        os.kill(os.getpid(), signal.SIGTERM)

    def _progressed(self, now: float, assignments: dict[str, str]) -> None:
        if assignments:
            self._notifier.send(**assignments)
        if not self._lasted and self._progress.lasts(now):
            self.lasted()

    @property
    def failed_starts(self) -> int:
        """How many starts before this one, in a row, did not last."""
        return self._former.count

    def trying(self, trial: int) -> None:
        """Remember that this start is to prove a switch of models, until it lasts or ends with a word."""
        self._log.write(msgspec.structs.replace(self._log.read(), trial=trial))

    def crashed_with(self, trial: int) -> bool:
        """Whether the start before this one was to prove this switch, and ended without a word."""
        return self._former == Failures(self._former.count, trial=trial)

    def failed(self, error: FerEdgeError) -> None:
        """Remember why this start ends."""
        self._notifier.send(STATUS=str(error))
        self._log.write(Failures(self._log.read().count, str(error)))

    def forget_failures(self) -> None:
        """The service lasted, or ended as it should."""
        self._log.write(Failures())

    def _await_stop(self, signals: tuple[int, ...]) -> None:
        while came := self._asked.recv(1):
            if came[0] in signals:
                break
        else:
            return
        self.stopping.set()
        self._notifier.send(STOPPING="1", STATUS="stopping")
        if not self._left.wait(_HANG_SECONDS):
            _log.warning("the camera does not return; leaving without it")
            for action in self._before_forced_exit:
                action()
            self.forget_failures()
            self._leave(0)


def fault_of(error: FerEdgeError, now: datetime) -> Fault:
    """What subscribers are told about an error that ends the service."""
    return Fault(error.exit_code, str(error), now.isoformat(timespec="seconds"))


def credential(environ: Mapping[str, str], name: str) -> Path | None:
    """The file of a secret that systemd hands over (``LoadCredential=``); None when there is none or it is blank."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    file = Path(folder) / name if folder else None
    return file if file and file.is_file() and file.read_bytes().strip() else None
