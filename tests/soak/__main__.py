"""A storm of faults against the real program: ``python -m tests.soak --seed 7 --faults 1000``."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.soak.disk import can_be_mounted
from tests.soak.plan import KINDS, storm
from tests.soak.run import soak

_ABOUT = """
A storm of faults against the real program: `fer-edge run` as a process, started again as systemd does, with a real
mosquitto behind a proxy that notes what is acknowledged, a camera on the network whose visitors come and go in
seconds, a stand-in for an Edge TPU, a disk of its own and a clock of its own.

The storm follows from --seed, --faults and --kinds alone. Faults of the network, the device, the clock and the
operator come at the same time, each as soon as the device has recovered from the one before. In the first part, 40 %
of them, are those that a process has to live through, so that its memory can be watched.

Promises that are checked: the device recovers from each fault; every committed event is acknowledged by the broker, or
dropped by the outbox's bound and counted; first occurrences keep their order; the process ends only when a fault says
so; no traceback is ever written; memory and open files do not grow; at the end it is online, with no fault retained.
"""

_MORE = """
kinds of faults:
{}

examples:
  python -m tests.soak --seed 1 --faults 20                      a few minutes
  python -m tests.soak --seed 7 --faults 1000 --json > soak.json   about 40 minutes; progress goes to stderr
  python -m tests.soak --kinds kill,network-cut --faults 50
  python -m tests.soak --seed 7 --faults 1000 --plan             only show the storm

exit code: 0 when all promises were kept, 1 when one was not, 2 for wrong usage.
Needs mosquitto, gcc and root: fer-edge must not be dumped, so the kernel shows its open files to root only.
The faults of the disk need mkfs.ext4 and loop devices, and are left out otherwise.
"""


def main() -> int:
    """Run a soak, or show its plan."""
    kinds = [kind for kind in KINDS if can_be_mounted() or not kind.startswith("disk-")]
    listed = "\n".join(f"  {name:16} {kind.about}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        "python -m tests.soak",
        description=_ABOUT,
        epilog=_MORE.format(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which storm (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(kinds), metavar="A,B", help="only these kinds (default: all)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--plan", action="store_true", help="show the storm, and do nothing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder that keeps the device's log")
    arguments = parser.parse_args()
    chosen = arguments.kinds.split(",")
    if unknown := [kind for kind in chosen if kind not in kinds]:
        parser.error(f"no such kind here: {', '.join(unknown)}; there are {', '.join(kinds)}")
    faults = storm(arguments.seed, arguments.faults, chosen)
    if arguments.plan:
        for fault in faults:
            print(fault.number, fault.part, fault.lane, fault.kind, fault.pause, fault.hold, fault.variant)
        return 0
    if os.geteuid() != 0:
        parser.error("this needs root, to see how many files fer-edge has open and what it writes")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that disks are unmounted and processes stopped
    with tempfile.TemporaryDirectory() as folder:
        if arguments.keep:
            arguments.keep.mkdir(parents=True)
        report = soak(faults, arguments.keep or Path(folder), arguments.seed, lambda line: print(line, file=sys.stderr))
    print(report.as_json() if arguments.json else report.as_text())
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
