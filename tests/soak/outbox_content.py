"""Reads an outbox's file after its process has ended."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from edge.mqtt.outbox_inventory import decode
from tests.soak.ledger import OutboxContent


def content_of(file: Path, acknowledged: int) -> OutboxContent:
    """What the outbox's file holds when its process has ended and the proxy had so many acknowledgements."""
    with closing(sqlite3.connect(file)) as db:
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version == 0:  # the process was killed before it made the tables
            return OutboxContent(frozenset(), 0, 0, acknowledged)
        *events, inventory = [payload for [payload] in db.execute("SELECT payload FROM events ORDER BY id")] or [b""]
        ids = frozenset(json.loads(payload)["id"] for payload in events)
        found = decode(inventory)
        counters = found.counters if found else {}
    return OutboxContent(ids, counters.get("dropped", 0), counters.get("damaged", 0), acknowledged)
