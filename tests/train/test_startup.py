"""What TensorFlow logs at its start: shown when that fails, and not when the user ends it."""

import os

import pytest

from train.startup import _stderr_held_back


@pytest.mark.parametrize(("ended", "shown"), [(KeyboardInterrupt, ""), (ImportError, "from C++\n")])
def test_an_interrupted_start_shows_nothing(
    ended: type[BaseException], shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def start() -> None:
        with _stderr_held_back():
            os.write(2, b"from C++\n")
            raise ended

    with pytest.raises(ended):
        start()
    assert capfd.readouterr().err == shown
