"""The progress of a training run on stderr: a bar in a terminal, a line a minute in a file or pipe.

A pipe that is closed, or a file on a full disk, takes no progress. That does not end hours of training.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

_BAR: Final = 24  # characters
_REDRAWN: Final = 0.2  # seconds between two states of the bar
_REPEATED: Final = 60.0  # seconds between two lines in a file or pipe
_CLEARED: Final = "\r\x1b[K"  # to the start of the line, and erase it (ECMA-48)


class Progress:
    """Shows the steps of one epoch after another, each with the time that is left of its epoch."""

    def __init__(
        self,
        name: str,
        epochs: int,
        steps: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``epochs`` is the number of all epochs, ``steps`` that of one epoch; ``clock`` gives seconds."""
        self._name, self._epochs, self._steps = name, epochs, steps
        self._stream, self._clock = stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._epoch = -1
        self._started = self._shown = 0.0

    def show(self, epoch: int, done: int) -> None:
        """Tell that ``done`` steps of ``epoch``, counted from 0, are taken; it is shown where it is time for that."""
        now = self._clock()
        if epoch != self._epoch:
            self._epoch, self._started, self._shown = epoch, now, now
            self._first = done
        if done == self._steps or now - self._shown < (_REDRAWN if self._terminal else _REPEATED):
            return
        self._shown = now
        left = (now - self._started) / (done - self._first) * (self._steps - done)
        text = f"{self._name} epoch {epoch + 1}/{self._epochs}"
        rest = f"{done / self._steps:4.0%}, {_duration(left)} left in this epoch"
        if self._terminal:
            bar = "#" * (_BAR * done // self._steps)
            _print(f"{_CLEARED}{text} [{bar:.<{_BAR}}] {rest}", self._stream)
        else:
            _print(f"{text}: {rest}\n", self._stream)


def print_line(line: str) -> None:
    """Print a line on stderr, in place of a bar that stands there."""
    _print(f"{_CLEARED if sys.stderr.isatty() else ''}{line}\n", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, end="", file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else the flush at exit fails again


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
