"""A worn card, a copied or an emptied file: every committed event is delivered, or counted as lost."""

import contextlib
import random
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.mqtt.outbox import Outbox
from edge.mqtt.outbox_inventory import IdSet, decode, encode, first_inventory
from tests.conftest import Broker, wait_until
from tests.edge.mqtt.delivery import device, persistent_session

FRAME = 24 + 2048
"""Bytes of a frame of SQLite's log, which follows a header of 32 bytes."""
COUNTS = (55, 79)


@dataclass(frozen=True)
class Kiosk:
    """The files that ``kill -9`` has left, which ``copy`` copies anew for each damage, and what was delivered."""

    folder: Path
    delivered: frozenset[bytes]
    committed: int

    @property
    def log(self) -> bytes:
        return (self.folder / "outbox.db-wal").read_bytes()

    def copy(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return folder / "outbox.db"


@pytest.fixture(params=COUNTS)
def kiosk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kiosk]:
    """So many events wait; nine were delivered, some of them after later ones."""
    file = tmp_path / "running" / "outbox.db"
    outbox = Outbox(file, 1000)
    chance = random.Random(request.param)
    delivered = set()
    for number in range(request.param + 9):
        if number == 40:
            shutil.copytree(file.parent, tmp_path / "earlier")
        outbox.add([b"%d %s" % (number, chance.randbytes(330))])
        if number in (3, 8, 20):
            events = outbox.take(100)
            for event in chance.sample(events, 3):
                outbox.acknowledge(event.id)
                delivered.add(event.payload)
            outbox.start_over()
    assert outbox.figures.waiting == request.param
    shutil.copytree(file.parent, tmp_path / "killed")
    yield Kiosk(tmp_path / "killed", frozenset(delivered), request.param + 9)
    outbox.close()


def drain(file: Path) -> tuple[list[bytes], int]:
    """What the next two processes deliver, and how many events are counted as lost then."""
    found = []
    for _ in range(2):
        outbox = Outbox(file, 1000)
        while events := outbox.take(10):
            found += [event.payload for event in events]
            for event in events:
                outbox.acknowledge(event.id)
        assert outbox.figures.waiting == 0
        lost = outbox.figures.lost
        outbox.close()
    return found, lost


def assert_counted(kiosk: Kiosk, file: Path) -> int:
    found, lost = drain(file)
    assert len(found) == len(set(found)), "delivered once"
    assert not kiosk.delivered & set(found), "an earlier state of the file brings nothing back"
    assert len(kiosk.delivered) + len(found) + lost == kiosk.committed
    assert [int(one.split()[0]) for one in found] == sorted(int(one.split()[0]) for one in found)
    return lost


