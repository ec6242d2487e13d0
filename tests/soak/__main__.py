"""A storm of faults against the real program: ``python -m tests.soak --seed 7 --faults 1000``."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from tests.soak.disk import can_be_mounted
from tests.soak.kinds import KINDS
from tests.soak.report import Total
from tests.soak.rounds import ROUND_FAULTS, Journal, RoundRunner, rounds, run_round

_ABOUT = f"""
A storm of faults against the real program: `fer-edge run` as a process, started again as systemd does, with a real
mosquitto behind a proxy that notes what is acknowledged, a camera on the network whose visitors come and go in
seconds, a stand-in for an Edge TPU, a disk of its own and a clock of its own.

The storm follows from --seed, --faults and --kinds alone. It has rounds of {ROUND_FAULTS} faults, each in a new world.
What is done is kept in a file, so that the same command goes on with the round in which it was stopped. Faults of the
network, of hostile peers, the device, the clock and the operator come at the same time, each as soon as the device has
recovered from the one before. In the first part of a round, 40 % of it, are those that a process has to live through,
so that its memory can be watched.

Promises that are checked: the device recovers from each fault; every committed event is acknowledged by the broker,
dropped by the outbox's bound and counted, or lost with a damaged file and counted; first occurrences keep their order;
a camera that a command has closed stays closed, and one that it has opened is open again unless its state was damaged;
the process ends only when a fault says so; no traceback is ever written; memory and open files do not grow; at the end
it is online, with no fault retained.
"""

_MORE = """
kinds of faults:
{}

examples:
  python -m tests.soak --seed 1 --faults 20                a few minutes
  python -m tests.soak --faults 10000 --worlds 3           hours; progress goes to stderr
  python -m tests.soak --kinds kill,network-cut --faults 50
  python -m tests.soak --faults 1000 --plan                only show the storm
  python -m tests.soak --report                            tables of all that is done, as Markdown

exit code: 0 when all promises were kept, 1 when one was not, 2 for wrong usage or a round that could not be run.
Needs mosquitto, gcc and root: fer-edge must not be dumped, so the kernel shows its open files to root only.
The faults of the disk need mkfs.ext4 and loop devices, and are left out otherwise.
"""


def _parser(kinds: list[str]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:20} {kind.about}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        "python -m tests.soak",
        description=_ABOUT,
        epilog=_MORE.format(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which storm (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(kinds), metavar="A,B", help="only these kinds (default: all)")
    parser.add_argument("--worlds", type=int, default=1, metavar="N", help="rounds at a time (default: %(default)s)")
    parser.add_argument(
        "--kept", type=Path, default=Path("soak.jsonl"), metavar="FILE", help="what is done (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--report", action="store_true", help="only show all that is done in FILE, as Markdown")
    parser.add_argument("--plan", action="store_true", help="only show the storm")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a folder that keeps the files of each round")
    parser.add_argument("--round", type=int, metavar="N", help="run one round in this process, and print its result")
    return parser


def main() -> int:
    """Run a soak, or show its plan or its result."""
    kinds = [kind for kind in KINDS if can_be_mounted() or not kind.startswith("disk-")]
    parser = _parser(kinds)
    arguments = parser.parse_args()
    chosen = arguments.kinds.split(",")
    if unknown := [kind for kind in chosen if kind not in kinds]:
        parser.error(f"no such kind here: {', '.join(unknown)}; there are {', '.join(kinds)}")
    wanted = list(rounds(arguments.seed, arguments.faults, chosen))
    if arguments.plan:
        for one in wanted:
            for fault in one.plan():
                print(
                    one.number, fault.number, fault.part, fault.lane, fault.kind, fault.pause, fault.hold, fault.variant
                )
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that disks are unmounted and processes stopped
    if os.geteuid() != 0 and not arguments.report:
        parser.error("this needs root, to see how many files fer-edge has open and what it writes")
    if arguments.round is not None:
        keep = arguments.keep and arguments.keep / str(arguments.round)
        result = run_round(wanted[arguments.round], keep, lambda line: _log(f"round {arguments.round}: {line}"))
        print(json.dumps(result))
        return 1 if result["violations"] else 0
    journal = Journal(arguments.kept)
    if arguments.report:
        print(Total(journal.all()).as_markdown())
        return 0
    RoundRunner(journal, sys.argv[1:], _log).run(wanted, arguments.worlds)
    done = journal.of(wanted)
    total = Total(done)
    print(total.as_json() if arguments.json else total.as_text())
    return 1 if total.violations else 0 if len(done) == len(wanted) else 2


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
