"""A command's process must not be dumped: the kernel says whether it would."""

import subprocess
import sys

import pytest

_DUMPABLE = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.argv = ['fer-edge', 'service', 'status']; from edge.cli.main import main; main()",
        "import sys, runpy, contextlib, io; sys.argv = ['probes', 'imports', '-']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    runpy.run_module('edge.diagnostics.probes', run_name='__main__')",
    ],
    ids=["fer-edge", "a probe of doctor"],
)
def test_no_command_lets_the_kernel_dump_its_memory(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{_DUMPABLE}"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