def flip(content: bytes, at: int, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_without_damage_nothing_is_lost(kiosk: Kiosk, tmp_path: Path) -> None:
    assert assert_counted(kiosk, kiosk.copy(tmp_path / "next")) == 0


def test_a_flipped_bit_in_any_page_of_the_log(kiosk: Kiosk, tmp_path: Path) -> None:
    chance = random.Random(1)
    places = [chance.randrange(32)]
    for start in range(32, len(kiosk.log), FRAME):
        places += [start + chance.randrange(24), start + 24 + chance.randrange(2048)]
    losses = []
    for place in places:
        file = kiosk.copy(tmp_path / "next")
        file.with_name("outbox.db-wal").write_bytes(flip(kiosk.log, place, chance))
        losses.append(assert_counted(kiosk, file))
    assert max(losses) > 0
    assert max(losses) <= 32, "the log is moved to the file so early that no more are in it"


def test_a_log_cut_anywhere(kiosk: Kiosk, tmp_path: Path) -> None:
    chance = random.Random(2)
    sizes = [0, 10, 32, *(start + chance.choice((0, 10, 1000)) for start in range(32, len(kiosk.log), 3 * FRAME))]
    for size in sizes:
        file = kiosk.copy(tmp_path / "next")
        file.with_name("outbox.db-wal").write_bytes(kiosk.log[:size])
        assert_counted(kiosk, file)


def test_a_log_that_is_gone_is_in_the_log_and_the_figures(
    kiosk: Kiosk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = kiosk.copy(tmp_path / "next")
    file.with_name("outbox.db-wal").unlink()
    outbox = Outbox(file, 1000)
    lost = outbox.figures.lost
    assert 0 < lost < kiosk.committed
    assert f"was damaged. Events that waited in it and are lost: {lost}." in outbox.disk.damage
    assert outbox.disk.damage in caplog.text
    outbox.close()
    assert assert_counted(kiosk, file) == lost, "counted for ever, and once"
    assert Outbox(file, 1000).disk.damage == "", "said by the process that found it"


@pytest.mark.parametrize("log", ["kept", "gone"])
@pytest.mark.parametrize("damage", ["empty", "gone", "other", "new", "earlier", "rows"])
def test_an_emptied_or_replaced_file(kiosk: Kiosk, tmp_path: Path, damage: str, log: str) -> None:
    file = kiosk.copy(tmp_path / "next")
    if log == "gone":
        file.with_name("outbox.db-wal").unlink()
    others = []
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "gone":
            file.unlink()
        case "earlier":
            for name in ("outbox.db", "outbox.db-wal"):
                shutil.copy(tmp_path / "earlier" / name, file.with_name(name))
        case "other" | "new":
            other = Outbox(tmp_path / "other" / "outbox.db", 1000)
            if damage == "other":
                others = [b"other %d" % number for number in range(90)]
                for event in others:
                    other.add([event])
            other.close()
            shutil.copy(tmp_path / "other" / "outbox.db", file)
            file.with_name("outbox.db-wal").unlink(missing_ok=True)
        case "rows":
            with contextlib.closing(sqlite3.connect(file)) as db, db:
                db.execute("DELETE FROM events WHERE id > 20")
    found, lost = drain(file)
    own = [event for event in found if event not in others]
    assert len(found) - len(own) == len(others), "what another outbox has kept is delivered too"
    assert len(kiosk.delivered | set(own)) + lost == kiosk.committed


def test_flipped_bits_in_the_file_itself(kiosk: Kiosk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(3)
    whole = kiosk.copy(tmp_path / "next")
    with contextlib.closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = whole.read_bytes()
    schema = next(at for at in range(100, 2048) if content[at : at + 5] == b"table")
    places = [18, 19, 47, *chance.sample(range(16, 100), 10), *chance.sample(range(schema, 2048), 10)]
    places += [chance.randrange(page, page + 2048) for page in range(2048, len(content), 2048) for _ in range(4)]
    outcomes = set()
    for place in places:
        file = kiosk.copy(tmp_path / "next")
        file.with_name("outbox.db-wal").unlink()
        file.write_bytes(flip(content, place, chance))
        caplog.clear()
        lost = assert_counted(kiosk, file)
        aside = file.with_name("outbox.db.damaged").exists()
        outcomes.add((aside, lost > 0))
        if aside:
            assert f"set aside as outbox.db.damaged with {kiosk.committed - 9} events" in caplog.text
    assert (False, True) in outcomes, "a flipped payload is counted and not sent"


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_inventory_costs_nothing(kiosk: Kiosk, tmp_path: Path, damage: str) -> None:
    file = kiosk.copy(tmp_path / "next")
    inventory = file.with_name("outbox.db.inventory")
    match damage:
        case "gone":
            inventory.unlink()
        case "cut":
            inventory.write_bytes(inventory.read_bytes()[:20])
        case "flipped":
            stored = flip(inventory.read_bytes(), 30, random.Random(4))
            inventory.write_bytes(flip(stored, 4096 + 30, random.Random(5)))
    assert assert_counted(kiosk, file) == 0


def test_counts_survive_a_file_that_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 3)
    for number in range(5):
        outbox.add([b"%d" % number])
    outbox.close()
    file.write_bytes(b"no database " * 1000)
    again = Outbox(file, 3)
    assert (again.figures.dropped, again.figures.damaged, again.figures.lost) == (2, 1, 3)
    again.add([b"5"])
    assert [event.payload for event in again.take(10)] == [b"5"]
    again.close()


def test_a_loss_is_counted_once_also_where_no_event_comes_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 10)
    outbox.add([b"1", b"2"])
    outbox.close()
    file.write_bytes(b"")
    for process in range(3):
        again = Outbox(file, 10)
        assert again.figures.lost == 2
        assert bool(again.disk.damage) is (process == 0)
        again.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_payload_that_has_changed_is_counted_not_sent_and_makes_room(tmp_path: Path, *, full: bool) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 2)
    outbox.add([b"1", b"2"])
    outbox.close()
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE events SET payload = x'33' WHERE id = 1")
    again = Outbox(file, 2)
    if full:
        again.add([b"3"])
    found = [event.payload for event in again.take(10)]
    assert found == ([b"2", b"3"] if full else [b"2"])
    assert (again.figures.lost, again.figures.dropped, again.figures.waiting) == (1, 0, len(found))
    again.close()


@pytest.mark.parametrize("reads", [True, False])
def test_damage_found_by_reading_or_writing_costs_what_waited_and_not_the_new_event(
    tmp_path: Path, *, reads: bool
) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 1000)
    outbox.add([b"x" * 1000] * 100)
    outbox.close()
    outbox = Outbox(file, 1000)
    damage_all_but_the_schema(outbox, file)
    if reads:
        assert outbox.take(1000) == []
        assert outbox.figures.damaged == 1
    assert outbox.add([b"new"]), "to a new file, at once"
    assert (outbox.figures.lost, outbox.figures.waiting, outbox.figures.durable) == (100, 1, True)
    outbox.close()
    assert drain(file) == ([b"new"], 100)


def damage_all_but_the_schema(outbox: Outbox, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)
    outbox._file._db.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]  # so that it reads the file again


