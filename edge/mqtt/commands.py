"""Carries out commands that come over MQTT: pause, verify, reload. It never executes or opens what a message names.

Commands come in the connection's thread, are checked there, and answered if possible. The rest is done by the frame
loop, which asks ``paused`` and calls ``camera_is_open``, ``camera_is_closed`` and ``continue_verification``.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from edge.errors import FerEdgeError
from edge.model.bundle import Bundle, Golden
from edge.model.classifier import Classifier
from edge.model.verification import GoldenAgreement, check_golden, judge_golden
from edge.mqtt.messages import COMMANDS, Command, Correlation, Pause, Reload, Reply, ReplyError, Verify
from edge.records import Verification
from edge.system.state import StateStore

_LARGEST: Final = 1024  # bytes; valid commands are far smaller
_BURST: Final = 5
_SECONDS_PER_COMMAND: Final = 2.0
_PAUSE_BURST: Final = 20
_SECONDS_PER_PAUSE: Final = 10.0
_STORED_BURST: Final = 100
_SECONDS_PER_STORED: Final = 300.0  # each opening that is stored costs two writes of 4 KB to the SD card
_RELOAD_SECONDS: Final = 30.0  # after the start, in which a reload is refused
_FACES_PER_STEP: Final = 2  # inferences by which a verification may delay a frame


class RateLimiter:
    """A token bucket: ``burst`` at once, and one more every ``seconds_each``. Pure: time, in seconds, is passed in."""

    def __init__(self, burst: int, seconds_each: float, now: float) -> None:
        self._burst = burst
        self._seconds_each = seconds_each
        self._allowed = float(burst)
        self._updated = now

    def allows(self, now: float) -> bool:
        """Whether one more is allowed now; it is counted if so."""
        self._allowed = min(self._burst, self._allowed + (now - self._updated) / self._seconds_each)
        self._updated = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


class CommandBudget:
    """What one kind of message may cost: how often it is obeyed, and how often its sender is told that it is not."""

    def __init__(self, burst: int, seconds_each: float, now: float) -> None:
        self.obeyed = RateLimiter(burst, seconds_each, now)
        self.refused = RateLimiter(1, _SECONDS_PER_COMMAND, now)
        self.rule = f"{burst} at once and one more every {seconds_each:g} s are allowed; this one was ignored"


class StoredPause:
    """Keeps on the disk whether the camera is paused: a pause at once, its end too unless there were many of late.

    So commands in turns write little to an SD card. A power cut after many leaves the camera closed, and never opens
    it. For several threads; times are monotonic, in seconds.
    """

    def __init__(self, state_store: StateStore, openings: RateLimiter) -> None:
        self._state_store = state_store
        self._lock = threading.Lock()
        self._openings = openings
        self._put_off = False
        self._refused: bool | None = None  # what the disk did not take

    def store(self, paused: bool, now: float) -> bool:
        """Store it, or put that off. Returns False when it should be on the disk now and is not."""
        with self._lock:
            self._refused = None
            self._put_off = not paused and not self._openings.allows(now)
            return self._put_off or self._store(paused)

    def store_opening(self, now: float, *, in_any_case: bool = False) -> None:
        """Store that the camera is open, if that was put off and is due."""
        if not self._put_off:
            return
        with self._lock:
            if self._put_off and (in_any_case or self._openings.allows(now)):
                self._put_off = False
                self._store(False)

    def store_again(self) -> None:
        """Store what the disk did not take before. Does not wait for another thread that is doing so."""
        if self._refused is None:
            return
        with self._lock:
            if self._refused is not None:
                self._store(self._refused)

    def _store(self, paused: bool) -> bool:
        self._refused = None
        stored = self._state_store.update(paused=paused)
        if not stored:
            self._refused = paused
        return stored


class InvalidCommand(Exception):  # noqa: N818  the name says what it is
    """A message that is no command: the error code and the sentence of its reply."""

    def __init__(self, error: ReplyError, sentence: str) -> None:
        super().__init__(sentence)
        self.error: ReplyError = error
        self.sentence = sentence


@dataclass(frozen=True)
class Capabilities:
    """What this run can do: pause its source, restart with new settings, open the bundle of its model.

    ``reload`` and ``bundle`` raise errors of edge.errors with the reason. ``reload`` is None when nothing would start
    the process again.
    """

    pausable: bool
    reload: Callable[[], None] | None
    bundle: Callable[[], Bundle]


class CommandProcessor:
    """Carries out commands; ``reply`` takes the replies, ``verified`` the result of each verification."""

    def __init__(
        self,
        state_store: StateStore,
        capabilities: Capabilities,
        reply: Callable[[Reply], None],
        clock: Callable[[], float] = time.monotonic,
        verified: Callable[[Verification], None] = lambda _: None,
    ) -> None:
        self.ignored = 0
        self._capabilities = capabilities
        self._reply = reply
        self._verified = verified
        self._clock = clock
        self._started = clock()
        self._stored = StoredPause(state_store, RateLimiter(_STORED_BURST, _SECONDS_PER_STORED, self._started))
        self._pauses = CommandBudget(_PAUSE_BURST, _SECONDS_PER_PAUSE, self._started)
        self._others = CommandBudget(_BURST, _SECONDS_PER_COMMAND, self._started)
        self._invalid_answers = RateLimiter(_BURST, _SECONDS_PER_COMMAND, self._started)
        self._lock = threading.Lock()
        self._paused = state_store.state.paused and capabilities.pausable
        self._unanswered_pauses: deque[tuple[Pause, bool]] = deque()
        self._verify_asked: tuple[Verify, Bundle] | None = None
        self._verification: Iterator[Verification | None] | None = None

    @property
    def paused(self) -> bool:
        """Whether a command has closed the camera, or is about to."""
        return self._paused

    def receive(self, name: str, payload: bytes, retained: bool) -> None:
        """Take a command: its name, its raw payload, and whether the broker had retained it.

        What is no valid command costs nothing but a count, and a reply if there were few of late.
        """
        now = self._clock()
        try:
            command = _parse(name, payload, retained)
        except InvalidCommand as invalid:
            self.ignored += 1
            if self._invalid_answers.allows(now):
                self._refuse(name[:64], _id_of(payload), invalid.error, invalid.sentence)
            return
        budget = self._pauses if isinstance(command, Pause) else self._others
        if budget.obeyed.allows(now) or self._closes(command):
            self._carry_out(name, command)
            return
        self.ignored += 1
        if budget.refused.allows(now):  # a flood of commands must not cause a flood of replies
            self._refuse(name, command.id, "too-fast", budget.rule)

    def camera_is_open(self) -> None:
        """Answer the pauses that have ended; the camera gives frames."""
        self._answer_pauses(paused=False)
        self._stored.store_opening(self._clock())

    def camera_is_closed(self) -> None:
        """Answer the pauses that have begun."""
        self._answer_pauses(paused=True)

    def close(self) -> None:
        """Store what was put off or refused: the process ends."""
        self._stored.store_opening(self._clock(), in_any_case=True)
        self._stored.store_again()

    def disk_works(self) -> None:
        """Store what the disk did not take before. For any thread but the frame loop's, because a disk may hang."""
        self._stored.store_again()

    def continue_verification(self, classifier: Classifier) -> None:
        """Do the next step of a verification that was asked for, with the classifier of the frame loop."""
        if self._verify_asked is None:
            return
        verify, bundle = self._verify_asked
        if bundle.card.sha256 != classifier.card.sha256:
            self._verify_asked = None
            self._refuse("verify", verify.id, "failed", f"{bundle.folder} was replaced, and is not what runs: reload")
            return
        self._verification = self._verification or _verification_steps(classifier, bundle.golden)
        if result := next(self._verification):
            self._verification = self._verify_asked = None
            self._verified(result)
            self._reply(
                Reply(
                    command="verify",
                    id=verify.id,
                    ok=result.ok,
                    error=None if result.ok else "failed",
                    sentence=None if result.ok else result.sentence,
                    result=msgspec.to_builtins(result),
                )
            )

    def _closes(self, command: Command) -> bool:
        """Whether it closes an open camera: that is obeyed at any rate, which the commands that open it limit."""
        return isinstance(command, Pause) and command.on and self._capabilities.pausable and not self._paused

    def _carry_out(self, name: str, command: Command) -> None:
        try:
            match command:
                case Pause():
                    self._pause(command)
                case Verify():
                    self._verify(command)
                case Reload():
                    self._reload(command)
        except FerEdgeError as error:
            self._refuse(name, command.id, "failed", str(error))
        except MemoryError:  # a video bounds the memory of the process while it plays; events must go on
            self._refuse(name, command.id, "failed", "this needs more memory than is free now")

    def _pause(self, command: Pause) -> None:
        if not self._capabilities.pausable:
            self._refuse("pause", command.id, "impossible", "the source is not a live camera")
            return
        # Stored before it is done: when the camera hangs now, the next process must not open it again.
        stored = self._stored.store(command.on, self._clock())
        with self._lock:
            self._paused = command.on
            self._unanswered_pauses.append((command, stored))

    def _answer_pauses(self, *, paused: bool) -> None:
        if not self._unanswered_pauses:
            return
        with self._lock:
            if paused != self._paused:
                return  # the loop has not got there yet
            answered = list(self._unanswered_pauses)
            self._unanswered_pauses.clear()
        for command, stored in answered:
            if command.on != paused:
                self._refuse("pause", command.id, "failed", "a later command says otherwise")
            elif not stored:
                self._refuse(
                    "pause",
                    command.id,
                    "failed",
                    "done, but it cannot be stored yet: a restart now would not know of it",
                )
            else:
                self._reply(Reply(command="pause", id=command.id, ok=True, result={"paused": paused}))

    def _verify(self, command: Verify) -> None:
        if self._verify_asked:
            self._refuse("verify", command.id, "busy", "the verification before is not finished yet")
            return
        self._verify_asked = (command, self._capabilities.bundle())  # opened again, so that its files are checked too

    def _reload(self, command: Reload) -> None:
        if self._capabilities.reload is None:
            self._refuse("reload", command.id, "impossible", "nothing would start this process again: it is no service")
            return
        remaining = _RELOAD_SECONDS - (self._clock() - self._started)
        if remaining > 0:
            self._refuse("reload", command.id, "too-fast", f"it has just started; try again in {remaining:.0f} s")
            return
        self._capabilities.reload()
        self._reply(
            Reply(command="reload", id=command.id, ok=True, sentence="ending, to start again with new settings")
        )

    def _refuse(self, command: str, correlation: str, error: ReplyError, sentence: str) -> None:
        self._reply(Reply(command=command, id=correlation, ok=False, error=error, sentence=sentence))


