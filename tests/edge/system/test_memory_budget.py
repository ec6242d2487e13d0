import resource

import pytest

from edge.system.memory_budget import memory_budget

MB = 2**20


def test_no_more_than_the_budget_can_be_allocated_again_and_again() -> None:
    for _ in range(3):  # what was freed adds nothing to the next budget
        with memory_budget(50 * MB):
            assert len(bytearray(20 * MB)) == 20 * MB
            with pytest.raises(MemoryError):
                bytearray(80 * MB)
    assert len(bytearray(80 * MB)) == 80 * MB


def test_an_inner_budget_cannot_exceed_an_outer_one_and_each_ends_with_its_step() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_budget(30 * MB):
        with memory_budget(1000 * MB), pytest.raises(MemoryError):
            bytearray(80 * MB)
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
