"""Parses a trace of strace: what a process wrote, and where."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_WRITES: Final = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "ftruncate")
_NAMES: Final = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat"),
    *("mknod", "mknodat", "truncate", "unlink", "unlinkat", "rmdir", "creat"),
)
_OPENS: Final = ("open", "openat", "openat2")
_OTHERS: Final = ("sendfile", "copy_file_range", "splice", "tee", "vmsplice", "memfd_create", "io_uring_setup", "mmap")
_CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR: Final = re.compile(r"(-?\d+)(?:<(.*?)>)?[,)]")


def strace(output: Path) -> tuple[str, ...]:
    """The command to put before another: a tracer beside it, so that the process stays a child of the test."""
    calls = ",".join((*_WRITES, *_NAMES, *_OPENS, *_OTHERS))
    return (
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-q",
        "-z",  # what failed wrote nothing: a socket that another thread has closed is no file without a name
        "-yy",
        "-s",
        "65536",
        "-e",
        f"trace={calls}",
        "-o",
        str(output),
    )


@dataclass
class Written:
    """What a process wrote: ``files`` opened for writing, made, renamed or removed; and the bytes to each socket."""

    files: set[str] = field(default_factory=set)
    terminal: set[str] = field(default_factory=set)
    sockets: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def written(output: Path) -> Written:
    """Read a whole trace."""
    found = Written()
    for line in output.read_text(errors="replace").splitlines():
        call = _CALL.match(line)  # a call that was interrupted has its arguments in its first line
        if call:
            _note(found, call[1], call[2], line)
    return found


def _note(found: Written, name: str, arguments: str, line: str) -> None:
    if name in _OPENS:
        if re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", arguments):
            found.files.update(_strings(arguments))
    elif name in _NAMES:
        found.files.update(_strings(arguments))
    elif name in _WRITES:
        _written(found, arguments)
    elif name != "mmap" or ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments):
        found.others.append(line)


def _written(found: Written, arguments: str) -> None:
    descriptor = _DESCRIPTOR.match(arguments)
    assert descriptor, arguments
    number, where = int(descriptor[1]), descriptor[2] or ""
    if number in (1, 2):
        found.terminal.add(where)
    elif re.match(r"(UNIX|TCP|UDP|NETLINK|socket:)", where):
        data = b"".join(ast.literal_eval(f'b"{text}"') for text in _strings(arguments))
        found.sockets[where] = found.sockets.get(where, b"") + data
    elif number >= 0 and not where.startswith(("pipe:", "anon_inode:")):
        found.files.add(where)


def _strings(arguments: str) -> list[str]:
    return _STRING.findall(arguments)
