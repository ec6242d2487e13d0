"""Many damaged inputs for every target: ``python -m tests.fuzz --cases 1000000``."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.fuzz.mutation import damaged
from tests.fuzz.report import PAGE, RESULT, summary, text_of
from tests.fuzz.targets import TARGETS

_CHUNK: Final = 4000
_CHUNK_SECONDS: Final = 900.0  # a chunk takes seconds; it may have to wait for a busy machine

_ABOUT = """
Damaged inputs for every place where a file or a message of someone else enters the program. A case may be refused with
its documented error and nothing else. It is a find when another exception is raised, when it takes ten seconds, ends
the process, or when a chunk of cases takes more than 500 MB.

Each chunk is a process of its own. What is done is kept in a file, so that the same command goes on where it stopped.
Each case follows from --seed, its target and its number; `--show TARGET NUMBER` writes it to stdout.
"""


class Chunk(NamedTuple):
    """Cases of one target."""

    target: str
    first: int
    cases: int


def plan(cases: int) -> Iterator[Chunk]:
    """The chunks of a run, of all targets in turn, so that a run that is stopped early has tried all."""
    left = {name: (0, cases * target.share // 1000) for name, target in TARGETS.items()}
    while any(first < end for first, end in left.values()):
        for name, (first, end) in left.items():
            if size := min(_CHUNK, end - first):
                yield Chunk(name, first, size)
                left[name] = (first + size, end)


def run(chunk: Chunk, seed: int) -> dict[str, Any]:
    """Try a chunk in a process of its own."""
    words = [chunk.target, *map(str, (chunk.first, chunk.cases, seed))]
    with tempfile.NamedTemporaryFile() as progress:
        command = [sys.executable, "-m", "tests.fuzz.chunk", *words, progress.name]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_CHUNK_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return _ended(chunk, progress.name, "does not end")
        try:
            return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
        except (ValueError, IndexError):
            return _ended(chunk, progress.name, f"ended the process with {done.returncode}: {done.stderr[-1500:]!r}")


def _ended(chunk: Chunk, progress: str, what: str) -> dict[str, Any]:
    number = int(Path(progress).read_text() or chunk.first)
    return {"refused": 0, "slowest": 0, "finds": [{"case": number, "what": what}], "seconds": 0, "megabytes": 0}


def main() -> int:
    """Try cases until there are as many as are wanted, or show one of them."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=36_000, metavar="N", help="of all targets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="others with another seed (default: 1)")
    parser.add_argument(
        "--kept", type=Path, default=Path("fuzz.jsonl"), metavar="FILE", help="what is done (%(default)s)"
    )
    parser.add_argument("--show", nargs=2, metavar=("TARGET", "NUMBER"), help="write one case to stdout")
    parser.add_argument(
        "--report", action="store_true", help=f"write {RESULT.name} and the page in docs from what is done"
    )
    arguments = parser.parse_args()
    if arguments.show:
        name, number = arguments.show
        target = TARGETS[name]
        sys.stdout.buffer.write(damaged(f"{name} {arguments.seed} {number}", target.seeds, target.words))
        return 0
    if not arguments.report:
        _try_all(arguments.cases, arguments.seed, arguments.kept)
    total = summary(arguments.kept)
    if arguments.report:
        RESULT.write_text(json.dumps(total, indent=1) + "\n")
        PAGE.write_text(text_of(total))
        return 0
    print(json.dumps(total, indent=1))
    return 1 if any(target["finds"] for target in total["targets"].values()) else 0


def _try_all(cases: int, seed: int, kept: Path) -> None:
    done = set()
    if kept.exists():
        done = {(line["seed"], Chunk(*line["chunk"])) for line in map(json.loads, kept.read_text().splitlines())}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    for chunk in plan(cases):
        if (seed, chunk) in done:
            continue
        result = {"seed": seed, "chunk": chunk, "commit": commit[:12], "cores": cores, **run(chunk, seed)}
        with kept.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(
            f"{chunk.target} {chunk.first}: {result['refused']} of {chunk.cases} refused",
            *result["finds"],
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
