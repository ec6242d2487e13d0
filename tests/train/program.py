"""The real ``fer-train``, in a process of its own, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("fer-train")
_BRIEF = ("teachers=", "votes=0", "batch=16", "epochs=1", "small_epochs=0", "precision=float32")


def fer_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``fer-train`` to its end, whatever its exit code."""
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def brief_run(recipe: str, weights: str, data: Path, folder: Path) -> dict[str, Any]:
    """The shortest run: one epoch from ``weights`` into ``folder``. Returns what ``run.json`` says."""
    sets = [part for value in _BRIEF for part in ("--set", value)]
    done = fer_train("run", recipe, "--data", data, "--weights", weights, "--out", folder, *sets)
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run
