"""``fer-edge doctor``: check this device, and print one line for each check."""

import json
import os
from argparse import Namespace

from edge.diagnostics.doctor import examine
from edge.diagnostics.finding import Finding
from edge.system.instance import instance_of


def doctor(arguments: Namespace) -> int:
    """Carry out ``fer-edge doctor``. Returns 1 when a check fails, else 0; a warning is no failure."""
    config = arguments.config
    if instance_of(config):
        config = config.resolve()
        os.chdir("/")  # a service looks there for files whose names do not begin with /
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not arguments.json:
            print(format_finding(finding), flush=True)
    if arguments.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def format_finding(finding: Finding) -> str:
    """One aligned line for a person, and the remedy below it."""
    line = f"{finding.level:4}  {finding.name:10}  {finding.sentence}"
    return f"{line}\n{'':18}-> {finding.remedy}" if finding.remedy else line
