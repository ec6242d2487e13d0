"""Faults of the camera."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from tests.soak.camera import Mode
from tests.soak.injection import FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_ENDING: Final[tuple[Mode, ...]] = (
    "gone", "stalled", "frozen", "trickles", "cuts", "endless", "no-video", "refuses"
)  # fmt: skip
_LIVED_THROUGH: Final[tuple[Mode, ...]] = ("corrupt", "resized")


class CameraFaults(FaultGroup):
    """Cameras that are gone, stall, freeze, or send something else than pictures."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            **{f"camera-{mode}": partial(self._ending, mode=mode) for mode in _ENDING},
            **{f"camera-{mode}": partial(self._lived_through, mode=mode) for mode in _LIVED_THROUGH},
        }

    def _ending(self, fault: Fault, mode: Mode) -> Recovered:
        """The process ends, with the code of its reason, until the camera works again."""
        world = self.world
        before = world.device.starts
        world.camera.mode = mode
        try:
            self.until(lambda: world.device.starts > before, f"the process ends because the camera is {mode}")
            self.hold(fault)
        finally:
            world.camera.mode = "works"
        return world.sees_frames()

    def _lived_through(self, fault: Fault, mode: Mode) -> Recovered:
        self.world.camera.mode = mode
        self.hold(fault)
        self.world.camera.mode = "works"
        return self.world.sees_frames()
