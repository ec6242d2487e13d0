"""The commands ``fer-train`` and ``fer-export`` with TensorFlow loaded before, each in a process of its own."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("fer-train")
_BRIEF = ("teachers=", "votes=0", "batch=16", "epochs=1", "small_epochs=0", "precision=float32")

# Loading TensorFlow takes longer than most of what is tested here. So one process loads it, and commands fork from it.
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["tensorflow", "tf_keras", "tensorflow_model_optimization"])


def fer_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``fer-train`` to its end, whatever its exit code."""
    return _run("train.cli", arguments)


def fer_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``fer-export`` to its end, whatever its exit code."""
    return _run("export.cli", arguments)


def brief_run(recipe: str, weights: str, data: Path, folder: Path) -> dict[str, Any]:
    """The shortest run: one epoch from ``weights`` into ``folder``. Returns what ``run.json`` says."""
    sets = [part for value in _BRIEF for part in ("--set", value)]
    done = fer_train("run", recipe, "--data", data, "--weights", weights, "--out", folder, *sets)
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def _run(module: str, arguments: tuple[object, ...]) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        process = _LOADED.Process(target=_main, args=(module, words, out.name, err.name, str(Path.cwd())))
        process.start()
        process.join(400)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode is not None, f"{module} {words}: not within 400 s: {err.read()}"
        return subprocess.CompletedProcess(words, process.exitcode, out.read(), err.read())


def _main(module: str, words: list[str], out: str, err: str, folder: str) -> None:
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    sys.argv = [module.partition(".")[0], *words]
    main: Callable[[], int] = import_module(module).main
    sys.exit(main())
