"""What a training run shows inside an epoch: a bar in a terminal, a line a minute elsewhere."""

import io
import os
import subprocess
import sys

import pytest

from train.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, seconds_a_step: float, epochs: int = 1) -> str:
    now = 0.0

    def clock() -> float:
        return now

    progress = Progress("student", 8, 100, stream, clock)
    for epoch in range(epochs):
        for step in range(100):
            now += seconds_a_step
            progress.show(epoch, step + 1)
    return stream.getvalue()


def test_a_file_gets_a_line_a_minute() -> None:
    lines = shown(io.StringIO(), 3.0).splitlines()
    assert lines[0] == "student epoch 1/8:  21%, 4 min left in this epoch"
    assert len(lines) == 4
    assert lines[-1] == "student epoch 1/8:  81%, 57 s left in this epoch"


def test_an_epoch_shorter_than_a_minute_says_nothing_in_a_file() -> None:
    assert shown(io.StringIO(), 0.5, epochs=3) == ""


def test_a_terminal_gets_one_line_that_is_drawn_over() -> None:
    text = shown(Terminal(), 0.5)
    assert "\n" not in text
    assert "student epoch 1/8 [############............]  50%, 25 s left in this epoch" in text
    assert text.count("\r\x1b[K") == len(text.split("\r\x1b[K")) - 1 == 98


@pytest.mark.parametrize("closed", [False, True])
def test_where_progress_cannot_be_written_the_training_goes_on(closed: bool) -> None:
    """`fer-train run ... 2>&1 | head` ended with exit code 0 in the middle of it."""
    reading, stderr = os.pipe() if closed else (os.open("/dev/null", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY))
    os.close(reading)
    lines = "from train.progress import print_line; print_line('epoch 1'); print_line('epoch 2'); print('done')"
    try:
        done = subprocess.run([sys.executable, "-c", lines], stdout=subprocess.PIPE, stderr=stderr, check=False)
    finally:
        os.close(stderr)
    assert (done.returncode, done.stdout) == (0, b"done\n")
