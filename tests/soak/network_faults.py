"""Faults of the network and the broker."""

from collections.abc import Callable, Mapping

from tests.soak.injection import FaultGroup, Inject, Recovered
from tests.soak.plan import Fault
from tests.soak.world import PASSWORD


class NetworkFaults(FaultGroup):
    """Connections that break, brokers that go away, a password that is wrong."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        broker = self.world.broker
        return {
            "network-cut": self._network_cut,
            "broker-restart": lambda fault: self._broker_away(fault, broker.stop),
            "broker-kill": lambda fault: self._broker_away(fault, broker.kill),
            "wrong-password": self._wrong_password,
        }

    def _network_cut(self, fault: Fault) -> Recovered:
        self.world.proxy.cut()
        self.hold(fault)
        acknowledged = self.world.is_acknowledged()
        self.world.proxy.mend()
        return acknowledged

    def _broker_away(self, fault: Fault, end: Callable[[], None]) -> Recovered:
        end()
        self.hold(fault)
        acknowledged = self.world.is_acknowledged()
        self.world.broker.start()
        return acknowledged

    def _wrong_password(self, fault: Fault) -> Recovered:
        self.world.set_password("wrong")
        self.world.proxy.cut()
        self.world.proxy.mend()
        self.hold(fault)
        acknowledged = self.world.is_acknowledged()
        self.world.set_password(PASSWORD)
        return acknowledged
