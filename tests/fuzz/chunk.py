"""A chunk of cases of one target, tried in this process: ``python -m tests.fuzz.chunk TARGET FIRST CASES SEED``.

It prints one line of JSON. Before each case its number is written to the file PROGRESS, so that a case is known that
never ends or ends the process.
"""

import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS, Target

MAX_CASE_SECONDS: Final = 10.0
MAX_MEGABYTES: Final = 500.0


def try_cases(targets: Mapping[str, Target], name: str, seed: int, numbers: range, progress: int) -> dict[str, Any]:
    """Try cases; returns how many were refused, and what went wrong."""
    target = targets[name]
    refused, slowest, finds = 0, 0.0, []
    in_memory = Path("/dev/shm").is_dir() and name != "video"  # what is below /dev/ is taken for a camera
    with tempfile.TemporaryDirectory(dir="/dev/shm" if in_memory else None) as folder:
        for number in numbers:
            os.pwrite(progress, f"{number:12}".encode(), 0)
            content = damaged(f"{name} {seed} {number}", target.seeds, target.words)
            began = time.monotonic()
            try:
                target.run(content, Path(folder))
            except target.error as error:
                refused += 1
                if fault := unsayable(error):
                    finds.append({"case": number, "what": fault})
            except Exception:  # noqa: BLE001  whatever it is, it is a find
                finds.append({"case": number, "what": traceback.format_exc(limit=-3)})
            slowest = max(slowest, time.monotonic() - began)
            if time.monotonic() - began > MAX_CASE_SECONDS:
                finds.append({"case": number, "what": f"took {time.monotonic() - began:.0f} s"})
    return {"refused": refused, "slowest": round(slowest, 3), "finds": finds}


def unsayable(error: Exception) -> str:
    """Why an error cannot be shown to a user; empty when it can."""
    try:
        return "" if str(error).encode() else "an error without a sentence"
    except ValueError:
        return traceback.format_exc(limit=-3)


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def main() -> None:
    """Try the cases that the command line names."""
    target, first, count, seed, progress = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    logging.disable()
    number = os.open(progress, os.O_WRONLY | os.O_CREAT)
    began = time.monotonic()
    result = try_cases(TARGETS, target, seed, range(first, first + count), number)
    peak = peak_megabytes()
    if peak > MAX_MEGABYTES:
        result["finds"] = [*result["finds"], {"case": first, "what": f"these {count} cases took {peak:.0f} MB"}]
    print(json.dumps(result | {"seconds": round(time.monotonic() - began, 1), "megabytes": round(peak)}))


if __name__ == "__main__":
    main()
