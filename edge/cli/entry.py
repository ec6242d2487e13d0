"""The console script ``fer-edge``, which Ctrl-C ends without a traceback even while its modules are imported."""

import signal


def main() -> int:
    """Import the program, which takes seconds from a slow SD card, and run it; returns its exit code.

    Meanwhile, and once it has ended, Ctrl-C ends the process as the kernel does by default. Where the shell lets Ctrl-C
    be ignored, as for a program in the background, it stays so.
    """
    obeyed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if obeyed:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edge.cli import main as program  # noqa: PLC0415  Ctrl-C is safe only from here on

    if obeyed:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return program.main()
    finally:
        if obeyed:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
