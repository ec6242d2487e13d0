"""A small version of `python -m tests.load`."""

import shutil
from pathlib import Path

import pytest

from tests.load import Load, run


@pytest.mark.slow
def test_fifty_devices_publish_lose_their_broker_and_all_come_back(tmp_path: Path) -> None:
    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    found = run(Load(50, rate=2.0, seconds=3.0, down=0.5, first_wait=2.0, longest_wait=4.0), tmp_path)
    assert found.events >= 200
    assert found.received == found.events
    assert found.latency_p50 < 2000, "a busy machine may be slow, but nothing waits for a second event"
    assert 0 < found.storm_half <= found.storm_all < 60
    assert found.storm_most_per_second < 50, "they do not come back all at once"
