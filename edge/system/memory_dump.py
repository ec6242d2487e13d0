"""No dump of this process's memory: it would hold pictures of people."""

import ctypes
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def forbid_memory_dumps() -> None:
    """Let the kernel write no core of this process, and no other process of the same user read its memory.

    The limit on the size of a core is not enough: a program that takes cores over a pipe may ignore it (core(5)). A
    change of the user undoes this where ``fs.suid_dumpable`` is not 0, as systemd-coredump sets it (prctl(2)).
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
