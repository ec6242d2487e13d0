"""Fixtures of the tests against a real broker."""

import pytest

from tests.conftest import Broker


@pytest.fixture
def persistent_broker(broker: Broker) -> Broker:
    """A broker that keeps all messages of persistent sessions, also from one orderly start to the next."""
    broker.stop()
    broker.options += f"\nmax_queued_messages 100000\npersistence true\npersistence_location {broker.folder}/"
    broker.start()
    return broker
