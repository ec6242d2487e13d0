"""Damaged models, and links in their folder."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from tests.soak.damage import How, damage
from tests.soak.injection import Broken, FaultGroup, Inject, Recovered
from tests.soak.link_attack import VARIANTS, attack, look_of, precious_folder
from tests.soak.plan import Fault


class ModelFaults(FaultGroup):
    """Damaged models and choices: the service falls back to another model."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "model-rots": self._model_rots,
            "installed-rots": lambda fault: self._installed(fault, self._rot),
            "installed-lost": lambda fault: self._installed(fault, self._remove),
            "choice-flips": lambda fault: self._installed(fault, partial(self._harm_choice, how="flips")),
            "choice-lost": lambda fault: self._installed(fault, partial(self._harm_choice, how="lost")),
            "models-linked": self._models_linked,
        }

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

    def _installed(self, fault: Fault, harm: Callable[[Fault], None]) -> Recovered:
        world = self.world
        world.write_settings(bundle=False)
        with world.technician:
            recovered = self.restart(then=lambda: harm(fault))
            self.until(recovered, "it works with this or another model")
            world.write_settings()
            return self.restart(kill=False, then=world.restore_models)

    @property
    def _current(self) -> Path:
        return self.world.models / msgspec.json.decode(self.world.choice())["current"]

    def _rot(self, fault: Fault) -> None:
        files = sorted(self._current.iterdir())
        damage(files[fault.variant % len(files)], "flips", fault.variant)

    def _remove(self, _fault: Fault) -> None:
        shutil.rmtree(self._current)

    def _harm_choice(self, fault: Fault, how: How) -> None:
        damage(self.world.models / "choice.json", how, fault.variant)

    def _models_linked(self, fault: Fault) -> Recovered:
        """Whatever root's installation does with such links, it changes no file of root."""
        world = self.world
        precious = precious_folder(world.folder / "precious")
        before = look_of(precious)
        with world.technician, attack(world.state, precious, fault.variant):
            done = world.fer_edge("model", "install", str(world.standin.bundle), "--no-restart")
        if "Traceback" in done.stderr:
            raise Broken(f"installing over a link gave {done.returncode}: {done.stderr[-500:]}")
        if look_of(precious) != before:
            raise Broken(f"installing over a link (variant {fault.variant % VARIANTS}) changed files of root")
        return world.sees_frames()
