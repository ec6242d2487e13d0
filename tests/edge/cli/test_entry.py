"""The console scripts: Ctrl-C before and after the program itself."""

import signal
import subprocess
import sys

import pytest

CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"
AT_EXIT = f"import atexit; atexit.register(lambda: {CTRL_C}); sys.exit(main())"
PROGRAMS = {"edge.cli.entry": "edge.cli.main", "train.entry": "train.cli", "export.entry": "export.cli"}
"""The module of each console script, and the one that it imports."""
entries = pytest.mark.parametrize("entry", PROGRAMS)


def start(entry: str) -> str:
    """The console script of an entry, without its last line."""
    return f"""
import os, signal, sys
from {entry} import main
sys.argv = ['program', '--help']
"""


def during_import(program: str) -> str:
    """The last line, with a Ctrl-C while the module ``program`` is searched for."""
    return f"""
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {program!r}:
            {CTRL_C}

sys.meta_path.insert(0, Interrupted())
sys.exit(main())
"""


def interrupted(code: str) -> tuple[int, str]:
    """The exit code and stderr of a program that sends itself SIGINT."""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@entries
def test_ctrl_c_during_the_imports_prints_no_traceback(entry: str) -> None:
    assert interrupted(start(entry) + during_import(PROGRAMS[entry])) == (-signal.SIGINT, "")


@entries
def test_ctrl_c_after_the_command_prints_no_traceback(entry: str) -> None:
    assert interrupted(start(entry) + AT_EXIT) == (-signal.SIGINT, "")


@entries
def test_a_background_process_goes_on_ignoring_ctrl_c(entry: str) -> None:
    """A shell without job control starts it so: `fer-edge run ... &` in a script."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert interrupted(ignoring + start(entry) + during_import(PROGRAMS[entry])) == (0, "")
