"""What all ways of injecting a fault share."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from tests.soak.plan import Fault
from tests.soak.world import World

PATIENCE: Final = 120.0
"""Seconds that the device has to recover from anything; its own waits take up to 60."""

Recovered = Callable[[], bool]
"""Whether the device has recovered from a fault whose cause is gone."""

Inject = Callable[[Fault], Recovered]
"""Brings a fault about, holds it, and takes its cause away."""


class Broken(Exception):  # noqa: N818  it says what was found
    """The device did what it must not do."""


class FaultGroup:
    """Faults of one part of the world; ``abort`` is set when the soak is given up."""

    def __init__(self, world: World, abort: threading.Event) -> None:
        self.world = world
        self._abort = abort

    @property
    def kinds(self) -> Mapping[str, Inject]:
        """How to inject each kind of fault; names as in tests.soak.plan.KINDS."""
        raise NotImplementedError

    def hold(self, fault: Fault) -> None:
        self._abort.wait(fault.hold)

    def restart(self, *, kill: bool = True, boot: bool = False, then: Callable[[], None] | None = None) -> Recovered:
        """End the process, call ``then``, and start it again; returns whether the new one sees frames."""
        before, device = self.world.device.starts, self.world.device
        (device.kill if kill else device.stop)(boot=boot, then=then)
        self.until(lambda: device.starts > before, "a process that has ended is started again")
        return self.world.sees_frames()

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for what the device must do. Raises Broken when it does not."""
        if not self.world.recovers(condition, seconds, self._abort) and not self._abort.is_set():
            raise Broken(f"not within {seconds:.0f} s: {what}")
