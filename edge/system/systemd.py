"""The process as a systemd service: readiness, the watchdog, a clean stop, and waits after failures.

In a run by hand only one part is active: SIGTERM stops cleanly. systemd is recognised by ``$NOTIFY_SOCKET``,
``$WATCHDOG_USEC``, ``$RUNTIME_DIRECTORY`` and ``$CREDENTIALS_DIRECTORY`` (sd_notify(3), systemd.exec(5)).
"""

import logging
import math
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from edge.errors import FerEdgeError
from edge.records import Fault
from edge.untrusted_file import MALFORMED_JSON

_log = logging.getLogger(__name__)

STOP_SECONDS: Final = 2.0
"""How long a service that was asked to stop, or that has a fault to publish, waits for the broker."""

_NOTIFY_SECONDS: Final = 2.0  # systemd may be busy, for example during a daemon-reload
_RESEND_SECONDS: Final = 1.0
_HANG_SECONDS: Final = 3.0  # a stop that takes longer is taken for a camera that hangs; the unit allows five seconds
_STATUS_SECONDS: Final = 10.0
_LASTING_SECONDS: Final = 60.0  # earlier failures are forgotten only then, so that a flapping camera causes waits too
_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
_STARTING_SECONDS: Final = 90.0  # what a start may take after a wait, as TimeoutStartSec= in the unit


class Failures(msgspec.Struct, frozen=True):
    """How many starts in a row did not last, the last one's error, and the model switch on trial in it."""

    count: int = 0
    sentence: str = "exited without an error message"
    trial: int = 0


def wait_after(failures: int) -> float:
    """Seconds to wait before a start, on top of the unit's ``RestartSec=``: none after one failure, then doubling."""
    doublings = min(failures - 2, 10)  # after a day without a camera the power would be too large for a float
    return 0.0 if failures < 2 else min(_LONGEST_WAIT, _FIRST_WAIT * 2**doublings)


def _extended_timeout(wait: float = 0.0) -> str:
    """The value of EXTEND_TIMEOUT_USEC= for a start that begins in ``wait`` seconds."""
    return str(int((wait + _STARTING_SECONDS) * 1e6))


class Notifier:
    """Sends to the socket of sd_notify(3), a path or ``@`` and an abstract name; None for no systemd.

    Its own socket stays open: a process that may open no file more must still feed the watchdog.
    """

    def __init__(self, address: str | None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._fails = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_NOTIFY_SECONDS)
        self.close = weakref.finalize(self, self._socket.close)

    def send(self, **assignments: str) -> bool:
        """Send assignments in one message; returns False when the socket is gone or full, which is logged once."""
        if not self._address:
            return True
        # A line break in a value would begin another assignment.
        message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in assignments.items())
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._fails:
                _log.warning("systemd could not be notified of %s: %s", message.partition("\n")[0], error)
            self._fails = True
            return False
        self._fails = False
        return True


class Progress:
    """What to notify systemd of as frames go by. Pure: time, in seconds, is passed in.

    ``watchdog`` is the watchdog's time in seconds, None without one.
    """

    def __init__(self, watchdog: float | None) -> None:
        self._feed_every = watchdog / 2 if watchdog else None
        self._ready: float | None = None
        self._fed = self._extended = -math.inf
        self._counted = 0.0
        self._frames = 0
        self._accelerator = ""
        self._paused = False

    def frame(self, now: float, accelerator: str) -> dict[str, str]:
        """Take a frame that went through the whole pipeline; returns the assignments for systemd, often none.

        ``accelerator`` is what classifies now.
        """
        assignments = {}
        self._accelerator = accelerator
        if self._ready is None:
            self._ready = self._counted = now
            assignments = {"READY": "1", "STATUS": f"the first frame has been seen, on {accelerator}"}
        elif self._paused:
            self._counted, self._frames = now, 0
            assignments = {"STATUS": f"the camera is open again, on {accelerator}"}
        else:
            self._frames += 1
        self._paused = False
        return assignments | self._rate(now) | self._feed(now)

    def wait(self, now: float) -> dict[str, str]:
        """A camera is waited for, for a limited time: feed the watchdog, and extend the start before READY=1."""
        if self._ready is not None:
            return ({} if self._paused else self._rate(now)) | self._feed(now)
        if now - self._extended < _STATUS_SECONDS:
            return {}
        self._extended = now
        return {"EXTEND_TIMEOUT_USEC": _extended_timeout()}

    def rest(self, now: float) -> dict[str, str]:
        """The camera is closed on purpose: the service is ready all the same, and the watchdog is fed."""
        assignments = {}
        if self._ready is None:
            self._ready = now
            assignments["READY"] = "1"
        if not self._paused:
            self._paused = True
            assignments["STATUS"] = "paused: the camera is closed"
        return assignments | self._feed(now)

    def lasts(self, now: float) -> bool:
        """Whether this start has been ready for long enough to forget earlier failures."""
        return self._ready is not None and now - self._ready >= _LASTING_SECONDS

    def _rate(self, now: float) -> dict[str, str]:
        if now - self._counted < _STATUS_SECONDS:
            return {}
        rate = self._frames / (now - self._counted)
        self._counted, self._frames = now, 0
        return {"STATUS": f"{rate:.1f} frames/s on {self._accelerator}"}

    def _feed(self, now: float) -> dict[str, str]:
        if self._feed_every is None or now - self._fed < self._feed_every:
            return {}
        self._fed = now
        return {"WATCHDOG": "1"}


