"""How each kind of fault is brought about, and taken away again.

Each is a function of the world and the fault that returns, once the cause is gone, the condition that says that the
device has recovered. What goes wrong in the device's answer itself raises Broken.
"""

import threading
import time
from collections.abc import Callable
from random import Random
from typing import Final

from tests.soak.camera import Mode
from tests.soak.plan import Fault
from tests.soak.world import PASSWORD, World, steady

PATIENCE: Final = 120.0
"""Seconds that the device has to recover from anything; waiting of its own accord takes up to 60."""

_AGAIN_SECONDS: Final = 2.1  # the device takes one in two seconds
_YEAR: Final = 365 * 86400
_REFUSALS: Final = (4, 18, 23)  # damaged or not what its card says; no room; computes something else here

_BAD_COMMANDS: Final[tuple[tuple[str, bytes], ...]] = (
    ("fly", b""),
    ("..", b"{}"),
    ("pause", b""),
    ("pause", b"{"),
    ("pause", b'{"on":"yes"}'),
    ("pause", b'{"on":true,"file":"/etc/passwd"}'),
    ("verify", b"[" * 1000),
    ("verify", b'{"id":"' + b"x" * 100 + b'"}'),
    ("reload", b"\xff\xfe\x00"),
    ("reload", b'{"id":7}'),
    ("verify", b"x" * 4000),
)
_FLOOD: Final = 20

Recovered = Callable[[], bool]


class Broken(Exception):  # noqa: N818  it says what was found
    """The device did what it must not do."""


