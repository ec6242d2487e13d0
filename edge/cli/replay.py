"""``fer-edge replay``: print the events of a recording again."""

from argparse import Namespace

from edge.app.recording import events_of
from edge.events.factory import to_json
from edge.settings import load_settings


def replay(arguments: Namespace) -> int:
    """Carry out ``fer-edge replay``. Without settings the events are byte for byte those of the recorded run."""
    settings = load_settings(arguments.config) if arguments.config else None
    for event in events_of(arguments.recording, settings):
        print(to_json(event).decode(), flush=True)
    return 0
