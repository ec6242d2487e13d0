"""The shortest run that ``fer-train`` can do, for tests of what it records in run.json."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PROGRAM = Path(sys.executable).with_name("fer-train")
_VALUES = ("teachers=", "votes=0", "batch=16", "epochs=1", "small_epochs=0", "precision=float32")


def brief_run(recipe: str, weights: str, data: Path, folder: Path) -> dict[str, Any]:
    """Train one epoch from ``weights`` into ``folder``; returns what ``run.json`` says."""
    sets = [part for value in _VALUES for part in ("--set", value)]
    command = [_PROGRAM, "run", recipe, "--data", data, "--weights", weights, "--out", folder, *sets]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run
