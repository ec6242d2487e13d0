"""Faults of the Edge TPU and of the process."""

import resource
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.soak.injection import Broken, FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_NO_CAMERA: Final = 5


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
            self.restart(kill=False, boot=True)
            self.until(lambda: world.accelerator == "edgetpu", "the Edge TPU computes after a boot")

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
        self.restart(kill=False, boot=True)
        self.until(lambda: world.accelerator == "cpu (degraded)", f"the CPU computes when the Edge TPU {mode}")
        self.hold(fault)
        world.standin.plays("present")
        return world.sees_frames()


class ProcessFaults(FaultGroup):
    """A process that is stopped, killed, doubled, robbed of its files, or given other settings."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "kill": lambda fault: self.restart(boot=bool(fault.variant % 2)),
            "terminated": self._terminated,
            "stopped": self._stopped,
            "hangs": self._hangs,
            "files-exhausted": self._files_exhausted,
            "run-vanishes": self._run_vanishes,
            "second-process": self._second_process,
            "settings-broken": self._settings_broken,
            "settings-changed": self._settings_changed,
        }

    def _terminated(self, _fault: Fault) -> Recovered:
        before = len(self.world.ends)
        recovered = self.restart(kill=False)
        end, _ = self.world.ends[before]
        if end.code != 0:
            raise Broken(f"SIGTERM ended the process with {end.code}")
        return recovered

    def _stopped(self, fault: Fault) -> Recovered:
        device = self.world.device
        pid = device.pid
        device.signal(signal.SIGSTOP)
        self.hold(fault)
        device.signal(signal.SIGCONT)
        sees_frames = self.world.sees_frames()
        return lambda: sees_frames() and device.pid == pid

    def _hangs(self, _fault: Fault) -> Recovered:
        device = self.world.device
        before = device.starts
        device.signal(signal.SIGSTOP)
        self.until(lambda: device.starts > before, "the watchdog ends a process that hangs")
        return self.world.sees_frames()

    def _files_exhausted(self, fault: Fault) -> Recovered:
        """It may keep what is open, and open nothing more. Only a camera that it must open then ends it, with 5."""
        world = self.world
        pid, ends = world.device.pid, len(world.ends)
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
        with world.blaming(fault.kind):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, usual[1]))
            self.hold(fault)
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            recovered = world.sees_frames()
            self.until(recovered, "it works when it may open files again")
        if codes := [end.code for end, _ in world.ends[ends:] if end.code != _NO_CAMERA]:
            raise Broken(f"the process ended with {codes[0]} because it could open no file more")
        return recovered

    def _run_vanishes(self, _fault: Fault) -> Recovered:
        shutil.rmtree(self.world.device.runtime)
        recovered = self.world.sees_frames()
        self.until(recovered, "it goes on without its folder in /run")
        self.world.device.runtime.mkdir()
        return recovered

    def _second_process(self, _fault: Fault) -> Recovered:
        with self.world.technician:
            done = self.world.fer_edge("run", "--events", "mqtt")
        if done.returncode != 18 or "Traceback" in done.stderr:
            raise Broken(f"a second process gave {done.returncode}: {done.stderr[-500:]}")
        return self.world.sees_frames()

    def _settings_broken(self, fault: Fault) -> Recovered:
        """A reload is refused, and a start ends with 3 until they can be read. So would a technician's commands."""
        world = self.world
        before, ends = len(world.operator.replies), len(world.ends)
        broken = ("[camera", "\0", 'nonsense = "x"\n', "[store]\nevents = -1\n", "x = " + "[" * 5000)
        with world.technician:
            world.write_settings(broken=broken[fault.variant % len(broken)])
            try:
                world.operator.send("reload", b'{"id":"broken"}')
                self.hold(fault)
                if any(reply["id"] == "broken" and reply["ok"] for reply in world.operator.replies[before:]):
                    raise Broken("a reload with settings that cannot be read was carried out")
                world.device.kill()
                self.until(
                    lambda: any(end.code == 3 for end, _ in world.ends[ends:]), "broken settings are refused (3)"
                )
            finally:
                world.write_settings()
        return world.sees_frames()

    def _settings_changed(self, fault: Fault) -> Recovered:
        self.world.write_settings(rate=1 + fault.variant % 20, statistics=1 + fault.variant % 5)
        recovered = self.restart(kill=False)
        self.until(recovered, "it works with other settings")
        self.world.write_settings()
        return recovered
