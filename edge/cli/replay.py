"""``fer-edge replay``: print the events of a recording again."""

from argparse import Namespace

from edge.app.recording import events_of
from edge.app.reporters import print_message
from edge.settings import load_settings


def replay(arguments: Namespace) -> int:
    """Carry out ``fer-edge replay``. Without settings the events are byte for byte those of the recorded run."""
    settings = load_settings(arguments.config) if arguments.config else None
    for event in events_of(arguments.recording, settings):
        print_message(event)
    return 0
