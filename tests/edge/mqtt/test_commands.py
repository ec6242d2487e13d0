from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import BundleError, SettingsError
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.mqtt.commands import Capabilities, CommandProcessor, RateLimiter, StoredPause
from edge.mqtt.messages import Reply
from edge.system.state import StateStore


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class CommandDesk:
    """A command processor with what it needs, its replies, and how often it asked for a reload."""

    def __init__(self, folder: Path, *, pausable: bool = True, managed: bool = True) -> None:
        self.clock = Clock()
        self.replies: list[Reply] = []
        self.reloads = 0
        self.bundle: Callable[[], Bundle] = lambda: open_bundle(find_bundle("student-small"))
        capabilities = Capabilities(pausable, self._reload if managed else None, self._open)
        self.state_store = StateStore(folder, "kiosk")
        self.command_processor = CommandProcessor(self.state_store, capabilities, self.replies.append, self.clock)

    def _reload(self) -> None:
        self.reloads += 1

    def _open(self) -> Bundle:
        return self.bundle()

    def send(self, name: str, payload: bytes = b"", *, retained: bool = False) -> Reply | None:
        """Send a command long after the last one; returns the reply that came at once."""
        self.clock.now += 100
        before = len(self.replies)
        self.command_processor.receive(name, payload, retained)
        return self.replies[-1] if len(self.replies) > before else None


@pytest.fixture
def desk(tmp_path: Path) -> CommandDesk:
    return CommandDesk(tmp_path)


@pytest.mark.parametrize(
    ("name", "payload", "error", "words"),
    [
        ("fly", b"", "unknown", "there are pause, verify, reload"),
        ("../pause", b"", "unknown", "there are"),
        ("pause", b"", "malformed", "missing required field `on`"),
        ("pause", b"ON", "malformed", "JSON"),
        ("pause", b'{"on":1}', "malformed", "Expected `bool`, got `int`"),
        ("pause", b'{"on":true,"file":"/etc/passwd"}', "malformed", "unknown field `file`"),
        ("pause", b'{"on":true,"id":"' + b"x" * 65 + b'"}', "malformed", "length <= 64"),
        ("pause", b"\xff\xfe", "malformed", ""),
        ("verify", b'{"bundle":"/tmp/mine"}', "malformed", "unknown field `bundle`"),
        ("verify", b"[" * 500, "malformed", ""),
        ("reload", b" " * 2000, "malformed", "more than 1024 bytes"),
    ],
)
def test_an_invalid_command_is_answered_by_an_error(
    desk: CommandDesk, name: str, payload: bytes, error: str, words: str
) -> None:
    reply = desk.send(name, payload)
    assert reply
    assert (reply.ok, reply.error) == (False, error)
    assert words in (reply.sentence or "")
    assert not desk.command_processor.paused
    assert desk.reloads == 0


@pytest.mark.parametrize(
    ("payload", "known"),
    [
        (b'{"id":"7","more":[1]}', "7"),
        (b'{"id":7}', ""),
        (b'{"id":"' + b"x" * 65 + b'"}', ""),
        (b'{"id":"7"', ""),
        (b'{"id":"7","more":' + b"[" * 1000, ""),
        (b'{"id":"7","more":"' + b"x" * 1024 + b'"}', ""),
        (b"\xff", ""),
    ],
)
def test_a_refusal_names_the_command_by_its_id_when_that_can_be_read(
    desk: CommandDesk, payload: bytes, known: str
) -> None:
    for reply in (desk.send("fly", payload), desk.send("reload", payload)):
        assert reply
        assert (reply.ok, reply.id) == (False, known)


def test_a_retained_command_is_refused(desk: CommandDesk) -> None:
    reply = desk.send("pause", b'{"on":true,"id":"7"}', retained=True)
    assert reply
    assert (reply.error, reply.id) == ("retained", "7")
    assert not desk.command_processor.paused


JUNK = [
    ("fly", b"", False, "unknown"),
    ("pause", b"ON", False, "malformed"),
    ("pause", b"[" * 1000, False, "malformed"),
    ("reload", b" " * 2000, False, "malformed"),
    ("pause", b'{"on":true}', True, "retained"),
    ("verify", b"", True, "retained"),
]


