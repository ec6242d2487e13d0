"""What the tests of the doctor's checks share."""

import sys

from edge.diagnostics.finding import Finding

PYTHON = (sys.executable,)


def level_of(finding: Finding) -> str:
    """The level; a finding that is not ok must have a remedy."""
    assert finding.level == "ok" or finding.remedy, finding
    return finding.level
