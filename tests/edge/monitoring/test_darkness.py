import logging

import pytest

from edge.monitoring.darkness import DarknessWatch


def watch(flags: list[bool], watched: DarknessWatch) -> list[bool]:
    """What is said at each of these frames, one a second."""
    said = []
    for second, flag in enumerate(flags):
        watched.frame(float(second), too_dark=flag)
        said.append(watched.too_dark)
    return said


def test_each_change_is_told_once_after_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        said = watch([True] * 100 + [False] * 100, DarknessWatch())
    assert said == [False] * 10 + [True] * 100 + [False] * 90
    first, second = (record.message for record in caplog.records)
    assert "too dark" in first
    assert "bright enough" in second


def test_a_shadow_that_passes_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    assert not any(watch(([True] * 9 + [False]) * 10, DarknessWatch()))
    assert not caplog.records
