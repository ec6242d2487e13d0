"""Injects every kind of fault. What the device does wrong in its answer raises Broken."""

import threading

from tests.soak.device_faults import CameraFaults, EdgeTpuFaults, ProcessFaults, StorageFaults
from tests.soak.injection import Recovered
from tests.soak.network_faults import NetworkFaults
from tests.soak.operator_faults import ClockFaults, OperatorFaults
from tests.soak.plan import Fault
from tests.soak.world import World

_GROUPS = (NetworkFaults, CameraFaults, EdgeTpuFaults, StorageFaults, ProcessFaults, ClockFaults, OperatorFaults)


class FaultInjector:
    """Injects faults into a world, from several threads; ``abort`` is set when the soak is given up."""

    def __init__(self, world: World, abort: threading.Event) -> None:
        self._kinds = {kind: inject for group in _GROUPS for kind, inject in group(world, abort).kinds.items()}

    def inject(self, fault: Fault) -> Recovered:
        """Bring a fault about, hold it, take its cause away; returns whether the device then has recovered."""
        return self._kinds[fault.kind](fault)
