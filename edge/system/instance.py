"""The service of this machine and further instances of it, each with its own unit, settings, secrets and state."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import UsageError
from edge.system.state import INSTALLED_CONFIG, SERVICE_STATE

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_RESERVED: Final = frozenset({"models"})  # a folder of the first service's state


@dataclass(frozen=True)
class Instance:
    """One service. ``name`` is empty for the first one, ``fer-edge.service``; its paths begin at the root folder."""

    name: str = ""

    @property
    def unit(self) -> str:
        """What systemctl calls it."""
        return f"fer-edge@{self.name}.service" if self.name else "fer-edge.service"

    @property
    def unit_file(self) -> str:
        """The file of its unit; all instances with a name share the template."""
        return f"etc/systemd/system/fer-edge{'@' if self.name else ''}.service"

    @property
    def config_file(self) -> str:
        """Its settings file. Its secrets lie beside it."""
        return str(INSTALLED_CONFIG.parent.relative_to("/") / self.name / INSTALLED_CONFIG.name)

    @property
    def state(self) -> Path:
        """Its state folder."""
        return SERVICE_STATE / self.name

    @property
    def option(self) -> str:
        """What commands are given to mean this instance."""
        return f" --instance {self.name}" if self.name else ""

    def unit_text(self, shipped: str) -> str:
        """Its unit, from the shipped one. The template of the named instances differs only in its folders."""
        if not self.name:
            return shipped
        text = shipped.replace("/etc/fer-edge/", "/etc/fer-edge/%i/").replace("Description=", "Description=%i: ")
        # systemd removes a runtime directory with all that is in it, so one must not lie in another.
        text = text.replace("RuntimeDirectory=fer-edge", "RuntimeDirectory=fer-edge-%i")
        return re.sub("^(State|Configuration)Directory=fer-edge", r"\g<0>/%i", text, flags=re.MULTILINE)

    def sample_text(self, shipped: str) -> str:
        """Its sample settings, from the shipped ones. A named instance has a device name of its own."""
        return shipped.replace('#device = ""', f'device = "{{board}}-{self.name}"') if self.name else shipped


NAMED_UNITS: Final = "fer-edge@*.service"
"""Matches the units of all named instances."""

FIRST: Final = Instance()
TEMPLATE: Final = Instance("NAME")
"""Stands for all that have a name, where only their common unit file matters."""


def parse_instance(name: str | None) -> Instance:
    """The instance of this name, None for the first one. Raises UsageError when it cannot be a name."""
    if name is None:
        return FIRST
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"--instance {name!r}: give up to 32 lower-case letters, digits and dashes, not beginning with a dash, and "
            f"not {' or '.join(_RESERVED)}"
        )
    return Instance(name)


def instance_of(config: Path | None) -> Instance | None:
    """The instance whose settings file this is; None when it is none's."""
    file = Path(os.path.realpath(config)) if config else Path()  # Path.resolve raises for links in a circle
    if file == INSTALLED_CONFIG:
        return FIRST
    named = file.name == INSTALLED_CONFIG.name and file.parent.parent == INSTALLED_CONFIG.parent
    return Instance(file.parent.name) if named else None


def installed_instances(root: Path) -> list[Instance]:
    """The first service, if the machine with this root folder has its unit, and the named ones that are enabled."""
    links = sorted((root / TEMPLATE.unit_file).parent.glob(f"*.wants/{NAMED_UNITS}"))
    named = [Instance(name_of_unit(link.name)) for link in links]
    return [FIRST, *named] if (root / FIRST.unit_file).exists() else named


def name_of_unit(unit: str) -> str:
    """The name of a named instance's unit."""
    return unit.removesuffix(".service").partition("@")[2]


def service_environ(config: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which a command uses a service's state folder, if it uses that service's settings file."""
    instance = instance_of(config)
    return {"STATE_DIRECTORY": str(instance.state), **environ} if instance else environ
