"""A stand-in for Coral's ``edgetpu_compiler``. It is not the compiler and compiles nothing.

It takes the compiler's flags, prints what version 16 is documented to print (google-coral/edgetpu's issues), and writes
files of the compiler's names. Called as ``standin_compiler.py SCENARIO [the compiler's arguments]``.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

VERSION = "Edge TPU Compiler version 16.0.384591198"
STARTED = "Started a compilation timeout timer of {timeout} seconds."
FAILED = "Compilation child process completed within timeout period.\nCompilation failed! "
SUMMARY = """
Model compiled successfully in 62 ms.

Input model: {source}
Input size: 9.87KiB
Output model: {output}
Output size: 56.59KiB
On-chip memory used for caching model parameters: {cached}
On-chip memory remaining for caching model parameters: 7.68MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: {subgraphs}
Total number of operations: {total}
Operation log: {log}
"""
PARTLY = """
Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower.
Number of operations that will run on Edge TPU: {mapped}
Number of operations that will run on CPU: {left}
"""
ENDED = "Compilation child process completed within timeout period.\nCompilation succeeded! "
FAILURES = {
    "not-quantized": "Invalid model: {source}\nModel not quantized",
    "new-version": "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin "
    "might be supported. Are you using an old TFLite binary with a newer model?\n\nERROR: Registration failed.\n\n"
    "Invalid model: {source}\nModel could not be parsed",
    "dynamic": STARTED
    + "\nERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that "
    "has dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model can be "
    "loaded/run in Tflite interpreter.\n" + FAILED,
    "large-activations": STARTED + "\nERROR: Restored original execution plan after delegate application failure.\n"
    "Compilation failed: Compilation failed due to large activation tensors in model.\n" + FAILED,
    "own-timeout": STARTED
    + "\nCompilation timeout. This is usually caused by large activations.\nCompilation failed! ",
    "broken-down": STARTED
    + "\nlibc++abi: terminating with uncaught exception of type std::out_of_range: vector\n"
    + FAILED,
    "no-reason": STARTED + "\n" + FAILED,
    "internal-error": "\nInternal compiler error. Aborting! ",
}


def main() -> int:
    played, *rest = sys.argv[1:]
    scenario, _, note = played.partition(":")  # note: where to write the child's id
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-t", type=int, default=180)
    parser.add_argument("-o", type=Path, default=Path())
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args(rest)  # -m and -a are not there: giving them is an error of usage
    print(VERSION, flush=True)
    tries = arguments.model.parent / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if scenario == "hangs":
        child = subprocess.Popen(["sleep", "60"])  # the compiler works in a child process
        Path(note).write_text(str(child.pid))
        time.sleep(60)
    if scenario == "internal-error-once":
        scenario = "all" if len(tries.read_text()) > 1 else "internal-error"
    if scenario in FAILURES:
        print(FAILURES[scenario].format(source=arguments.model, timeout=arguments.t))
        return 1
    if scenario == "silent":
        return 0
    if scenario == "odd-exit-code":
        print("something that nobody has seen")
        return 3
    return compiled(scenario, arguments)


def compiled(scenario: str, arguments: argparse.Namespace) -> int:
    """Print a success and write the files: ``all``, ``left-2``, ``none-mapped``, ``no-file``, ``no-log``, ``other``."""
    from export.tflite_graph import read_graph  # noqa: PLC0415  failures need none of it, and are quicker without
    from tests.export.tiny import as_compiled, tiny  # noqa: PLC0415

    plain = arguments.model.read_bytes()
    kinds = [op.name for op in read_graph(plain, arguments.model).ops]
    left = len(kinds) if scenario == "none-mapped" else 2 if scenario == "left-2" else 0
    output = arguments.o / f"{arguments.model.stem}_edgetpu.tflite"
    log = output.with_suffix(".log")
    rows = [f"{kind:30} 1          Mapped to Edge TPU" for kind in kinds[: len(kinds) - left]]
    status = "Operation is working on an unsupported data type" if left == len(kinds) else "Operation not supported"
    rows += [f"{kind:30} 1          {status}" for kind in kinds[len(kinds) - left :]]
    table = "\nOperator                       Count      Status\n\n" + "\n".join(rows) + "\n"
    if scenario != "no-file":
        if scenario == "other":
            plain = tiny(lambda net: setattr(net.main.tensors[0], "name", "other"))
        output.write_bytes(plain if scenario == "none-mapped" else as_compiled(plain, left))
    if scenario != "no-log":
        log.write_text(f"{VERSION}\nInput: {arguments.model}\nOutput: {output}\n{table}")
    print(STARTED.format(timeout=arguments.t))
    print(
        SUMMARY.format(
            source=arguments.model,
            output=output,
            log=log,
            total=len(kinds),
            subgraphs=int(left < len(kinds)),
            cached="49.75KiB" if left < len(kinds) else "0.00B",
        )
    )
    if left:
        print(PARTLY.format(mapped=len(kinds) - left, left=left))
    if arguments.s and scenario != "no-log":
        print(table)
    print(ENDED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
