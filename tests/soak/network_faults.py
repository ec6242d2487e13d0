"""Faults of the network and the broker."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from tests.soak.injection import FaultGroup, Inject, Recovered
from tests.soak.plan import Fault
from tests.soak.world import PASSWORD, fulfilled

_LATE_SECONDS: Final = 0.5
_LONGEST_AWAY: Final = 60.0
_DIRECTIONS: Final = (frozenset({True}), frozenset({False}), frozenset({True, False}))
_RETAINED: Final = (
    ("pause", b'{"on":true}'),
    ("pause", b'{"on":false}'),
    ("pause", b"{"),
    ("reload", b""),
    ("verify", b""),
    ("fly", b""),
    ("verify", b"[" * 900),
    ("x" * 200, b"\xff"),
)


class NetworkFaults(FaultGroup):
    """Connections that break or are late, brokers that go away, a password that is wrong."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        broker, proxy = self.world.broker, self.world.proxy
        return {
            "network-cut": lambda fault: self._away(fault, proxy.cut, proxy.mend),
            "network-refused": lambda fault: self._away(fault, proxy.refuse, proxy.mend),
            "network-blackhole": self._blackhole,
            "network-slow": self._slow,
            "broker-restart": lambda fault: self._away(fault, broker.stop, broker.start),
            "broker-kill": lambda fault: self._away(fault, broker.kill, broker.start),
            "broker-frozen": lambda fault: self._away(fault, broker.freeze, broker.thaw),
            "wrong-password": self._wrong_password,
            "retained-commands": self._retained_commands,
            "outbox-full": self._outbox_full,
        }

    def _away(self, fault: Fault, begin: Callable[[], None], end: Callable[[], None]) -> Recovered:
        begin()
        self.hold(fault)
        acknowledged = self.world.is_acknowledged()
        end()
        return acknowledged

    def _blackhole(self, fault: Fault) -> Recovered:
        """What was lost never comes again, so the connections have to break in the end."""
        proxy = self.world.proxy
        proxy.lost = _DIRECTIONS[fault.variant % len(_DIRECTIONS)]
        self.hold(fault)
        proxy.cut()
        proxy.lost = frozenset()
        acknowledged = self.world.is_acknowledged()
        proxy.mend()
        return acknowledged

    def _slow(self, fault: Fault) -> Recovered:
        proxy = self.world.proxy
        proxy.delay = _LATE_SECONDS
        self.hold(fault)
        proxy.delay = 0.0
        return self.world.is_acknowledged()

    def _wrong_password(self, fault: Fault) -> Recovered:
        self.world.set_password("wrong")
        self.world.proxy.cut()
        self.world.proxy.mend()
        self.hold(fault)
        acknowledged = self.world.is_acknowledged()
        self.world.set_password(PASSWORD)
        return acknowledged

    def _retained_commands(self, fault: Fault) -> Recovered:
        """None of them is obeyed: a pause would close the camera, which the keeper would find."""
        operator, proxy = self.world.operator, self.world.proxy
        before, refused = proxy.connections, len(operator.replies)
        for name, payload in _RETAINED:
            operator.send(name, payload, retain=True)
        proxy.cut()
        proxy.mend()
        try:
            self.until(lambda: proxy.connections > before, "the device connects again")
            self.until(
                lambda: any(reply["error"] == "retained" for reply in operator.replies[refused:]),
                "a retained command is refused",
            )
        finally:
            for name, _ in _RETAINED:
                operator.send(name, b"", retain=True)
        return self.world.is_acknowledged()

    def _outbox_full(self, _fault: Fault) -> Recovered:
        """Meanwhile no command arrives, so a camera that other faults have closed stays closed: not for ever."""
        proxy, metrics = self.world.proxy, self.world.device.metrics
        before = metrics(of_now=True).get("fer_edge_outbox_dropped_total", 0.0)
        self.world.reachable_since = math.inf
        proxy.cut()
        fulfilled(lambda: metrics().get("fer_edge_outbox_dropped_total", before) > before, _LONGEST_AWAY, self._abort)
        acknowledged = self.world.is_acknowledged()
        proxy.mend()
        self.world.reachable_since = time.monotonic()
        return acknowledged