class FailureLog:
    """Stores failures in the runtime directory, which is in memory and not on the SD card; without one, nowhere."""

    def __init__(self, folder: str | None) -> None:
        self._file = Path(folder) / "failures.json" if folder else None

    def read(self) -> Failures:
        """The stored failures; none when the file is absent or damaged."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Failures) if self._file else Failures()
        except (OSError, *MALFORMED_JSON):
            return Failures()

    def write(self, failures: Failures) -> None:
        """Store failures; only log a warning when that fails, because a full disk must not end the service."""
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
        exit_process: Callable[[int], None] = os._exit,
    ) -> None:
        self.managed = "NOTIFY_SOCKET" in environ
        self.stopping = threading.Event()
        self._before_forced_exit: list[Callable[[], object]] = []
        self._once_lasted: list[Callable[[], object]] = []
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET"))
        self._failure_log = FailureLog(environ.get("RUNTIME_DIRECTORY"))
        self._watchdog = int(environ["WATCHDOG_USEC"]) / 1e6 if "WATCHDOG_USEC" in environ else None
        self._clock = clock
        self._exit = exit_process
        self._context_left = threading.Event()
        self._progress = Progress(self._watchdog)
        self._unsent: dict[str, str] = {}
        self._send_at = -math.inf
        self._lasted = False
        self._earlier_failures = Failures()

    def __enter__(self) -> Self:
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signals = (signal.SIGTERM, signal.SIGINT) if self.managed else (signal.SIGTERM,)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
        self._former_wakeup = signal.set_wakeup_fd(self._wakeup.fileno())
        self._thread = threading.Thread(target=self._await_stop, args=(signals,), name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._context_left.set()
        signal.set_wakeup_fd(self._former_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wakeup.close()
        self._thread.join()
        self._signals.close()
        self._notifier.close()

    def wait_for_turn(self) -> bool:
        """Count this start, and wait if earlier ones failed; returns False when a stop is asked for meanwhile."""
        failures = self._earlier_failures = self._failure_log.read()
        self._failure_log.write(Failures(failures.count + 1))
        seconds = wait_after(failures.count)
        if seconds:
            status = f"waiting {seconds:.0f} s after {failures.count} failures in a row; the last: {failures.sentence}"
            _log.warning(status)
            self._notifier.send(EXTEND_TIMEOUT_USEC=_extended_timeout(seconds), STATUS=status)
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

    def waiting(self) -> None:
        """The camera is waited for, for a limited time; call it again and again. Waiting does not make a start last."""
        now = self._clock()
        self._notify(now, self._progress.wait(now))

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
        self._notify(now, assignments)
        if not self._lasted and self._progress.lasts(now):
            self.lasted()

    def _notify(self, now: float, assignments: dict[str, str]) -> None:
        self._unsent |= assignments
        if self._unsent and now >= self._send_at:
            if self._notifier.send(**self._unsent):
                self._unsent = {}
            else:  # without READY=1 or WATCHDOG=1, systemd would end a service that works
                self._send_at = now + _RESEND_SECONDS

    @property
    def failed_starts(self) -> int:
        """How many starts before this one, in a row, did not last."""
        return self._earlier_failures.count

    def trying(self, trial: int) -> None:
        """Store that a model switch is on trial in this start, until it lasts or ends with an error message."""
        self._failure_log.write(msgspec.structs.replace(self._failure_log.read(), trial=trial))

    def crashed_with(self, trial: int) -> bool:
        """Whether this model switch was on trial in the start before, and that exited without an error message."""
        return self._earlier_failures == Failures(self._earlier_failures.count, trial=trial)

    def failed(self, error: FerEdgeError) -> None:
        """Store why this start ends, and show it as the status."""
        self._notifier.send(STATUS=str(error))
        self._failure_log.write(Failures(self._failure_log.read().count, str(error)))

    def forget_failures(self) -> None:
        """Forget all failures: the service has lasted, or ends as it should."""
        self._failure_log.write(Failures())

    def _await_stop(self, signals: tuple[int, ...]) -> None:
        while number := self._signals.recv(1):
            if number[0] in signals:
                break
        else:
            return
        self.stopping.set()
        self._notifier.send(STOPPING="1", STATUS="stopping")
        if not self._context_left.wait(_HANG_SECONDS):
            _log.warning("the camera does not return; exiting without it")
            for action in self._before_forced_exit:
                action()
            self.forget_failures()
            self._exit(0)


def fault_of(error: FerEdgeError, now: datetime) -> Fault:
    """The fault that is published for an error."""
    return Fault(error.exit_code, str(error), now.isoformat(timespec="seconds"))