@pytest.mark.parametrize(("name", "payload", "retained", "error"), JUNK)
def test_a_flood_of_junk_is_counted_and_answered_seldom(
    desk: CommandDesk, name: str, payload: bytes, retained: bool, error: str
) -> None:
    for _ in range(1000):
        desk.command_processor.receive(name, payload, retained)
        desk.clock.now += 0.01
    assert desk.command_processor.ignored == 1000
    assert [reply.error for reply in desk.replies] == [error] * 9, "five at once and one more every two seconds"


@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0])
def test_junk_does_not_stop_a_pause(desk: CommandDesk, seconds: float) -> None:
    for number in range(15):
        for name, payload, retained, _ in JUNK:
            desk.command_processor.receive(name, payload, retained)
        on = number % 2 == 0
        desk.command_processor.receive("pause", b'{"on":%s,"id":"p%d"}' % (b"true" if on else b"false", number), False)
        assert desk.command_processor.paused == on
        desk.command_processor.camera_is_closed() if on else desk.command_processor.camera_is_open()
        desk.clock.now += seconds
    answered = [reply for reply in desk.replies if reply.id]
    assert [(reply.id, reply.ok) for reply in answered] == [(f"p{number}", True) for number in range(15)]


def test_a_flood_of_other_commands_does_not_stop_a_pause(desk: CommandDesk) -> None:
    desk.clock.now += 100
    for _ in range(100):
        desk.command_processor.receive("reload", b"", False)
    assert (desk.reloads, desk.command_processor.ignored) == (5, 95)
    assert [reply.error for reply in desk.replies] == [None] * 5 + ["too-fast"]
    desk.command_processor.receive("pause", b'{"on":true}', False)
    assert desk.command_processor.paused


def test_pauses_in_turns_are_bounded_and_closing_is_never_refused(desk: CommandDesk) -> None:
    opened = 0
    for _ in range(3600):
        desk.command_processor.receive("pause", b'{"on":false}', False)
        opened += not desk.command_processor.paused
        desk.command_processor.receive("pause", b'{"on":true}', False)
        assert desk.command_processor.paused
        desk.command_processor.camera_is_closed()
        desk.clock.now += 1
    assert opened <= 20 + 360
    assert len(desk.replies) < 2 * opened + 3600 / 2, "and the refusals are few"


def test_pauses_in_turns_are_written_seldom_and_closing_is_at_once(desk: CommandDesk, tmp_path: Path) -> None:
    file, versions = tmp_path / "kiosk.state.json", []

    def send(payload: bytes) -> None:
        desk.command_processor.receive("pause", payload, False)
        if file.exists() and (not versions or file.stat().st_ino != versions[-1]):
            versions.append(file.stat().st_ino)

    put_off = 0
    for _ in range(360):  # as often as opening is allowed
        send(b'{"on":false}')
        assert not desk.command_processor.paused
        desk.command_processor.camera_is_open()
        put_off += StateStore(tmp_path, "kiosk").state.paused
        send(b'{"on":true}')
        assert StateStore(tmp_path, "kiosk").state.paused
        desk.clock.now += 10.1
    assert len(versions) <= 2 * (100 + 13), "3.2 MB a day"
    assert put_off > 100
    send(b'{"on":false}')
    desk.command_processor.close()
    assert not StateStore(tmp_path, "kiosk").state.paused, "nothing is put off at the end of the process"


@pytest.fixture
def stored_pause(tmp_path: Path) -> StoredPause:
    """One whose next opening is put off, and which is open."""
    stored = StoredPause(StateStore(tmp_path, "kiosk"), RateLimiter(1, 32.0, 0.0))
    for paused in (True, False, True, False):
        assert stored.store(paused, 0.0)
    assert StateStore(tmp_path, "kiosk").state.paused, "a power cut now leaves the camera closed"
    return stored


