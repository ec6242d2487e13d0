"""Faults that come from outside: a clock that is set, commands, and bundles that must be refused."""

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from tests.soak.injection import Broken, FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_RESEND_SECONDS: Final = 2.1  # the device accepts one command every two seconds
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
    ("pause", b"\0" * 7000),  # the broker keeps from the device what is larger than it takes (8192)
)
_FLOOD: Final = 20


class ClockFaults(FaultGroup):
    """A wall clock that is set back or forward."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "clock-back": lambda fault: self._clock(fault, -1),
            "clock-forward": lambda fault: self._clock(fault, 1),
        }

    def _clock(self, fault: Fault, sign: int) -> Recovered:
        """Set it by seconds, minutes, hours, days or a year; recovered when a frame has the new time."""
        world = self.world
        step = Random(fault.variant).choice((3, 120, 3600, 86_400, _YEAR))
        # It stays within a year of the real time, however often it is set in one direction.
        world.set_clock(
            sign * step if abs(world.added_seconds + sign * step) > _YEAR else world.added_seconds + sign * step
        )
        self.hold(fault)
        sees_frames = world.sees_frames()

        def recovered() -> bool:
            last_frame = world.device.metrics().get("fer_edge_last_frame_timestamp_seconds", 0.0)
            return sees_frames() and abs(last_frame - time.time() - world.added_seconds) < 2

        return recovered


class OperatorFaults(FaultGroup):
    """Commands and bundles that are wrong, and pauses."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "bad-command": self._bad_command,
            "command-flood": self._flood,
            "verify": self._verify,
            "pause": self._pause,
            "bad-bundle": self._bad_bundle,
        }

    def _bad_command(self, fault: Fault) -> Recovered:
        """Recovered when a refusal has come; sent again until then, because commands are not stored anywhere."""
        name, payload = _BAD_COMMANDS[fault.variant % len(_BAD_COMMANDS)]
        return self._sent(name, payload, _refused)

    def _flood(self, fault: Fault) -> Recovered:
        """Bad commands, or valid ones at a rate that is refused."""
        name, payload = (*_BAD_COMMANDS, ("verify", b""))[fault.variant % (len(_BAD_COMMANDS) + 1)]
        return self._sent(name, payload, _refused, _FLOOD)

    def _verify(self, fault: Fault) -> Recovered:
        name = f"v{fault.number}"
        return self._sent("verify", b'{"id":"%s"}' % name.encode(), lambda reply: reply["id"] == name)

    def _pause(self, fault: Fault) -> Recovered:
        world = self.world
        world.operator.wants_open = False
        world.operator.pauses += 1
        begun = self._sent("pause", b'{"on":true,"id":"p%d"}' % fault.number, _succeeded(f"p{fault.number}"))
        self.until(begun, "the camera is paused by a command")
        opened = world.camera.opened
        self.hold(fault)
        if world.camera.opened != opened:
            raise Broken("the camera was opened while it was paused")
        ended = self._sent("pause", b'{"on":false,"id":"o%d"}' % fault.number, _succeeded(f"o{fault.number}"))
        self.until(ended, "a command ends the pause")
        world.opened()
        world.operator.wants_open = True
        return world.sees_frames()

    def _sent(
        self, name: str, payload: bytes, wanted: Callable[[dict[str, object]], bool], count: int = 1
    ) -> Recovered:
        operator = self.world.operator
        before = len(operator.replies)
        due = 0.0

        def recovered() -> bool:
            nonlocal due
            if any(wanted(reply) for reply in operator.replies[before:]):
                return True
            if time.monotonic() >= due:
                due = time.monotonic() + _RESEND_SECONDS
                for _ in range(count):
                    operator.send(name, payload)
            return False

        return recovered

    def _bad_bundle(self, fault: Fault) -> Recovered:
        world = self.world
        bundle = world.bad_bundles[fault.variant % len(world.bad_bundles)]
        with world.technician:
            before = world.choice()
            done = world.fer_edge("model", "install", str(bundle), "--no-restart")
            after = world.choice()
        if done.returncode not in _REFUSALS or "Traceback" in done.stderr:
            raise Broken(f"installing {bundle.name} gave {done.returncode}: {done.stderr[-500:]}")
        if after != before:
            raise Broken(f"installing {bundle.name} changed which model is in use")
        return lambda: True


def _refused(reply: dict[str, object]) -> bool:
    return reply["ok"] is False


def _succeeded(name: str) -> Callable[[dict[str, object]], bool]:
    return lambda reply: reply["id"] == name and reply["ok"] is True