class Hands:
    """What inflicts the faults; ``ended`` is set when the soak is given up."""

    def __init__(self, world: World, ended: threading.Event) -> None:
        self._world = world
        self._ended = ended
        self._kinds: dict[str, Callable[[Fault], Recovered]] = {
            "network-cut": self._network_cut,
            "broker-restart": lambda fault: self._broker_away(fault, world.broker.stop),
            "broker-kill": lambda fault: self._broker_away(fault, world.broker.kill),
            "wrong-password": self._wrong_password,
            "camera-gone": lambda fault: self._camera(fault, "gone"),
            "camera-stalled": lambda fault: self._camera(fault, "stalled"),
            "camera-frozen": lambda fault: self._camera(fault, "frozen"),
            "camera-corrupt": self._camera_corrupt,
            "tpu-vanishes": self._tpu_vanishes,
            "tpu-hangs": self._tpu_hangs,
            "tpu-crashes": lambda fault: self._tpu_bad_at_start(fault, "crashes"),
            "tpu-wrong": lambda fault: self._tpu_bad_at_start(fault, "wrong"),
            "disk-full": self._disk_full,
            "disk-hangs": self._disk_hangs,
            "model-rots": self._model_rots,
            "kill": self._kill,
            "clock-back": lambda fault: self._clock(fault, -1),
            "clock-forward": lambda fault: self._clock(fault, 1),
            "bad-command": self._bad_command,
            "pause": self._pause,
            "bad-bundle": self._bad_bundle,
        }

    def inflict(self, fault: Fault) -> Recovered:
        """Bring it about, hold it, take its cause away; returns what then says that the device has recovered."""
        return self._kinds[fault.kind](fault)

    def _hold(self, fault: Fault) -> None:
        self._ended.wait(fault.hold)

    def _until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        if not steady(condition, seconds, self._ended) and not self._ended.is_set():
            raise Broken(f"not within {seconds:.0f} s: {what}")

    # The network

    def _network_cut(self, fault: Fault) -> Recovered:
        self._world.proxy.cut()
        self._hold(fault)
        heard = self._world.is_heard()
        self._world.proxy.mend()
        return heard

    def _broker_away(self, fault: Fault, end: Callable[[], None]) -> Recovered:
        end()
        self._hold(fault)
        heard = self._world.is_heard()
        self._world.broker.start()
        return heard

    def _wrong_password(self, fault: Fault) -> Recovered:
        self._world.set_password("wrong")
        self._world.proxy.cut()
        self._world.proxy.mend()
        self._hold(fault)
        heard = self._world.is_heard()
        self._world.set_password(PASSWORD)
        return heard

    # The camera

    def _camera(self, fault: Fault, mode: Mode) -> Recovered:
        """The process ends, with the code of its reason, until the camera works again."""
        world = self._world
        before = world.device.starts
        world.camera.mode = mode
        try:
            self._until(lambda: world.device.starts > before, f"the process ends because the camera is {mode}")
            self._hold(fault)
        finally:
            world.camera.mode = "works"
        return world.sees()

    def _camera_corrupt(self, fault: Fault) -> Recovered:
        self._world.camera.mode = "corrupt"
        self._hold(fault)
        self._world.camera.mode = "works"
        return self._world.sees()

    # The Edge TPU

    def _tpu_computes(self) -> None:
        """As after a boot with a healthy one: an Edge TPU that was lost is tried again after many minutes only."""
        world = self._world
        world.standin.plays("present")
        if world.accelerator != "edgetpu":
            self._boot()
            self._until(lambda: world.accelerator == "edgetpu", "the Edge TPU computes after a boot")

    def _boot(self) -> None:
        before = self._world.device.starts
        self._world.device.stop(boot=True)
        self._until(lambda: self._world.device.starts > before, "the process ends in order and is started again")

    def _tpu_vanishes(self, fault: Fault) -> Recovered:
        world = self._world
        self._tpu_computes()
        world.standin.plays("vanished")
        self._until(lambda: world.accelerator == "cpu (degraded)", "the CPU takes over")
        self._hold(fault)
        world.standin.plays("present")
        return world.sees()

    def _tpu_hangs(self, fault: Fault) -> Recovered:
        """The watchdog ends the process, and the next one computes on the CPU."""
        world = self._world
        self._tpu_computes()
        before = world.device.starts
        world.standin.plays("hangs")
        self._until(lambda: world.device.starts > before, "the watchdog ends a process that hangs")
        self._hold(fault)
        sees = world.sees()
        return lambda: sees() and world.accelerator == "cpu (degraded)"

    def _tpu_bad_at_start(self, fault: Fault, mode: str) -> Recovered:
        world = self._world
        world.standin.plays(mode)
        self._boot()
        self._until(lambda: world.accelerator == "cpu (degraded)", f"the CPU computes when the Edge TPU {mode}")
        self._hold(fault)
        world.standin.plays("present")
        return world.sees()

    # Disk, model, process

    def _disk_full(self, fault: Fault) -> Recovered:
        return self._disk_fails(fault, self._disk.fill, self._disk.empty)

    def _disk_hangs(self, fault: Fault) -> Recovered:
        return self._disk_fails(fault, self._disk.hang, self._disk.go_on)

    @property
    def _disk(self):  # noqa: ANN202
        assert self._world.disk, "the plan has no such fault where there is no disk"
        return self._world.disk

    def _disk_fails(self, fault: Fault, begin: Callable[[], None], end: Callable[[], None]) -> Recovered:
        try:
            begin()
            self._hold(fault)
        finally:
            end()
        sees = self._world.sees()
        return lambda: self._world.device.metrics().get("fer_edge_outbox_durable") == 1 and sees()

    def _model_rots(self, fault: Fault) -> Recovered:
        world = self._world
        model = world.standin.bundle / "model.tflite"
        sound = model.read_bytes()
        rotten = bytearray(sound)
        rotten[fault.variant % len(rotten)] ^= 1 << fault.variant % 8
        model.write_bytes(rotten)
        try:
            before = len(world.ends)
            world.device.kill()
            self._until(lambda: any(end.code == 4 for end, _ in world.ends[before:]), "a damaged model is refused (4)")
            self._hold(fault)
        finally:
            model.write_bytes(sound)
        return world.sees()

    def _kill(self, fault: Fault) -> Recovered:
        before = self._world.device.starts
        self._world.device.kill(boot=bool(fault.variant % 2))
        self._until(lambda: self._world.device.starts > before, "a killed process is started again")
        return self._world.sees()

    # The clock

    def _clock(self, fault: Fault, sign: int) -> Recovered:
        """By seconds, minutes, hours, days or a year; the last frame's time then is the new one."""
        world = self._world
        step = Random(fault.variant).choice((3, 120, 3600, 86_400, _YEAR))
        # It stays between the years: a clock that is set a thousand times in one direction is another one's.
        world.set_clock(
            sign * step if abs(world.added_seconds + sign * step) > _YEAR else world.added_seconds + sign * step
        )
        self._hold(fault)
        sees = world.sees()

        def recovered() -> bool:
            told = world.device.metrics().get("fer_edge_last_frame_timestamp_seconds", 0.0)
            return sees() and abs(told - time.time() - world.added_seconds) < 2

        return recovered

    # The operator

    def _bad_command(self, fault: Fault) -> Recovered:
        """Is answered by a refusal; asked again when nothing comes, since nobody keeps commands."""
        name, payload = _BAD_COMMANDS[fault.variant % len(_BAD_COMMANDS)]
        count = _FLOOD if fault.variant % 10 == 0 else 1
        return self._asked(name, payload, lambda reply: reply["ok"] is False, count)

    def _pause(self, fault: Fault) -> Recovered:
        on = self._asked("pause", b'{"on":true,"id":"p%d"}' % fault.number, _done(f"p{fault.number}"))
        self._until(on, "the camera is paused by a command")
        self._hold(fault)
        off = self._asked("pause", b'{"on":false,"id":"o%d"}' % fault.number, _done(f"o{fault.number}"))
        self._until(off, "a command ends the pause")
        return self._world.sees()

    def _asked(
        self, name: str, payload: bytes, wanted: Callable[[dict[str, object]], bool], count: int = 1
    ) -> Recovered:
        operator = self._world.operator
        before = len(operator.replies)
        due = 0.0

        def recovered() -> bool:
            nonlocal due
            if any(wanted(reply) for reply in operator.replies[before:]):
                return True
            if time.monotonic() >= due:
                due = time.monotonic() + _AGAIN_SECONDS
                for _ in range(count):
                    operator.send(name, payload)
            return False

        return recovered

    def _bad_bundle(self, fault: Fault) -> Recovered:
        world = self._world
        bundle = world.bad_bundles[fault.variant % len(world.bad_bundles)]
        before = world.choice()
        done = world.fer_edge("model", "install", str(bundle), "--no-restart")
        if done.returncode not in _REFUSALS or "Traceback" in done.stderr:
            raise Broken(f"installing {bundle.name} gave {done.returncode}: {done.stderr[-500:]}")
        if world.choice() != before:
            raise Broken(f"installing {bundle.name} changed which model is in use")
        return lambda: True


def _done(name: str) -> Callable[[dict[str, object]], bool]:
    return lambda reply: reply["id"] == name and reply["ok"] is True
