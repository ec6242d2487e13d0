"""``fer-edge service``: make this virtual environment a systemd service, remove it again, show its state.

Installing and removing are lists of steps (edge.system.installer). ``--dry-run`` prints the list; without it, the same
list is carried out.
"""

import json
from argparse import Namespace
from typing import Any

from edge.system.installer import (
    CONFIG_FILE,
    SHOWN_PROPERTIES,
    UNIT,
    Machine,
    Run,
    Step,
    describe,
    install_steps,
    run_command,
    uninstall_steps,
)


def install_service(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service install``."""
    machine = machine or Machine()
    machine.require_systemd()
    machine.require_visible()
    _carry_out(arguments, machine, run, install_steps(machine))
    if not arguments.dry_run:
        print(f"Installed and started. Settings: {machine.root / CONFIG_FILE}; state: fer-edge service status")
    return 0


def uninstall_service(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service uninstall``."""
    machine = machine or Machine()
    machine.require_systemd()
    _carry_out(arguments, machine, run, uninstall_steps(machine))
    if not arguments.dry_run:
        print("Removed. Kept, for you to delete: /etc/fer-edge, /var/lib/fer-edge and the user fer-edge")
    return 0


def service_status(arguments: Namespace, machine: Machine | None = None, run: Run = run_command) -> int:
    """Carry out ``fer-edge service status``: 0 when the service is up and has processed a frame, else 1."""
    machine = machine or Machine()
    machine.require_systemd()
    output = run(("systemctl", "show", UNIT, f"--property={','.join(SHOWN_PROPERTIES)}"))
    status = describe(dict(line.split("=", 1) for line in output.splitlines() if "=" in line))
    print(json.dumps(status) if arguments.json else _as_text(status))
    return 0 if status["state"] == "active" else 1


def _carry_out(arguments: Namespace, machine: Machine, run: Run, steps: list[Step]) -> None:
    if not arguments.dry_run:
        machine.require_root(arguments.action)
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
