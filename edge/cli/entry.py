"""The console script ``fer-edge``, and how every program starts: Ctrl-C ends it without a traceback during imports."""

import signal
from importlib import import_module


def main() -> int:
    """Entry point of the ``fer-edge`` console script; returns the exit code."""
    return launch("edge.cli.main")


def launch(program: str) -> int:
    """Import the module ``program``, which takes seconds from a slow SD card, and run its ``main``.

    Meanwhile, and once it has ended, Ctrl-C ends the process as the kernel does by default. Where the shell lets Ctrl-C
    be ignored, as for a program in the background, it stays so. Returns the exit code.
    """
    obeyed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if obeyed:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    module = import_module(program)  # Ctrl-C is safe only from here on
    if obeyed:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        exit_code: int = module.main()
        return exit_code
    finally:
        if obeyed:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
