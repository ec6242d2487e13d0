"""The console script: Ctrl-C before and after the program itself."""

import signal
import subprocess
import sys

from edge.cli.entry import main

PROGRAM = [sys.executable, "-c"]
START = f"""
import os, signal, sys
from {main.__module__} import main
sys.argv = ['fer-edge', '--version']
"""
CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"
DURING_IMPORT = f"""
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == 'edge.cli.main':
            {CTRL_C}

sys.meta_path.insert(0, Interrupted())
sys.exit(main())
"""
AT_EXIT = f"import atexit; atexit.register(lambda: {CTRL_C}); sys.exit(main())"


def interrupted(code: str, start: str = "") -> tuple[int, str]:
    """The exit code and stderr of a program that sends itself SIGINT."""
    done = subprocess.run(
        [*PROGRAM, start + START + code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stderr


def test_ctrl_c_during_the_imports_prints_no_traceback() -> None:
    assert interrupted(DURING_IMPORT) == (-signal.SIGINT, "")


def test_ctrl_c_after_the_command_prints_no_traceback() -> None:
    assert interrupted(AT_EXIT) == (-signal.SIGINT, "")


def test_a_background_process_goes_on_ignoring_ctrl_c() -> None:
    """A shell without job control starts it so: `fer-edge run ... &` in a script."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert interrupted(DURING_IMPORT, ignoring) == (0, "")