@pytest.mark.parametrize(
    ("now", "in_any_case", "paused"), [(31.0, False, True), (32.0, False, False), (1.0, True, False)]
)
def test_an_opening_that_was_put_off_is_stored_when_it_is_due_or_at_the_end(
    stored_pause: StoredPause, tmp_path: Path, now: float, in_any_case: bool, paused: bool
) -> None:
    stored_pause.store_opening(now, in_any_case=in_any_case)
    assert StateStore(tmp_path, "kiosk").state.paused == paused


def test_an_opening_that_was_put_off_never_undoes_a_later_pause(stored_pause: StoredPause, tmp_path: Path) -> None:
    stored_pause.store(True, 1.0)
    stored_pause.store_opening(1000.0)
    stored_pause.store_opening(1000.0, in_any_case=True)
    assert StateStore(tmp_path, "kiosk").state.paused


def test_repeated_pauses_of_a_file_are_not_all_answered(tmp_path: Path) -> None:
    desk = CommandDesk(tmp_path, pausable=False)
    for _ in range(100):
        desk.command_processor.receive("pause", b'{"on":true}', False)
    assert [reply.error for reply in desk.replies] == ["impossible"] * 20 + ["too-fast"]


def test_a_damaged_state_closes_the_camera_until_a_pause_ends(tmp_path: Path) -> None:
    (tmp_path / "kiosk.state.json").write_bytes(b"")
    desk = CommandDesk(tmp_path)
    assert desk.command_processor.paused
    assert desk.state_store.damage
    desk.send("pause", b'{"on":false}')
    assert (desk.command_processor.paused, desk.state_store.damage) == (False, "")


def test_commands_are_limited_over_time() -> None:
    limiter = RateLimiter(3, 2.0, 0.0)
    assert [limiter.allows(0.0) for _ in range(4)] == [True, True, True, False]
    assert [limiter.allows(at) for at in (1.0, 2.0, 2.1, 4.0)] == [False, True, False, True]


def test_pause_is_kept_at_once_and_answered_when_the_camera_is_closed(desk: CommandDesk, tmp_path: Path) -> None:
    assert desk.send("pause", b'{"on":true,"id":"7"}') is None
    assert desk.command_processor.paused
    assert StateStore(tmp_path, "kiosk").state.paused, "whatever happens to this process"
    desk.command_processor.camera_is_open()
    assert desk.replies == []
    desk.command_processor.camera_is_closed()
    assert desk.replies == [Reply(command="pause", id="7", ok=True, result={"paused": True})]
    desk.send("pause", b'{"on":false,"id":"8"}')
    desk.command_processor.camera_is_closed()
    assert len(desk.replies) == 1
    desk.command_processor.camera_is_open()
    assert desk.replies[1] == Reply(command="pause", id="8", ok=True, result={"paused": False})
    assert not StateStore(tmp_path, "kiosk").state.paused


def test_a_pause_that_a_later_command_takes_back_gets_a_refusal(desk: CommandDesk) -> None:
    desk.send("pause", b'{"on":true,"id":"a"}')
    desk.send("pause", b'{"on":false,"id":"b"}')
    desk.command_processor.camera_is_open()
    assert [(reply.id, reply.ok) for reply in desk.replies] == [("a", False), ("b", True)]


def test_pausing_what_is_paused_is_fine(desk: CommandDesk) -> None:
    for correlation in (b"1", b"2"):
        desk.send("pause", b'{"on":true,"id":"' + correlation + b'"}')
        desk.command_processor.camera_is_closed()
    assert [reply.ok for reply in desk.replies] == [True, True]


def test_a_device_stays_paused_from_one_process_to_the_next(desk: CommandDesk, tmp_path: Path) -> None:
    desk.send("pause", b'{"on":true}')
    assert CommandDesk(tmp_path).command_processor.paused
    assert not CommandDesk(tmp_path, pausable=False).command_processor.paused, "a file is no camera"


