"""The shipped unit file, as systemd-analyze rates it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.platform.roots import require_root

pytestmark = pytest.mark.slow


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as `service install` writes it, with an existing program."""
    require_root("systemd-analyze")
    file = tmp_path / "fer-edge.service"
    shipped = (ROOT / "systemd" / "fer-edge.service").read_text()
    file.write_text(shipped.replace("/opt/fer-edge", sys.prefix))
    return file


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit],
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_flood_of_lines_does_not_wear_the_memory_card(unit: Path) -> None:
    """A camera with damaged pictures writes twenty lines a second. journald multiplies the limit by six at most."""
    limit = re.search(r"^LogRateLimitIntervalSec=(\d+)min\nLogRateLimitBurst=(\d+)$", unit.read_text(), re.MULTILINE)
    assert limit, "the unit has no limit of its own, and journald's usual one is 333 lines a second"
    minutes, lines = map(int, limit.groups())
    assert 24 * 60 / minutes * lines * 6 < 100_000
    assert lines >= 200, "the watchdog's traceback of all threads, and what comes before it"


def test_systemd_rates_the_unit_as_little_exposed(unit: Path) -> None:
    rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit]
    done = subprocess.run(rate, check=False, capture_output=True, text=True)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
