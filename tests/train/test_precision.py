"""Which precision a run gets on which processor."""

from pathlib import Path

import pytest

from edge.errors import UsageError
from train.precision import fit_precision, has_bfloat16_instructions
from train.recipes import RECIPES

MIXED, PLAIN = RECIPES["student"], RECIPES["shallow"]


@pytest.mark.parametrize(
    ("listed", "computes"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 clflush", True),
        ("flags\t\t: fpu amx_tile amx_bf16", True),
        ("Features\t: fp asimd svebf16 bf16", True),
        ("flags\t\t: fpu avx avx2 avx512f", False),
        ("Features\t: fp asimd", False),
        ("processor\t: 0\nmodel name\t: bf16", False),
    ],
)
def test_the_instructions_of_the_processor_decide(listed: str, computes: bool, tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\n{listed}\n\nprocessor\t: 1\n{listed}\n")
    assert has_bfloat16_instructions(cpu_info) == computes


def test_what_cannot_be_read_lists_none(tmp_path: Path) -> None:
    assert not has_bfloat16_instructions(tmp_path / "none")


def test_a_run_in_emulated_bfloat16_is_in_float32_instead() -> None:
    assert fit_precision([MIXED], ["epochs=2"], bfloat16=False) == ["epochs=2", "precision=float32"]
    assert fit_precision([PLAIN, MIXED], [], bfloat16=False) == ["precision=float32"]
    assert fit_precision([MIXED], ["epochs=2"], bfloat16=True) == ["epochs=2"]
    assert fit_precision([PLAIN], [], bfloat16=False) == []


def test_a_precision_that_was_asked_for_is_kept() -> None:
    given = ["precision=mixed_bfloat16", "epochs=2"]
    assert fit_precision([MIXED], given, bfloat16=False) == given


def test_what_was_begun_keeps_its_precision_on_another_machine() -> None:
    """The same command was refused there: the folder held another run."""
    assert fit_precision([MIXED], ["epochs=2"], bfloat16=False, begun="mixed_bfloat16") == ["epochs=2"]
    assert fit_precision([MIXED], [], bfloat16=True, begun="float32") == ["precision=float32"]
    assert fit_precision([PLAIN, MIXED], [], bfloat16=False, begun="float32") == ["precision=float32"]
    assert fit_precision([MIXED], ["precision=float32"], bfloat16=True, begun="mixed_bfloat16") == ["precision=float32"]


def test_wrong_assignments_are_told_as_ever() -> None:
    with pytest.raises(UsageError, match="epochs"):
        fit_precision([MIXED], ["epoch=2"], bfloat16=False)
