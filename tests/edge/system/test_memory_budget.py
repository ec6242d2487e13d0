"""Each test is a process of its own: what tests before it have freed could be used again beyond a budget."""

import subprocess
import sys

BEGIN = """
import resource
from edge.system.memory_budget import memory_budget
MB = 2**20

def is_refused(size):
    try:
        return not len(bytearray(size))
    except MemoryError:
        return True

"""


def in_own_process(test: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEGIN + test], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_no_more_than_the_budget_can_be_allocated_again_and_again() -> None:
    in_own_process("""
for _ in range(3):  # what was freed adds nothing to the next budget
    with memory_budget(50 * MB):
        assert not is_refused(20 * MB)
        assert is_refused(80 * MB)
assert not is_refused(80 * MB)
""")


def test_an_inner_budget_cannot_exceed_an_outer_one_and_each_ends_with_its_step() -> None:
    in_own_process("""
before = resource.getrlimit(resource.RLIMIT_DATA)
with memory_budget(30 * MB):
    with memory_budget(1000 * MB):
        assert is_refused(80 * MB)
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
assert resource.getrlimit(resource.RLIMIT_DATA) == before
""")
