"""Starts TensorFlow without the lines that it logs each time: build options, processor features, a missing GPU."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def start_tensorflow() -> None:
    """Import TensorFlow and find its devices; what it logs is held back, and shown only if that fails.

    It logs from C++ and does not heed its log level at that time, so the file descriptor of stderr leads elsewhere
    meanwhile. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows everything.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return
    with _stderr_held_back():
        import tensorflow as tf  # noqa: PLC0415  it takes seconds, and --help must not

        tf.config.list_physical_devices()  # list_logical_devices would forbid several workers


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # not Ctrl+C
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