def test_damage_found_while_it_runs_counts_no_event_that_then_arrives(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 100)
    outbox.add([b"%d %s" % (number, b"x" * 1000) for number in range(102)])
    outbox.close()
    outbox = Outbox(file, 1000)
    in_flight = outbox.take(10)
    damage_all_but_the_schema(outbox, file)
    outbox.add([b"new"])
    while more := outbox.take(10):
        in_flight += more
    assert outbox.figures.waiting == len(in_flight)
    assert not outbox.figures.durable, "what came since is in memory until those in flight are answered"
    for event in in_flight:
        outbox.acknowledge(event.id)
    outbox.flush()
    assert (outbox.figures.damaged, outbox.figures.durable, outbox.figures.waiting) == (1, True, 0)
    assert len(in_flight) + outbox.figures.lost == 101
    assert outbox.figures.lost > 0
    assert outbox.figures.dropped == 2, "what earlier processes have counted is counted once"
    outbox.close()


VERSION_1 = """
PRAGMA page_size = 2048;
PRAGMA journal_mode = WAL;
CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('dropped', 7), ('failed', 2);
PRAGMA user_version = 1;
"""


def version_1(file: Path, ids: range) -> None:
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.executescript(VERSION_1)
        db.executemany("INSERT INTO events VALUES (?, ?)", [(number, b"%d" % number) for number in ids])


def test_a_file_of_the_former_version_keeps_its_events_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    version_1(file, range(5, 300))
    outbox = Outbox(file, 1000)
    assert (outbox.figures.waiting, outbox.figures.dropped, outbox.figures.failed) == (295, 7, 2)
    assert (outbox.figures.damaged, outbox.figures.lost, outbox.disk.damage) == (0, 0, "")
    outbox.add([b"300"])
    assert [event.payload for event in outbox.take(1000)] == [b"%d" % number for number in range(5, 301)]
    outbox.close()
    assert len(drain(file)[0]) == 296


def test_an_empty_file_of_the_former_version_is_converted_too(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    version_1(file, range(0))
    outbox = Outbox(file, 1000)
    assert outbox.add([b"1"])
    assert (outbox.figures.dropped, outbox.figures.damaged) == (7, 0)
    outbox.close()
    assert drain(file) == ([b"1"], 0)


def test_a_full_disk_while_a_former_file_is_converted_loses_nothing(small_disk: Path) -> None:
    file = small_disk / "outbox.db"
    version_1(file, range(1, 10_000))
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"x" * 1_000_000)
    outbox = Outbox(file, 20_000)
    assert "cannot be written" in outbox.disk.error
    outbox.close()
    ballast.unlink()
    found, lost = drain(file)
    assert (len(found), lost) == (9_999, 0)


def test_the_loss_is_a_retained_fault_and_in_the_statistics(persistent_broker: Broker, tmp_path: Path) -> None:
    persistent_broker.stop()
    with device(tmp_path, persistent_broker.port) as first:
        first.publish(60)
        wait_until(lambda: not first.publisher._committer.uncommitted, 10)
    for file in tmp_path.glob("outbox.db"):
        file.write_bytes(b"")
    persistent_broker.start()
    with persistent_session(persistent_broker) as listener, device(tmp_path, persistent_broker.port) as second:
        wait_until(lambda: listener.json("fault"), 10)
        fault = listener.json("fault")[-1]
        assert (fault["code"], "Events that waited in it and are lost: 60." in fault["sentence"]) == (18, True)
        assert (second.publisher.figures().outbox.lost, second.publisher.figures().fault) == (60, 18)


def test_ids_are_kept_as_ranges() -> None:
    chance = random.Random(6)
    expected: set[int] = set()
    ids, newest = IdSet(), 0
    for _ in range(300):
        add = range(newest + 1, newest + chance.randrange(5))
        newest = max(newest, *add, 0)
        remove = [number for number in expected if chance.random() < 0.1]
        ids = ids.changed([*remove, newest + 9], add)
        expected = (expected - set(remove)) | set(add)
        assert (list(ids), len(ids)) == (sorted(expected), len(expected))
        assert all((number in ids) == (number in expected) for number in range(newest + 2))


def test_scattered_events_beyond_the_bound_of_the_inventory_are_neither_lost_nor_dropped(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    outbox = Outbox(file, 1000)
    outbox.add([b"%d" % number for number in range(400)])
    for event in outbox.take(400)[::2]:
        outbox.acknowledge(event.id)
    outbox.close()
    found, lost = drain(file)
    assert (len(found), lost) == (200, 0)
    inventory = first_inventory().next(IdSet([(n, n) for n in range(1, 10**18, 10**16)]), 10**18, {})
    assert len(encode(inventory)) < 4096
    assert not inventory.complete


def test_a_damaged_inventory_is_none() -> None:
    stored = encode(first_inventory())
    assert decode(stored) is not None
    for at in range(len(stored)):
        assert decode(flip(stored, at, random.Random(at))) in (None, decode(stored)), "b and B are the same digit"
    for other in (b"", b"no inventory", b"%08x[]" % zlib.crc32(b"[]")):
        assert decode(other) is None
