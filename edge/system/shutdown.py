"""How a command ends: errors become a sentence and an exit code; a thread that hangs in a camera is abandoned."""

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from edge.errors import FerEdgeError, StoreError

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class AbandonableThread(threading.Thread):
    """A thread that may hang in a driver for ever; the process can exit without it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command; turn the errors of edge.errors into one sentence on stderr and their exit code.

    Ctrl-C gives 130. A closed pipe (``fer-edge run | head``) ends the command without an error. A stdout on a full disk
    ends it with that of StoreError.
    """
    try:
        exit_code = action()
        if sys.stdout:  # there is none where it was closed before (>&-)
            sys.stdout.flush()
    except FerEdgeError as error:
        return _told(program, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:  # what writes a file knows its errors itself
            raise
        return _told(program, stdout_error(error))
    return exit_code


def stdout_error(error: OSError) -> StoreError:
    """The error for a print that has failed; nothing is left for the flush at exit to fail with again."""
    _discard_stdout()
    return StoreError(f"stdout: cannot be written: {error.strerror}")


def _told(program: str, error: FerEdgeError) -> int:
    print(f"{program}: error: {error}", file=sys.stderr)
    return error.exit_code


def _discard_stdout() -> None:
    """Lose what is still buffered for stdout, which cannot be written."""
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
