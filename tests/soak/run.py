"""Runs a soak: parallel lanes of faults, then a quiet time, then the checks."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

from tests.soak.faults import FaultInjector
from tests.soak.injection import PATIENCE, Broken
from tests.soak.kinds import DAMAGING, KINDS, LANES
from tests.soak.ledger import Balance, Evidence, balance
from tests.soak.plan import Fault
from tests.soak.report import Outcome, Report, growth_violations
from tests.soak.watch import Sampler, growth, written
from tests.soak.world import World, fulfilled, opened

Log = Callable[[str], None]

_LOG_SECONDS: Final = 10.0
_START_SECONDS: Final = 120.0
_LAST_STARTS: Final = 5
_LASTING_FAULTS: Final = (
    '"code":21',  # of the Edge TPU, which is tried again only after minutes
    "Events that waited in it and are lost",  # of a damaged outbox, until the next start (docs/mqtt.md)
)


class _Storm:
    """A storm of faults: one thread for each lane, and the outcomes."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self.outcomes: list[Outcome] = []
        self._abort = threading.Event()
        self._world = world
        self._injector = FaultInjector(world, self._abort)
        self._faults = faults
        self._count_lock = threading.Lock()
        self._part_barrier = threading.Barrier(len(LANES))
        self._threads = [threading.Thread(target=self._lane, args=(lane,), name=lane) for lane in LANES]

    def run(self, log: Log) -> None:
        """Inject all faults, and log the progress until the last one is over."""
        try:
            for thread in self._threads:
                thread.start()
            self._log_progress(log)
        finally:
            self._abort.set()
            for thread in self._threads:
                thread.join()

    def _log_progress(self, log: Log) -> None:
        began = logged_at = time.monotonic()
        logged = 0
        while any(thread.is_alive() for thread in self._threads):
            time.sleep(0.1)
            if time.monotonic() - logged_at < _LOG_SECONDS:
                continue
            logged_at = time.monotonic()
            failed = [outcome for outcome in list(self.outcomes) if outcome.seconds is None]
            log(
                f"{(logged_at - began) / 60:6.1f} min  {len(self.outcomes)} of {len(self._faults)} faults, "
                f"{len(failed)} not recovered  {len(self._world.proxy.record.acknowledged)} events acknowledged  "
                f"{self._world.device.starts} starts"
                + "".join(f"\n  {one.kind} (fault {one.number}): {one.problem}" for one in failed[logged:])
            )
            logged = len(failed)

    def _lane(self, lane: str) -> None:
        for part in (0, 1):
            for fault in self._faults:
                if (fault.part, fault.lane) == (part, lane) and not self._abort.wait(fault.pause):
                    self.outcomes.append(self._one(fault))
            self._part_barrier.wait()

    def _one(self, fault: Fault) -> Outcome:
        with self._count_lock:
            self._world.injected += 1
        if fault.lane != "device":
            return self._injected(fault)
        self._world.device.forget_failures()
        if KINDS[fault.kind].calm:  # no process may end because of it
            return self._injected(fault)
        with self._world.blaming(fault.kind):
            return self._injected(fault)

    def _injected(self, fault: Fault) -> Outcome:
        try:
            recovered = self._injector.inject(fault)
            began = time.monotonic()
            if not self._world.recovers(recovered, PATIENCE, self._abort):
                return Outcome(fault.number, fault.kind, None, f"did not recover within {PATIENCE:.0f} s")
        except (Broken, AssertionError, OSError, SubprocessError) as error:
            return Outcome(fault.number, fault.kind, None, f"{type(error).__name__}: {error}")
        return Outcome(fault.number, fault.kind, round(time.monotonic() - began, 3))


def soak(faults: Sequence[Fault], folder: Path, log: Log) -> Report:
    """Inject all faults, with all files in ``folder``, which is empty; ``log`` takes lines of progress."""
    began = time.monotonic()
    with opened(folder) as world:
        sampler = Sampler(lambda: world.device.pid, lambda: world.injected, lambda: world.blamed or "")
        if not fulfilled(world.sees_frames(), _START_SECONDS, threading.Event()):
            raise SystemExit(f"the device does not start: see\n{world.device.log.read_text()[-2000:]}")
        sampler.start()
        storm = _Storm(world, faults)
        storm.run(log)
        not_quiet = _wait_until_quiet(world)
        sampler.sample()
        sampler.close()
        _deliver(world)
        record = world.proxy.record
        evidence = Evidence(record.published, record.acknowledged, world.outboxes)
        settled = balance(evidence)
        grown = growth(sampler.samples)
        return Report(
            round((time.monotonic() - began) / 60, 2),
            sorted(storm.outcomes, key=lambda one: one.number),
            settled,
            world.device.starts,
            len(world.keeper.reopened),
            grown,
            written(sampler.samples),
            [
                *_not_recovered(storm),
                *settled.violations,
                *_loss_without_damage(settled, faults),
                *world.keeper.violations,
                *_process_violations(world),
                *growth_violations(grown),
                *not_quiet,
            ],
            evidence,
        )


def _loss_without_damage(settled: Balance, faults: Sequence[Fault]) -> list[str]:
    if not (settled.lost or settled.damaged) or any(fault.kind in DAMAGING for fault in faults):
        return []
    return [f"{settled.lost} events are counted as lost, and {settled.damaged} files as damaged, which nobody damaged"]


def _not_recovered(storm: _Storm) -> list[str]:
    return [f"{one.kind} (fault {one.number}): {one.problem}" for one in storm.outcomes if one.seconds is None]


def _process_violations(world: World) -> list[str]:
    """Ends of the process that no fault explains, and tracebacks in its log."""
    found = [
        f"the process ended with {end.code} although no fault was active that ends it"
        for end, blamed in world.ends
        if blamed is None and not end.asked
    ]
    log = world.device.log.read_text(errors="replace")
    if "Traceback (most recent call last)" in log:
        found.append(f"a traceback was written: {log[log.index('Traceback') :][:1500]}")
    return found


def _wait_until_quiet(world: World) -> list[str]:
    """Wait until a subscriber sees a device that is online without a fault; returns a violation otherwise."""
    world.camera.empty = True

    def well() -> bool:
        last = world.operator.last
        # A retained fault is cleared by an empty payload; a topic that never had one sends nothing.
        fault = last.get("fault", "")
        return last.get("availability") == "online" and (not fault or any(words in fault for words in _LASTING_FAULTS))

    if fulfilled(well, PATIENCE, threading.Event()):
        return []
    return [f"in the end a subscriber sees: {world.operator.last}"]


def _ended(world: World, times: int) -> bool:
    return len(world.ends) >= times


def _deliver(world: World) -> None:
    """Stop the device in order; start it again until everything is delivered."""
    for _ in range(_LAST_STARTS):
        fulfilled(lambda: world.device.metrics().get("fer_edge_outbox_waiting") == 0, PATIENCE, threading.Event())
        world.device.stop()
        wanted = len(world.ends) + 1
        fulfilled(partial(_ended, world, wanted), PATIENCE, threading.Event())
        if not world.outboxes[-1].ids:
            break
    world.device.close()
