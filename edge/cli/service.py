"""``fer-edge service``: make this virtual environment a systemd service, remove it again, show its state.

Installing and removing are lists of steps (edge.system.installer). ``--dry-run`` prints the list; without it, the same
list is carried out.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from edge.errors import UsageError
from edge.system.installer import (
    SHOWN_PROPERTIES,
    Machine,
    Run,
    Step,
    can_read_settings,
    describe,
    install_steps,
    run_command,
    running_instances,
    uninstall_steps,
)
from edge.system.instance import FIRST, TEMPLATE, Instance, installed_instances, parse_instance


def install_service(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service install``."""
    machine = machine or Machine()
    if arguments.from_package:
        return _install_from_package(arguments, machine, run)
    instance = parse_instance(arguments.instance)
    machine.require_systemd()
    machine.require_visible()
    _require_rights(arguments, machine, [instance])
    _carry_out(arguments, machine, run, install_steps(machine, [instance]))
    if not arguments.dry_run:
        settings = machine.root / instance.config_file
        print(f"Installed and started. Settings: {settings}; state: fer-edge service status{instance.option}")
    return 0


def _install_from_package(arguments: Namespace, machine: Machine, run: Run) -> int:
    """Install as a Debian package is expected to: also where systemd does not run, and without enabling again."""
    upgrade = any((machine.root / kind.unit_file).exists() for kind in (FIRST, TEMPLATE))
    instances = _packaged_instances(machine, run) if upgrade else [FIRST]
    _require_rights(arguments, machine, instances)
    _carry_out(arguments, machine, run, install_steps(machine, instances, upgrade=upgrade))
    return 0


def _packaged_instances(machine: Machine, run: Run) -> list[Instance]:
    """The instances whose program a package replaces or removes: those that are enabled or run."""
    return list(dict.fromkeys([*installed_instances(machine.root), *running_instances(machine, run)]))


def uninstall_service(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service uninstall``."""
    machine = machine or Machine()
    if arguments.from_package:
        _require_rights(arguments, machine, [])
        _carry_out(arguments, machine, run, uninstall_steps(machine, _packaged_instances(machine, run)))
        return 0
    instance = parse_instance(arguments.instance)
    machine.require_systemd()
    if instance.name and not (machine.root / instance.config_file).exists():
        existing = ", ".join(one.name for one in installed_instances(machine.root) if one.name) or "none"
        raise UsageError(f"--instance {instance.name}: there is no such service; those with a name: {existing}")
    _require_rights(arguments, machine, [])
    _carry_out(arguments, machine, run, uninstall_steps(machine, [instance]))
    if not arguments.dry_run:
        settings = (machine.root / instance.config_file).parent
        print(f"Removed. Kept, for you to delete: {settings}, {instance.state} and the user fer-edge")
    return 0


def service_status(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service status``: 0 when the service is up and has processed a frame, else 1."""
    machine = machine or Machine()
    instance = parse_instance(arguments.instance)
    machine.require_systemd()
    output = run(("systemctl", "show", instance.unit, f"--property={','.join(SHOWN_PROPERTIES)}"))
    status = describe(dict(line.split("=", 1) for line in output.splitlines() if "=" in line))
    print(json.dumps(status) if arguments.json else _as_text(status))
    return 0 if status["state"] == "active" else 1


def _require_rights(arguments: Namespace, machine: Machine, instances: Sequence[Instance]) -> None:
    """Raise UsageError when this user may not carry out the steps, or read the settings that they depend on."""
    if not (arguments.dry_run and can_read_settings(machine, instances)):
        option = " --dry-run" if arguments.dry_run else ""
        machine.require_root(f"{arguments.action}{parse_instance(arguments.instance).option}{option}")


def _carry_out(arguments: Namespace, machine: Machine, run: Run, steps: list[Step]) -> None:
    for step in steps:
        print(step)
        if not arguments.dry_run:
            step.apply(run)


def _as_text(status: dict[str, Any]) -> str:
    lines = [
        f"state     {status['state']} ({status['sub_state']}), {'enabled' if status['enabled'] else 'not enabled'}",
        f"status    {status['status'] or '-'}",
        f"restarts  {status['restarts']}",
    ]
    if status["exit_meaning"]:
        code = "" if status["exit_code"] is None else f"{status['exit_code']}: "
        lines.append(f"last end  {code}{status['exit_meaning']}")
    return "\n".join(lines)
