"""Faults of the device: its camera, its Edge TPU, its disk, its model, its process."""

from collections.abc import Callable, Mapping

from tests.soak.camera import Mode
from tests.soak.disk import Disk
from tests.soak.injection import FaultGroup, Inject, Recovered
from tests.soak.plan import Fault


class CameraFaults(FaultGroup):
    """Cameras that are gone, stall, freeze, or send damaged pictures."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "camera-gone": lambda fault: self._camera(fault, "gone"),
            "camera-stalled": lambda fault: self._camera(fault, "stalled"),
            "camera-frozen": lambda fault: self._camera(fault, "frozen"),
            "camera-corrupt": self._camera_corrupt,
        }

    def _camera(self, fault: Fault, mode: Mode) -> Recovered:
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

    def _camera_corrupt(self, fault: Fault) -> Recovered:
        self.world.camera.mode = "corrupt"
        self.hold(fault)
        self.world.camera.mode = "works"
        return self.world.sees_frames()


class EdgeTpuFaults(FaultGroup):
    """Edge TPUs (a stand-in) that vanish, hang, crash, or compute something else."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "tpu-vanishes": self._tpu_vanishes,
            "tpu-hangs": self._tpu_hangs,
            "tpu-crashes": lambda fault: self._tpu_bad_at_start(fault, "crashes"),
            "tpu-wrong": lambda fault: self._tpu_bad_at_start(fault, "wrong"),
        }

    def _use_healthy_tpu(self) -> None:
        """Boot if needed: an Edge TPU that was lost is otherwise tried again only after many minutes."""
        world = self.world
        world.standin.plays("present")
        if world.accelerator != "edgetpu":
            self._boot()
            self.until(lambda: world.accelerator == "edgetpu", "the Edge TPU computes after a boot")

    def _boot(self) -> None:
        before = self.world.device.starts
        self.world.device.stop(boot=True)
        self.until(lambda: self.world.device.starts > before, "the process ends in order and is started again")

    def _tpu_vanishes(self, fault: Fault) -> Recovered:
        world = self.world
        self._use_healthy_tpu()
        world.standin.plays("vanished")
        self.until(lambda: world.accelerator == "cpu (degraded)", "the CPU takes over")
        self.hold(fault)
        world.standin.plays("present")
        return world.sees_frames()

    def _tpu_hangs(self, fault: Fault) -> Recovered:
        """The watchdog ends the process, and the next one computes on the CPU."""
        world = self.world
        self._use_healthy_tpu()
        before = world.device.starts
        world.standin.plays("hangs")
        self.until(lambda: world.device.starts > before, "the watchdog ends a process that hangs")
        self.hold(fault)
        sees_frames = world.sees_frames()
        return lambda: sees_frames() and world.accelerator == "cpu (degraded)"

    def _tpu_bad_at_start(self, fault: Fault, mode: str) -> Recovered:
        world = self.world
        world.standin.plays(mode)
        self._boot()
        self.until(lambda: world.accelerator == "cpu (degraded)", f"the CPU computes when the Edge TPU {mode}")
        self.hold(fault)
        world.standin.plays("present")
        return world.sees_frames()


class StorageFaults(FaultGroup):
    """A disk that is full or hangs, and a model with a flipped bit."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "disk-full": self._disk_full,
            "disk-hangs": self._disk_hangs,
            "model-rots": self._model_rots,
        }

    def _disk_full(self, fault: Fault) -> Recovered:
        return self._disk_fails(fault, self._disk.fill, self._disk.empty)

    def _disk_hangs(self, fault: Fault) -> Recovered:
        return self._disk_fails(fault, self._disk.hang, self._disk.resume)

    @property
    def _disk(self) -> Disk:
        assert self.world.disk, "no such fault is planned where no disk can be mounted"
        return self.world.disk

    def _disk_fails(self, fault: Fault, begin: Callable[[], None], end: Callable[[], None]) -> Recovered:
        try:
            begin()
            self.hold(fault)
        finally:
            end()
        sees_frames = self.world.sees_frames()
        return lambda: self.world.device.metrics().get("fer_edge_outbox_durable") == 1 and sees_frames()

    def _model_rots(self, fault: Fault) -> Recovered:
        world = self.world
        model = world.standin.bundle / "model.tflite"
        intact = model.read_bytes()
        damaged = bytearray(intact)
        damaged[fault.variant % len(damaged)] ^= 1 << fault.variant % 8
        model.write_bytes(damaged)
        try:
            before = len(world.ends)
            world.device.kill()
            self.until(lambda: any(end.code == 4 for end, _ in world.ends[before:]), "a damaged model is refused (4)")
            self.hold(fault)
        finally:
            model.write_bytes(intact)
        return world.sees_frames()


class ProcessFaults(FaultGroup):
    """A process that is killed."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {"kill": self._kill}

    def _kill(self, fault: Fault) -> Recovered:
        before = self.world.device.starts
        self.world.device.kill(boot=bool(fault.variant % 2))
        self.until(lambda: self.world.device.starts > before, "a killed process is started again")
        return self.world.sees_frames()
