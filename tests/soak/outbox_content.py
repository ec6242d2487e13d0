"""Reads an outbox's file after its process has ended."""

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

from edge.mqtt.outbox_inventory import InventoryFile, decode
from tests.soak.ledger import OutboxContent


def content_of(file: Path, acknowledged: int) -> OutboxContent | None:
    """What the outbox's file holds when its process has ended and the proxy had so many acknowledgements.

    None when it cannot be read: it was damaged, and the process has ended before it opened it.
    """
    copy = InventoryFile(file.with_name(f"{file.name}.inventory")).read()
    try:
        with closing(sqlite3.connect(file)) as db:
            [version] = db.execute("PRAGMA user_version").fetchone()
            if version == 0:  # the process was killed before it made the tables
                return OutboxContent(frozenset(), acknowledged=acknowledged)
            rows = db.execute(
                "SELECT id, CAST(payload AS BLOB), CAST(checksum AS INTEGER) FROM events ORDER BY id"
            ).fetchall()
    except sqlite3.DatabaseError:
        return None
    intact = [payload for number, payload, checksum in rows if checksum == _checksum(number, payload)]
    found = next(filter(None, map(decode, reversed(intact))), None)
    counters = found.counters if found else {}
    return OutboxContent(
        frozenset(json.loads(payload)["id"] for payload in intact if payload.startswith(b"{")),
        dropped=counters.get("dropped", 0),
        lost=counters.get("lost", 0),
        damaged=counters.get("damaged", 0),
        acknowledged=acknowledged,
        is_kept_twice=bool(found and copy and found.commits == copy.commits),
    )


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(b"%d" % number))
