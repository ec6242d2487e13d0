"""The commands ``fer-train`` and ``fer-export`` with TensorFlow loaded before, each in a process of its own."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
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
    return start_training(*arguments).end()


def start_training(*arguments: object) -> "Command":
    """Start ``fer-train``, to look at it or to end it meanwhile."""
    return Command("train.cli", arguments)


def fer_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``fer-export`` to its end, whatever its exit code."""
    return Command("export.cli", arguments).end()


def brief_run(recipe: str, weights: str, data: Path, folder: Path) -> None:
    """The shortest run: one epoch from ``weights`` into ``folder``."""
    done = fer_train(*_brief(recipe, weights, data, folder))
    assert done.returncode == 0, done.stderr


def begin_run(recipe: str, weights: str, data: Path, folder: Path) -> dict[str, Any]:
    """Start the same run, and end it before its first step. Returns what ``run.json`` says of its start."""
    started = start_training(*_brief(recipe, weights, data, folder))
    started.wait_until_begun(folder)
    started.kill()
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def _brief(recipe: str, weights: str, data: Path, folder: Path) -> list[object]:
    sets = [part for value in _BRIEF for part in ("--set", value)]
    return ["run", recipe, "--data", data, "--weights", weights, "--out", folder, *sets]


class Command:
    """A command that runs beside the test, in a process of its own."""

    def __init__(self, module: str, arguments: tuple[object, ...]) -> None:
        self._words = [str(argument) for argument in arguments]
        self._out, self._err = tempfile.NamedTemporaryFile("r"), tempfile.NamedTemporaryFile("r")  # noqa: SIM115
        whole = (module, self._words, self._out.name, self._err.name, str(Path.cwd()))
        self._process = _LOADED.Process(target=_main, args=whole)
        self._process.start()

    def wait_for(self, words: str, seconds: float = 200) -> None:
        """Wait until it has said ``words`` on standard error."""
        self._wait(lambda: words in self._told(), repr(words), seconds)

    def wait_until_begun(self, folder: Path, seconds: float = 200) -> None:
        """Wait until its run is in ``folder``: its weights are loaded and measured, and training begins."""
        self._wait((folder / "run.json").is_file, "run.json", seconds)

    def _wait(self, met: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert self._process.is_alive(), f"{self._words} ended without {what}: {self._told()}"
            assert time.monotonic() < deadline, f"{self._words}: no {what} within {seconds} s: {self._told()}"
            time.sleep(0.02)

    def _told(self) -> str:
        return Path(self._err.name).read_text()

    def kill(self) -> None:
        """End it where it is (SIGKILL)."""
        self._process.kill()
        self._process.join()
        self._out.close()
        self._err.close()

    def end(self, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        """Wait until it ends by itself; what it printed."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            told = self._told()
            self.kill()
            raise AssertionError(f"{self._words}: not within {seconds} s: {told}")
        assert self._process.exitcode is not None
        with self._out, self._err:
            return subprocess.CompletedProcess(self._words, self._process.exitcode, self._out.read(), self._err.read())


def _main(module: str, words: list[str], out: str, err: str, folder: str) -> None:
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    sys.argv = [module.partition(".")[0], *words]
    main: Callable[[], int] = import_module(module).main
    sys.exit(main())
