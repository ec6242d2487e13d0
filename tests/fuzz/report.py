"""The result of a fuzz run: figures by target, and the page in docs that is generated from them."""

import json
import platform
from pathlib import Path
from typing import Any, Final

from tests.fuzz.targets import TARGETS

RESULT: Final = Path(__file__).with_name("result.json")
PAGE: Final = Path(__file__).parents[2] / "docs" / "fuzzing.md"

_HEAD: Final = """\
# Damaged input

<!-- Generated from tests/fuzz/result.json by `python -m tests.fuzz --report`; edit tests/fuzz/report.py. -->

Every place where a file or a message of someone else enters the program gets damaged input. The inputs are valid ones
with a few changes: other bytes and values, parts cut out, doubled or moved, and words that belong there.

A case may be refused with the documented error of its target, and with nothing else. It is a find when

- another exception is raised, or the process ends;
- the case takes ten seconds;
- a process with up to 4,000 cases takes more than 500 MB.

```console
{commands}
```

The same command goes on where it was stopped. Each case follows from the seed, its target and its number alone.
`python -m tests.fuzz --show picture 1234` writes one to stdout.

## Result

| target | what is damaged | cases | refused | longest case | most memory | finds |
|---|---|---|---|---|---|---|
"""

_TAIL: Final = """
It took {time} in {chunks} processes, one after another, with commit `{commits}`. It was measured with Python {python}
on {machine}, at the lowest priority beside other programs on {cores} cores.

## Found and corrected

Each input that broke something is kept in `tests/fuzz/corpus`, and `make check` tries it again.

- This program found labels in `golden.npz` that are beyond Unicode. numpy makes strings of them that Python cannot
  print, so the error about them ended the program.
- It found a part of `golden.npz` that is no array. numpy gives its bytes, and a traceback ended the program.
- It found a recording whose own preset names an expression that its model has not. The error was that of a settings
  file, and did not name the recording.
- A settings file of 80 KB with one key of 40,000 parts took 31 seconds.
- A wrong value of thousands of digits was repeated whole in the error.
- A picture with a side of 32,767 pixels or more ended the program with a traceback. So did one of a billion pixels.
- Brackets that are nested thousands deep ended the program wherever JSON or TOML is read.

## Not tried

- Networks (`model.tflite`) whose card confirms their sha256. Whoever makes card and network is trusted.
- Cameras and brokers that answer damaged bytes. [Reliability](reliability.md#a-storm-of-faults) has tests of these.
"""


def summary(kept: Path) -> dict[str, Any]:
    """The figures of all chunks that are done, by target."""
    chunks = [json.loads(line) for line in kept.read_text().splitlines()]
    targets: dict[str, Any] = {}
    for name in TARGETS:
        own = [chunk for chunk in chunks if chunk["chunk"][0] == name]
        targets[name] = {
            "cases": sum(chunk["chunk"][2] for chunk in own),
            "refused": sum(chunk["refused"] for chunk in own),
            "slowest": max((chunk["slowest"] for chunk in own), default=0),
            "megabytes": max((chunk["megabytes"] for chunk in own), default=0),
            "finds": [find for chunk in own for find in chunk["finds"]],
        }
    return {
        "targets": targets,
        "seconds": round(sum(chunk["seconds"] for chunk in chunks)),
        "chunks": len(chunks),
        "seeds": sorted({chunk["seed"] for chunk in chunks}),
        "commits": sorted({chunk["commit"] for chunk in chunks}),
        "cores": max(chunk["cores"] for chunk in chunks),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def text_of(total: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows = [
        f"| {name} | {TARGETS[name].what} | {of['cases']:,} | {of['refused']:,} | {of['slowest']:.1f} s | "
        f"{of['megabytes']} MB | {len(of['finds'])} |"
        for name, of in total["targets"].items()
    ]
    cases, refused, finds = (
        sum(of["cases"] for of in total["targets"].values()),
        sum(of["refused"] for of in total["targets"].values()),
        sum(len(of["finds"]) for of in total["targets"].values()),
    )
    rows.append(f"| **all {len(rows)}** | | **{cases:,}** | **{refused:,}** | | | **{finds}** |")
    figures = {key: total[key] for key in ("chunks", "python", "machine", "cores")}
    minutes = f"{total['seconds'] / 60:.0f} minutes"
    tail = _TAIL.format(time=minutes, commits="`, `".join(total["commits"]), **figures)
    commands = "\n".join(f"$ python -m tests.fuzz --cases {cases} --seed {seed}" for seed in total["seeds"])
    return _HEAD.format(commands=commands) + "\n".join(rows) + "\n" + tail
