"""A soak from its beginning to its end: lanes of faults beside each other, then quiet, then judgement."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

from tests.soak.faults import PATIENCE, Broken, Hands
from tests.soak.ledger import Evidence, balance
from tests.soak.plan import LANES, Fault
from tests.soak.report import Outcome, Report, growth_violations
from tests.soak.watch import Sampler, growth, written
from tests.soak.world import World, opened, steady

Tell = Callable[[str], None]

_TELL_SECONDS: Final = 10.0
_START_SECONDS: Final = 120.0
_LAST_STARTS: Final = 5


class _Storm:
    """The lanes of a storm, and what becomes of its faults."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self.outcomes: list[Outcome] = []
        self.ended = threading.Event()
        self._world = world
        self._hands = Hands(world, self.ended)
        self._faults = faults
        self._count = threading.Lock()
        self._parts = threading.Barrier(len(LANES))
        self.threads = [threading.Thread(target=self._lane, args=(lane,), name=lane) for lane in LANES]

    def _lane(self, lane: str) -> None:
        for part in (0, 1):
            for fault in self._faults:
                if (fault.part, fault.lane) == (part, lane) and not self.ended.wait(fault.pause):
                    self.outcomes.append(self._one(fault))
            self._parts.wait()

    def _one(self, fault: Fault) -> Outcome:
        with self._count:
            self._world.injected += 1
        if fault.lane != "device":
            return self._inflicted(fault)
        self._world.device.forget()
        with self._world.blaming(fault.kind):
            return self._inflicted(fault)

    def _inflicted(self, fault: Fault) -> Outcome:
        try:
            recovered = self._hands.inflict(fault)
            began = time.monotonic()
            if not steady(recovered, PATIENCE, self.ended):
                return Outcome(fault.number, fault.kind, None, f"did not recover within {PATIENCE:.0f} s")
        except (Broken, AssertionError, OSError, SubprocessError) as broken:
            return Outcome(fault.number, fault.kind, None, f"{type(broken).__name__}: {broken}")
        return Outcome(fault.number, fault.kind, round(time.monotonic() - began, 3))


def soak(faults: Sequence[Fault], folder: Path, seed: int, tell: Tell) -> Report:
    """Inflict all faults, with all that is kept in ``folder``, which is empty; ``tell`` gets lines of progress."""
    began = time.monotonic()
    with opened(folder) as world:
        sampler = Sampler(lambda: world.device.pid, lambda: world.injected)
        if not steady(world.sees(), _START_SECONDS, threading.Event()):
            raise SystemExit(f"the device does not begin: see\n{world.device.log.read_text()[-2000:]}")
        sampler.start()
        storm = _Storm(world, faults)
        try:
            for thread in storm.threads:
                thread.start()
            _watch(storm, world, len(faults), tell)
        finally:
            storm.ended.set()
            for thread in storm.threads:
                thread.join()
        quiet = _quiet(world)
        sampler.look()
        sampler.close()
        _deliver(world)
        log = world.device.log.read_text(errors="replace")
        record = world.proxy.record
        evidence = Evidence(record.published, record.acknowledged, world.found)
        settled = balance(evidence)
        grown = growth(sampler.samples)
        violations = [
            *(f"{one.kind} (fault {one.number}): {one.trouble}" for one in storm.outcomes if one.seconds is None),
            *settled.wrong,
            *(
                f"the process ended with {end.code} although no fault was under way that ends it"
                for end, blamed in world.ends
                if blamed is None and not end.asked
            ),
            *growth_violations(grown),
            *quiet,
        ]
        if "Traceback (most recent call last)" in log:
            violations.append(f"a traceback was written: {log[log.index('Traceback') :][:1500]}")
        return Report(
            seed,
            round((time.monotonic() - began) / 60, 2),
            sorted(storm.outcomes, key=lambda one: one.number),
            settled,
            world.device.starts,
            grown,
            written(sampler.samples),
            violations,
            evidence,
        )


def _watch(storm: _Storm, world: World, faults: int, tell: Tell) -> None:
    began = told = time.monotonic()
    said = 0
    while any(thread.is_alive() for thread in storm.threads):
        time.sleep(0.1)
        if time.monotonic() - told < _TELL_SECONDS:
            continue
        told = time.monotonic()
        bad = [outcome for outcome in list(storm.outcomes) if outcome.seconds is None]
        tell(
            f"{(told - began) / 60:6.1f} min  {len(storm.outcomes)} of {faults} faults, {len(bad)} not recovered  "
            f"{len(world.proxy.record.acknowledged)} events acknowledged  {world.device.starts} starts"
            + "".join(f"\n  {one.kind} (fault {one.number}): {one.trouble}" for one in bad[said:])
        )
        said = len(bad)


def _quiet(world: World) -> list[str]:
    """Wait until all is well for a subscriber too; says what is not."""
    world.camera.empty = True

    def well() -> bool:
        last = world.operator.last
        # A retained fault is taken back by an empty payload; of one that never was nobody hears.
        return last.get("availability") == "online" and not last.get("fault")

    degraded = '"code":21'  # what was done to the Edge TPU last: it is tried again after minutes
    if steady(lambda: well() or degraded in world.operator.last.get("fault", ""), PATIENCE, threading.Event()):
        return []
    return [f"in the end a subscriber knows: {world.operator.last}"]


def _ended(world: World, times: int) -> bool:
    return len(world.ends) >= times


def _deliver(world: World) -> None:
    """Let the device end in order with everything delivered; what the broker had no time for, the next start sends."""
    for _ in range(_LAST_STARTS):
        steady(lambda: world.device.metrics().get("fer_edge_outbox_waiting") == 0, PATIENCE, threading.Event())
        world.device.stop()
        wanted = len(world.ends) + 1
        steady(partial(_ended, world, wanted), PATIENCE, threading.Event())
        if not world.found[-1].ids:
            break
    world.device.close()
