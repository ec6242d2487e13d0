"""Whether this machine computes in bfloat16. Where it does not, TensorFlow emulates it, at a fifth of the speed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from train.recipes import Recipe, customize

CPU_INFO: Final = Path("/proc/cpuinfo")
_INSTRUCTIONS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # as Linux calls them; the last one is Arm's


def computes_in_bfloat16() -> bool:
    """Whether TensorFlow has a GPU, or a processor with instructions for bfloat16."""
    import tensorflow as tf  # noqa: PLC0415  it takes seconds, and --help must not

    return bool(tf.config.list_physical_devices("GPU")) or has_bfloat16_instructions(CPU_INFO)


def has_bfloat16_instructions(cpu_info: Path) -> bool:
    """Whether the file, of the form of Linux's ``/proc/cpuinfo``, lists them; False where it cannot be read."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    listed = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return not _INSTRUCTIONS.isdisjoint(next(listed, ()))


def fit_precision(recipes: Iterable[Recipe], assignments: Sequence[str], bfloat16: bool) -> list[str]:
    """The assignments of ``--set``, with ``precision=float32`` where recipes would train in emulated bfloat16.

    ``bfloat16`` tells whether the machine computes in it. A precision that is assigned already is kept. Raises what
    train.recipes.customize raises.
    """
    given = list(assignments)
    assigned = any(assignment.startswith("precision=") for assignment in given)
    emulated = not bfloat16 and any(customize(recipe, given).precision == "mixed_bfloat16" for recipe in recipes)
    return [*given, "precision=float32"] if emulated and not assigned else given
