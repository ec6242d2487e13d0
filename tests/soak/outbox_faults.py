"""Damage to the outbox while the process is down, so that the next one has to count what is missing."""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from tests.soak.damage import How, damage
from tests.soak.injection import Broken, FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_TRIES: Final = 20
_FILES: Final = {"outbox": "*.outbox.db", "log": "*.outbox.db-wal", "inventory": "*.outbox.db.inventory"}


class OutboxFaults(FaultGroup):
    """An outbox, its log or its inventory that is damaged, lost, older, or a link.

    One of them is hit while another one tells what must be there: when both are damaged, nothing can be counted.
    """

    @property
    def kinds(self) -> Mapping[str, Inject]:
        hows: tuple[How, ...] = ("flips", "lost")
        return {
            **{f"{name}-{how}": partial(self._damaged, name=name, how=how) for name in _FILES for how in hows},
            "outbox-older": self._older,
            "outbox-linked": self._linked,
        }

    def _damaged(self, fault: Fault, name: str, how: How) -> Recovered:
        return self._harmed(_FILES[name], lambda file: damage(file, how, fault.variant))

    def _older(self, _fault: Fault) -> Recovered:
        """A copy of the outbox and its log, made when an earlier process had ended, is put back."""
        copies = self.world.folder / "older"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()

        def keep(file: Path) -> None:
            for kept in (file, _log_of(file)):
                if kept.exists():
                    shutil.copy2(kept, copies)

        def put_back(file: Path) -> None:
            _log_of(file).unlink(missing_ok=True)
            for kept in copies.iterdir():
                shutil.copy2(kept, file.parent)

        self.until(self._harmed(_FILES["outbox"], keep), "it goes on after a copy was made")
        self.until(self.world.is_acknowledged(), "events come and go after a copy was made")
        return self._harmed(_FILES["outbox"], put_back)

    def _linked(self, fault: Fault) -> Recovered:
        """Nothing is written through the link: to a file, to another database, or to nothing yet."""
        world = self.world
        place = world.folder / "linked"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "file").write_bytes(b"precious" * 10)
        with closing(sqlite3.connect(place / "database")) as db:
            db.execute("CREATE TABLE precious (content)")
        before = {file.name: file.read_bytes() for file in place.iterdir()}
        links: list[Path] = []

        def swap(file: Path) -> None:
            file.unlink()
            file.symlink_to(place / ("file", "database", "nothing")[fault.variant % 3])
            links.append(file)

        self.until(self._harmed(_FILES["outbox"], swap), "it goes on with a link in place of the outbox")
        self.hold(fault)
        for link in links:
            if link.is_symlink():
                link.unlink()
        if {file.name: file.read_bytes() for file in place.iterdir()} != before:
            raise Broken("the outbox was swapped for a link, and its target was written")
        sees_frames = world.sees_frames()
        return lambda: world.device.metrics().get("fer_edge_outbox_durable") == 1 and sees_frames()

    def _harmed(self, pattern: str, harm: Callable[[Path], None]) -> Recovered:
        """End the process when the inventory is whole in both places, harm a file, and start it again."""
        done = False

        def harm_if_counted() -> None:
            nonlocal done
            file = self.world.file(pattern)
            if file and self.world.outboxes and self.world.outboxes[-1].is_kept_twice:
                harm(file)
                done = True

        for _ in range(_TRIES):
            recovered = self.restart(then=harm_if_counted)
            if done or self._abort.is_set():
                return recovered
            self.until(recovered, "it goes on after a kill")
            self._abort.wait(1.0)  # until another event is committed
        raise Broken("the inventory is never whole in both places")


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")
