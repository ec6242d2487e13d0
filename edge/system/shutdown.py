"""How a command ends: errors become a sentence and an exit code; a thread that hangs in a camera is abandoned."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable

from edge.errors import FerEdgeError, StoreError


class AbandonableThread(threading.Thread):
    """A thread that may hang in a driver for ever; the process can exit without it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command; turn the errors of edge.errors into one sentence on stderr and their exit code.

    Ctrl-C gives 130. A closed pipe (``fer-edge run | head``) ends the command without an error, a full disk that
    stdout goes to with that of a StoreError.
    """
    exit_code = 0
    try:
        exit_code = action()
    except FerEdgeError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        exit_code = error.exit_code
    except KeyboardInterrupt:
        exit_code = 130
    except BrokenPipeError:
        discard_stdout()
    except OSError:
        if not _trouble_of_stdout():
            raise
    if trouble := _trouble_of_stdout():
        discard_stdout()
        print(f"{program}: error: stdout: cannot be written: {trouble}", file=sys.stderr)
        exit_code = exit_code or StoreError.exit_code
    return exit_code


def _trouble_of_stdout() -> str:
    """Why what is buffered for stdout cannot be written; empty when it can, or when nobody reads it any more."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def discard_stdout() -> None:
    """Lose what is still buffered for stdout, which cannot be written: the flush at exit would fail with it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_camera_hanging() -> bool:
    """Whether an abandonable thread is still running."""
    return any(isinstance(thread, AbandonableThread) and thread.is_alive() for thread in threading.enumerate())


def exit_if_camera_hangs(exit_code: int) -> None:
    """Exit at once when an abandonable thread is still running; otherwise do nothing.

    A normal exit would wait for ever: picamera2 registers an ``atexit`` hook that stops the camera. A thread that
    returns from OpenCV's code while the interpreter finalizes aborts the process with another exit code.
    """
    if not is_camera_hanging():
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the pipe may be closed
            stream.flush()
    os._exit(exit_code)
