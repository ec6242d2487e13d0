"""A command's process must not be dumped: the kernel says whether it would."""

import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

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


_OTHER_USER = """
import sys
from pathlib import Path
from edge.system.owner_rights import become_owner, rights_of_owner
with rights_of_owner(Path(sys.argv[1])):
    pass
become_owner(Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_is_no_reason_to_let_the_kernel_dump_it_again(tmp_path: Path) -> None:
    """The kernel then takes what the sysctl fs.suid_dumpable says. That may be 0 here, so the calls are looked at."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (apt install strace)")
    os.chown(tmp_path, 65534, 65534)
    traced = ("strace", "-f", "-q", "-z", "-e", "trace=prctl,setresuid,setresgid,setgroups", "-o", tmp_path / "calls")
    subprocess.run([*traced, sys.executable, "-c", _OTHER_USER, tmp_path], check=True, timeout=60)
    calls = re.findall(
        r"(set)res\wid\(|(set)groups\(|PR_SET_DUMPABLE, (SUID_DUMP_DISABLE)", (tmp_path / "calls").read_text()
    )
    assert [kind for kind, _ in groupby("".join(call) for call in calls)] == 3 * ["set", "SUID_DUMP_DISABLE"]
