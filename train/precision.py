"""Whether this machine computes in bfloat16. Where it does not, TensorFlow emulates it, at a fifth of the speed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from train.progress import print_line
from train.recipes import Recipe, customize

_CPU_INFO: Final = Path("/proc/cpuinfo")
_INSTRUCTIONS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # as Linux calls them; the last one is Arm's


def computes_in_bfloat16() -> bool:
    """Whether TensorFlow has a GPU, or a processor with instructions for bfloat16."""
    import tensorflow as tf  # noqa: PLC0415  it takes seconds, and --help must not

    return bool(tf.config.list_physical_devices("GPU")) or has_bfloat16_instructions(_CPU_INFO)


def has_bfloat16_instructions(cpu_info: Path) -> bool:
    """Whether the file, of the form of Linux's ``/proc/cpuinfo``, lists them; False where it cannot be read."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    listed = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return not _INSTRUCTIONS.isdisjoint(next(listed, ()))


def assignments_here(recipes: Iterable[Recipe], given: Sequence[str], folders: Iterable[Path]) -> list[str]:
    """The assignments of ``--set``, with the precision that this machine or a begun run asks for, which is said.

    ``folders`` are those that runs of the recipes go into. Raises what fit_precision and train.run.Run.load raise.
    """
    from train.run import Run, is_run  # noqa: PLC0415  TensorFlow

    begun = next((Run.load(folder).recipe.precision for folder in folders if is_run(folder)), None)
    bfloat16 = computes_in_bfloat16()
    fitted = fit_precision(recipes, given, bfloat16, begun)
    if fitted != given:
        why = "it was begun so" if begun else "this processor has no bfloat16 instructions, so float32 is faster"
        print_line(f"--set {fitted[-1]}: {why}")
    return fitted


def fit_precision(
    recipes: Iterable[Recipe], assignments: Sequence[str], bfloat16: bool, begun: str | None = None
) -> list[str]:
    """The assignments of ``--set``, with ``precision=float32`` where recipes would train in emulated bfloat16.

    ``bfloat16`` tells whether the machine computes in it. What was ``begun`` in a precision keeps it, or another
    machine could not continue it. A precision that is assigned already is kept. Raises what train.recipes.customize
    raises.
    """
    given = list(assignments)
    precisions = {customize(recipe, given).precision for recipe in recipes}
    emulated = not bfloat16 and "mixed_bfloat16" in precisions
    wanted = begun or ("float32" if emulated else None)
    assigned = any(assignment.startswith("precision=") for assignment in given)
    return given if assigned or wanted is None or precisions == {wanted} else [*given, f"precision={wanted}"]