def test_a_pause_that_cannot_be_stored_is_done_and_reported(desk: CommandDesk, tmp_path: Path) -> None:
    (tmp_path / "kiosk.state.new").mkdir()
    desk.send("pause", b'{"on":true}')
    desk.command_processor.camera_is_closed()
    assert desk.command_processor.paused
    assert (desk.replies[0].error, "cannot be stored yet" in str(desk.replies[0].sentence)) == ("failed", True)


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_what_could_not_be_stored_is_stored_once_the_disk_works(
    desk: CommandDesk, tmp_path: Path, *, paused: bool, at_the_end: bool
) -> None:
    desk.send("pause", b'{"on":false}' if paused else b'{"on":true}')
    blocked = tmp_path / "kiosk.state.new"
    blocked.mkdir()
    desk.send("pause", b'{"on":true}' if paused else b'{"on":false}')
    desk.command_processor.disk_works()
    assert StateStore(tmp_path, "kiosk").state.paused != paused
    blocked.rmdir()
    (desk.command_processor.close if at_the_end else desk.command_processor.disk_works)()
    assert StateStore(tmp_path, "kiosk").state.paused == paused


def test_a_file_cannot_be_paused(tmp_path: Path) -> None:
    desk = CommandDesk(tmp_path, pausable=False)
    reply = desk.send("pause", b'{"on":true}')
    assert reply
    assert reply.error == "impossible"


def test_verify_runs_a_little_between_frames_with_the_classifier_of_the_loop(desk: CommandDesk) -> None:
    classifier = Classifier(desk.bundle())
    desk.command_processor.continue_verification(classifier)
    assert desk.send("verify", b'{"id":"9"}') is None
    busy = desk.send("verify")
    assert busy
    assert busy.error == "busy"
    steps = 0
    while len(desk.replies) < 2:
        desk.command_processor.continue_verification(classifier)
        steps += 1
    assert steps == 9
    reply = desk.replies[1]
    assert (reply.command, reply.id, reply.ok) == ("verify", "9", True)
    assert reply.result
    assert reply.result["sha256"] == classifier.card.sha256
    assert (reply.result["n"], reply.result["top1"]) == (16, 1.0)
    assert desk.send("verify") is None, "and again"


def test_verify_of_a_damaged_bundle_fails_and_says_why(desk: CommandDesk) -> None:
    def damaged() -> Bundle:
        raise BundleError("model.tflite: the file was damaged or replaced")

    desk.bundle = damaged
    reply = desk.send("verify", b'{"id":"9"}')
    assert reply
    assert (reply.id, reply.error, reply.sentence) == ("9", "failed", "model.tflite: the file was damaged or replaced")


def test_a_command_without_the_memory_that_it_needs_fails_and_nothing_else(desk: CommandDesk) -> None:
    def too_large() -> Bundle:
        raise MemoryError

    desk.bundle = too_large
    reply = desk.send("verify", b'{"id":"4"}')
    assert reply
    assert (reply.ok, reply.error, reply.id) == (False, "failed", "4")
    assert "memory" in (reply.sentence or "")


def test_reload_waits_for_half_a_minute_of_life(tmp_path: Path) -> None:
    desk = CommandDesk(tmp_path)
    desk.command_processor.receive("reload", b"", False)
    assert (desk.replies[0].error, desk.reloads) == ("too-fast", 0)
    assert "try again in 30 s" in (desk.replies[0].sentence or "")
    reply = desk.send("reload", b'{"id":"r"}')
    assert reply
    assert (reply.ok, reply.id, desk.reloads) == (True, "r", 1)


def test_reload_with_settings_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    def wrong() -> None:
        raise SettingsError("config.toml: unknown key mqtt.hots; did you mean mqtt.host?")

    replies: list[Reply] = []
    clock = Clock()
    capabilities = Capabilities(pausable=True, reload=wrong, bundle=lambda: open_bundle(find_bundle("student-small")))
    command_processor = CommandProcessor(StateStore(tmp_path, "kiosk"), capabilities, replies.append, clock)
    clock.now += 100
    command_processor.receive("reload", b"", False)
    assert (replies[0].ok, replies[0].error) == (False, "failed")
    assert "mqtt.hots" in (replies[0].sentence or "")


def test_by_hand_there_is_no_reload(tmp_path: Path) -> None:
    reply = CommandDesk(tmp_path, managed=False).send("reload")
    assert reply
    assert reply.error == "impossible"
