"""Injects every kind of fault. What the device does wrong in its answer raises Broken."""

import threading

from tests.soak.camera_faults import CameraFaults
from tests.soak.device_faults import EdgeTpuFaults, ProcessFaults
from tests.soak.hostile_faults import BrokerFaults, PageFaults
from tests.soak.injection import Recovered
from tests.soak.model_faults import ModelFaults
from tests.soak.network_faults import NetworkFaults
from tests.soak.operator_faults import ClockFaults, OperatorFaults
from tests.soak.plan import Fault
from tests.soak.storage_faults import DiskFaults, FileFaults
from tests.soak.world import World

_GROUPS = (
    NetworkFaults, BrokerFaults, PageFaults, CameraFaults, EdgeTpuFaults, ProcessFaults, DiskFaults, FileFaults,
    ModelFaults, ClockFaults, OperatorFaults,
)  # fmt: skip


class FaultInjector:
    """Injects faults into a world, from several threads; ``abort`` is set when the soak is given up."""

    def __init__(self, world: World, abort: threading.Event) -> None:
        self._kinds = {kind: inject for group in _GROUPS for kind, inject in group(world, abort).kinds.items()}

    def inject(self, fault: Fault) -> Recovered:
        """Bring a fault about, hold it, take its cause away; returns whether the device then has recovered."""
        return self._kinds[fault.kind](fault)
