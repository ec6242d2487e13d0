import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge.mqtt.faults import FaultBoard, FaultSource
from edge.records import Fault

DISK, CAMERA, BROKER = (Fault(code, f"fault {code}", "2026-11-22T11:00:00+00:00") for code in (18, 5, 8))


class Board(FaultBoard):
    """A fault board that notes the codes that it publishes; None for an empty payload."""

    def __init__(self) -> None:
        self.published: list[int | None] = []
        super().__init__(lambda fault: self.published.append(fault.code if fault else None))


def test_the_fault_that_began_first_is_published_until_it_ends() -> None:
    board = Board()
    board.set("service", CAMERA)
    board.set("outbox", DISK)
    assert board.code == 5
    board.set("service", None)
    assert board.code == 18
    board.set("outbox", None)
    assert board.code is None
    assert board.published == [5, 5, 18, None]


def test_a_loss_gives_way_to_what_is_wrong_now() -> None:
    board = Board()
    board.set("loss", DISK)
    board.set("service", CAMERA)
    assert board.code == 5
    board.set("service", None)
    assert board.code == 18


def test_a_repeated_fault_is_not_published_again() -> None:
    board = Board()
    for second in range(3):
        board.set("outbox", Fault(18, "full", f"2026-11-22T11:00:0{second}+00:00"))
    assert board.published == [18]


def test_only_the_service_clears_a_fault_that_this_process_never_had() -> None:
    board = Board()
    board.set("outbox", None)
    assert board.published == []
    board.set("service", None)
    assert board.published == [None], "another process may have left one on the broker"


def test_after_closing_only_the_fault_of_the_service_is_left() -> None:
    board = Board()
    board.set("outbox", DISK)
    board.set("service", CAMERA)
    board.close()
    board.set("broker", BROKER)
    assert (board.code, board.published[-1]) == (5, 5)


@contextmanager
def frequent_thread_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def test_the_code_can_be_read_while_other_threads_change_faults() -> None:
    """Without the lock 19 of 20 tries end with "dictionary changed size during iteration", which ended a run."""
    board, ended = FaultBoard(lambda _payload: None), threading.Event()

    def change(source: FaultSource) -> None:
        while not ended.is_set():
            board.set(source, DISK)
            board.set(source, None)

    sources: tuple[FaultSource, ...] = ("outbox", "broker", "model")
    threads = [threading.Thread(target=change, args=(source,)) for source in sources]
    with frequent_thread_switches():
        for thread in threads:
            thread.start()
        try:
            codes = {board.code for _ in itertools.repeat(None, 600_000)}
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert codes <= {None, 18}
