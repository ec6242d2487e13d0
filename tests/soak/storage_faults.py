"""Faults of the disk, and damage to the files of the state folder."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from edge.model.bundle import open_bundle
from edge.model.tuning import MeasuredSpeed, Tuning, save_tuning, tuning_conditions
from tests.soak.damage import How, damage
from tests.soak.disk import Disk
from tests.soak.injection import Broken, FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_TRIES: Final = 20
_OUTBOX: Final = {"outbox": "*.outbox.db", "log": "*.outbox.db-wal", "inventory": "*.outbox.db.inventory"}
_STATE: Final = ("*[!y].state.json", "*+copy.state.json")
_LINKED: Final = (*_STATE, "device.json", "*.outbox.db.inventory", "verdict.json", "tuned.json")


class DiskFaults(FaultGroup):
    """A disk that is full or hangs."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "disk-full": lambda fault: self._fails(fault, self._disk.fill, self._disk.empty),
            "disk-hangs": lambda fault: self._fails(fault, self._disk.hang, self._disk.resume),
        }

    @property
    def _disk(self) -> Disk:
        assert self.world.disk, "no such fault is planned where no disk can be mounted"
        return self.world.disk

    def _fails(self, fault: Fault, begin: Callable[[], None], end: Callable[[], None]) -> Recovered:
        try:
            begin()
            self.hold(fault)
        finally:
            end()
        sees_frames = self.world.sees_frames()
        return lambda: self.world.device.metrics().get("fer_edge_outbox_durable") == 1 and sees_frames()


class FileFaults(FaultGroup):
    """Files that are damaged between two processes, as by a worn card, or swapped for links."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        hows: tuple[How, ...] = ("flips", "lost")
        return {
            **{f"{name}-{how}": partial(self._outbox, name=name, how=how) for name in _OUTBOX for how in hows},
            **{f"state-{how}": partial(self._state, how=how) for how in hows},
            **{f"record-{how}": partial(self._record, how=how) for how in hows},
            "tuning-flips": self._tuning,
            "files-linked": self._files_linked,
        }

    def _outbox(self, fault: Fault, name: str, how: How) -> Recovered:
        """Damage one file while another one tells what is in it: when both are damaged, nothing can be counted."""
        done = False

        def harm() -> None:
            nonlocal done
            file = self.world.file(_OUTBOX[name])
            if file and self.world.outboxes and self.world.outboxes[-1].is_kept_twice:
                damage(file, how, fault.variant)
                done = True

        for _ in range(_TRIES):
            recovered = self.restart(then=harm)
            if done or self._abort.is_set():
                return recovered
            self.until(recovered, "it goes on after a kill")
            self._abort.wait(1.0)  # until another event is committed
        raise Broken("the inventory is never whole in both places")

    def _state(self, fault: Fault, how: How) -> Recovered:
        """The camera stays closed until the operator opens it. Not both files are damaged."""

        def harm() -> None:
            file = self.world.file(_STATE[fault.variant % len(_STATE)])
            if file:
                self.world.state_is_damaged |= "+copy" not in file.name
                damage(file, how, fault.variant)

        return self.restart(then=harm)

    def _record(self, fault: Fault, how: How) -> Recovered:
        return self.restart(then=lambda: damage(self.world.state / "device.json", how, fault.variant))

    def _tuning(self, fault: Fault) -> Recovered:
        file = self._tune()
        damage(file, "flips", fault.variant)
        recovered = self.restart(boot=True)
        self.until(recovered, "it starts with a damaged tuning")
        file.unlink()
        return recovered

    def _tune(self) -> Path:
        """Write a tuning that holds for this model and machine."""
        speed = MeasuredSpeed("edgetpu", 1, 0.1)
        conditions = tuning_conditions(open_bundle(self.world.standin.bundle))
        return save_tuning(self.world.state, Tuning(conditions, speed, (speed,), "healthy", "2026-01-01T00:00:00Z"))

    def _files_linked(self, fault: Fault) -> Recovered:
        """Nothing is written through a link, and the program works on; what it cannot read is as if it were damaged."""
        victim = self.world.folder / "victim"
        victim.write_bytes(content := msgspec.json.encode({"paused": False, "precious": True}))
        links: list[Path] = []

        def swap() -> None:
            if file := self.world.file(_LINKED[fault.variant % len(_LINKED)]):
                self.world.state_is_damaged |= file.name.endswith(".state.json") and "+copy" not in file.name
                file.unlink()
                file.symlink_to(victim)
                links.append(file)

        recovered = self.restart(then=swap)
        self.until(recovered, "it goes on with a link in its folder")
        self.hold(fault)
        for link in links:
            if link.is_symlink():
                link.unlink()
        if victim.read_bytes() != content or victim.is_symlink():
            raise Broken(f"{links[0].name} was swapped for a link, and its target was written")
        return recovered
