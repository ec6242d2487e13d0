"""Run int8 files in the older TFLite runtime, which many devices have.

It needs numpy 1, so it runs in a virtual environment of its own.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError
from train.data.dataset import cache_folder

NAME: Final = "tflite-runtime 2.14.0"
_REQUIREMENTS: Final = ("tflite-runtime==2.14.0", "numpy<2")
_NEWEST_PYTHON: Final = (3, 11)

# Runs in the other environment, which has only numpy and the runtime.
_PROGRAM: Final = """
import sys, numpy as np
from tflite_runtime.interpreter import Interpreter
network = Interpreter(sys.argv[1], num_threads=1)
network.allocate_tensors()
[entry], [leaving] = network.get_input_details(), network.get_output_details()
outputs = []
for face in np.load(sys.argv[2]):
    network.set_tensor(entry["index"], face[None])
    network.invoke()
    outputs.append(network.get_tensor(leaving["index"])[0])
np.save(sys.argv[3], np.stack(outputs))
"""


class LegacyRuntimeError(FerEdgeError):
    """The older runtime cannot be installed, or cannot run the file."""

    exit_code = 17


def available() -> bool:
    """Whether the older runtime has wheels for this Python."""
    return sys.version_info[:2] <= _NEWEST_PYTHON


def prepare() -> None:
    """Install the older runtime for ``outputs`` where it is available, before minutes of work.

    It is downloaded once and kept in the user's cache folder. Raises LegacyRuntimeError when that fails.
    """
    if available():
        _environment()


def outputs(model: bytes, inputs: NDArray[np.int8]) -> NDArray[np.int8]:
    """Run an int8 file on ``(n, 48, 48, 1)`` int8 inputs; returns its int8 logits ``(n, 7)``.

    Raises what ``prepare`` raises, and LegacyRuntimeError with the output of the runtime.
    """
    python = _environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model)
        np.save(folder / "in.npy", inputs)
        _run_checked([python, "-c", _PROGRAM, *(folder / file for file in ("model.tflite", "in.npy", "out.npy"))])
        return np.asarray(np.load(folder / "out.npy"), np.int8)


def _environment() -> Path:
    folder = cache_folder().parent / NAME.replace(" ", "-")
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    print(f"installing {NAME} in {folder}", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True, clear=True)
        _run_checked([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_REQUIREMENTS])
        ready.touch()
    except (OSError, subprocess.CalledProcessError, LegacyRuntimeError) as error:
        raise LegacyRuntimeError(
            f"{error}. An export is compared with {NAME}, which is downloaded once and kept in {folder}. Is there a "
            "connection to the internet?"
        ) from error
    return python


def _run_checked(command: list[str | Path]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise LegacyRuntimeError(f"{NAME}: {done.stderr.strip()[-400:] or f'exit code {done.returncode}'}")