def _parse(name: str, payload: bytes, retained: bool) -> Command:
    """The command in a message. Raises InvalidCommand."""
    command_type = COMMANDS.get(name)
    if command_type is None:
        raise InvalidCommand("unknown", f"there are {', '.join(COMMANDS)}")
    if retained:
        raise InvalidCommand(
            "retained", "a retained command would come again on every connection: publish it without retain"
        )
    if len(payload) > _LARGEST:
        raise InvalidCommand("malformed", f"more than {_LARGEST} bytes")
    try:
        return msgspec.json.decode(payload or b"{}", type=command_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCommand("malformed", str(error)) from error


class _AnyCommand(msgspec.Struct):
    """The field that every command may have."""

    id: Correlation = ""


def _id_of(payload: bytes) -> str:
    """The id of a command that is refused, so that its sender knows which; empty when it cannot be read."""
    if len(payload) > _LARGEST:
        return ""
    try:
        return msgspec.json.decode(payload, type=_AnyCommand).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # msgspec raises it for a thousand brackets
        return ""


def _verification_steps(classifier: Classifier, golden: Golden) -> Iterator[Verification | None]:
    """Compare the golden outputs, a few in each step; the last step gives the result, the others None."""
    agreements = []
    for begin in range(0, len(golden.faces), _FACES_PER_STEP):
        part = slice(begin, begin + _FACES_PER_STEP)
        agreements.append(
            check_golden(classifier, replace(golden, faces=golden.faces[part], outputs=golden.outputs[part]))
        )
        yield None
    total = sum(agreed.n for agreed in agreements)
    top1 = sum(agreed.top1 * agreed.n for agreed in agreements) / total
    yield judge_golden(
        classifier, GoldenAgreement(total, max(agreed.largest_lsb for agreed in agreements), top1), golden.scene
    )
