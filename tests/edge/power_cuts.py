"""Installs a bundle once for each step of the installation, each time in a process that is killed at that step.

``python -m tests.edge.power_cuts STATE FIRST SECOND`` prints one JSON line per cut: the step, and the model that is
usable afterwards. Processes are forked, before any interpreter of a network exists, since starting Python takes long.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from edge.model.bundle import open_bundle
from edge.model.classifier import Classifier
from edge.model.registry import MAX_INSTALLED, ModelRegistry
from edge.model.verification import verify_golden


class KillBefore:
    """Ends the process, as SIGKILL does, before the step with this number."""

    def __init__(self, number: int) -> None:
        self._steps_left = number

    def __call__(self, step: str) -> None:
        if self._steps_left == 0:
            os.write(1, step.encode())
            os._exit(9)
        self._steps_left -= 1


def install_until(number: int, state: Path, bundle: Path) -> str:
    """The name of the step before which a child was killed; empty when the installation was complete."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writing, 1)
        ModelRegistry(state, KillBefore(number)).install(bundle, lambda _: None)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as pipe:  # noqa: PTH123
        return pipe.read()


def main(state: Path, first: Path, second: Path) -> None:
    registry = ModelRegistry(state)
    name = registry.install(first, lambda _: None)
    for number in range(MAX_INSTALLED):  # so many that two must be removed
        older = shutil.copytree(registry.folder / name, registry.folder / f"older-{number}", copy_function=os.link)
        os.utime(older, (number, number))
    pristine = state.with_name("pristine")
    shutil.copytree(state, pristine, copy_function=os.link)  # no file is ever written in place
    number = 0
    while step := install_until(number, state, second):
        registry = ModelRegistry(state)
        left = registry.candidates()[0]
        for listed in registry.installed():
            open_bundle(registry.folder / listed)
        print(json.dumps({"step": step, "usable": left.name, "listed": registry.installed()}), flush=True)
        shutil.rmtree(state)
        shutil.copytree(pristine, state, copy_function=os.link)
        number += 1
    bundle = open_bundle(ModelRegistry(state).candidates()[0].folder)
    print(
        json.dumps(
            {
                "step": "",
                "usable": ModelRegistry(state).choice.current,
                "listed": ModelRegistry(state).installed(),
                "ok": verify_golden(Classifier(bundle), bundle.golden).ok,
            }
        )
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
