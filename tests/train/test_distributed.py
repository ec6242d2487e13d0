"""Two worker processes on loopback compute the same losses as one process."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import free_port
from tests.programs import PROGRAM, fer_train

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

# Dropout draws differ between replicas, and large steps blow rounding up; without both only rounding differs.
EXACT = ["teachers=", "dropout=0", "epochs=2", "batch=16", "optimizer=sgd", "learning_rate=0.001"]


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """FER2013's form with seven kinds of waves: unlike plain shades, their batch statistics are well conditioned."""
    rng = np.random.default_rng(11)
    file = tmp_path / "fer2013.csv"
    with file.open("w") as text:
        text.write("emotion,pixels,Usage\n")
        for number in range(140):
            wave = 60 * np.sin(np.arange(48) * (number % 7 + 1) / 8)
            pixels = np.clip(128 + wave + rng.normal(0, 20, (48, 48)), 0, 255).astype(int).ravel()
            usage = "Training" if number < 112 else "PublicTest"
            text.write(f"{number % 7},{' '.join(map(str, pixels))},{usage}\n")
    return file


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


def test_two_workers_agree_with_one_process(waves: Path, tmp_path: Path) -> None:
    settings = [part for value in EXACT for part in ("--set", value)]
    command = ["run", "shallow", "--data", str(waves), *settings]
    alone, together = tmp_path / "alone", tmp_path / "together"
    done = fer_train(*command, "--out", alone)
    assert done.returncode == 0, done.stderr
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [PROGRAM, *command, "--strategy", "multiworker", "--out", str(together)],
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _out, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    np.testing.assert_allclose(losses(together), losses(alone), rtol=5e-3)
    assert losses(alone)[1] < 0.9 * losses(alone)[0]
    assert len(losses(alone)) == 2
