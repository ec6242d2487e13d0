"""Obeying commands that come over MQTT: pause, verify, reload. Nothing here executes or opens what a message names.

Commands are taken in the link's thread, checked, and answered there when they can be; what concerns the camera or the
model waits for the loop, which asks ``paused`` and calls ``seeing``, ``resting`` and ``step`` between frames.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from edge.errors import FerEdgeError
from edge.model.bundle import Bundle, Golden
from edge.model.classifier import Classifier
from edge.model.verification import GoldenAgreement, check_golden, conclude
from edge.mqtt.messages import COMMANDS, Command, Correlation, Pause, Reload, Reply, Verification, Verify
from edge.system.state import StateStore

_LARGEST: Final = 1024  # bytes; every command is far smaller
_BURST: Final = 5
_SECONDS_EACH: Final = 2.0
_RELOAD_SECONDS: Final = 30.0
_FACES_A_STEP: Final = 2  # a frame waits for no more than so many inferences


class RateLimiter:
    """So many at once, and one more after every so many seconds. Pure: time, in seconds, comes with each call."""

    def __init__(self, burst: int, seconds_each: float, now: float) -> None:
        self._burst = burst
        self._seconds_each = seconds_each
        self._allowed = float(burst)
        self._updated = now

    def allows(self, now: float) -> bool:
        """Whether one more may come now; it then is counted."""
        self._allowed = min(self._burst, self._allowed + (now - self._updated) / self._seconds_each)
        self._updated = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


@dataclass(frozen=True)
class Capabilities:
    """What this run can do: pause its source; end, to be started with new settings; open its model's bundle.

    ``reload`` and ``bundle`` raise errors of edge.errors that say why not; ``reload`` is None when nothing would start
    the process again.
    """

    pausable: bool
    reload: Callable[[], None] | None
    bundle: Callable[[], Bundle]


class CommandProcessor:
    """Takes commands and sees to them; ``tell`` carries the replies, ``verified`` what a check of the model found."""

    def __init__(
        self,
        state_store: StateStore,
        abilities: Capabilities,
        tell: Callable[[Reply], None],
        clock: Callable[[], float] = time.monotonic,
        verified: Callable[[Verification], None] = lambda _: None,
    ) -> None:
        self.ignored = 0
        self._keeper = state_store
        self._abilities = abilities
        self._tell = tell
        self._verified = verified
        self._clock = clock
        self._started = clock()
        self._limiter = RateLimiter(_BURST, _SECONDS_EACH, self._started)
        self._warned = -_SECONDS_EACH
        self._lock = threading.Lock()
        self._paused = state_store.kept.paused and abilities.pausable
        self._waiting: deque[tuple[Pause, bool]] = deque()
        self._wanted: tuple[Verify, Bundle] | None = None
        self._check: Iterator[Verification | None] | None = None

    @property
    def paused(self) -> bool:
        """Whether the camera is to be closed."""
        return self._paused

    def receive(self, name: str, payload: bytes, retained: bool) -> None:
        """Take a command: its name, its payload as it came, and whether the broker had retained it."""
        now = self._clock()
        if not self._limiter.allows(now):
            self.ignored += 1
            if now - self._warned >= _SECONDS_EACH:  # a flood is not answered by a flood
                self._warned = now
                self._refuse(
                    name,
                    _id_of(payload),
                    "too-fast",
                    f"at most one command in {_SECONDS_EACH:g} s; this one was ignored",
                )
            return
        kind = COMMANDS.get(name)
        if kind is None:
            self._refuse(name[:64], _id_of(payload), "unknown", f"there are {', '.join(COMMANDS)}")
            return
        if retained:
            sentence = "a retained command would come again and again: publish it without retain"
            self._refuse(name, _id_of(payload), "retained", sentence)
            return
        if len(payload) > _LARGEST:
            self._refuse(name, "", "malformed", f"more than {_LARGEST} bytes")
            return
        try:
            command = msgspec.json.decode(payload or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(name, _id_of(payload), "malformed", str(error))
            return
        self._carry_out(name, command)

    def camera_is_open(self) -> None:
        """The camera is open and gives frames."""
        self._answer_pauses(paused=False)

    def camera_is_closed(self) -> None:
        """The camera is closed."""
        self._answer_pauses(paused=True)

    def continue_verification(self, classifier: Classifier) -> None:
        """Do a little of what was asked of the model, with the classifier that the loop uses."""
        if self._wanted is None:
            return
        verify, bundle = self._wanted
        if bundle.card.sha256 != classifier.card.sha256:
            self._wanted = None
            self._refuse("verify", verify.id, "failed", f"{bundle.folder} was replaced, and is not what runs: reload")
            return
        self._check = self._check or _checking(classifier, bundle.golden)
        if found := next(self._check):
            self._check = self._wanted = None
            self._verified(found)
            self._tell(
                Reply(
                    command="verify",
                    id=verify.id,
                    ok=found.ok,
                    error=None if found.ok else "failed",
                    sentence=None if found.ok else found.sentence,
                    result=msgspec.to_builtins(found),
                )
            )

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

    def _pause(self, command: Pause) -> None:
        if not self._abilities.pausable:
            self._refuse("pause", command.id, "impossible", "the source is not a live camera")
            return
        # Kept before it is done: a camera that hangs now is not opened again by the next process.
        kept = self._keeper.keep(paused=command.on)
        with self._lock:
            self._paused = command.on
            self._waiting.append((command, kept))

    def _answer_pauses(self, *, paused: bool) -> None:
        if not self._waiting:
            return
        with self._lock:
            if paused != self._paused:
                return  # on its way
            answered = list(self._waiting)
            self._waiting.clear()
        for command, kept in answered:
            if command.on != paused:
                self._refuse("pause", command.id, "failed", "a later command says otherwise")
            elif not kept:
                self._refuse(
                    "pause", command.id, "failed", "done, but it cannot be kept: a restart will not know of it"
                )
            else:
                self._tell(Reply(command="pause", id=command.id, ok=True, result={"paused": paused}))

    def _verify(self, command: Verify) -> None:
        if self._wanted:
            self._refuse("verify", command.id, "busy", "the former one is not done yet")
            return
        self._wanted = (command, self._abilities.bundle())  # read again, so that its files are checked too

    def _reload(self, command: Reload) -> None:
        if self._abilities.reload is None:
            self._refuse("reload", command.id, "impossible", "nothing would start this process again: it is no service")
            return
        left = _RELOAD_SECONDS - (self._clock() - self._started)
        if left > 0:
            self._refuse("reload", command.id, "too-fast", f"it has just started; try again in {left:.0f} s")
            return
        self._abilities.reload()
        self._tell(Reply(command="reload", id=command.id, ok=True, sentence="ending, to start again with new settings"))

    def _refuse(self, command: str, correlation: str, error: Any, sentence: str) -> None:
        self._tell(Reply(command=command, id=correlation, ok=False, error=error, sentence=sentence))


class _Named(msgspec.Struct):
    """What every command may have, whatever else it is."""

    id: Correlation = ""


def _id_of(payload: bytes) -> str:
    """The id of a command that is refused, so that its sender knows which; empty when it cannot be told."""
    if len(payload) > _LARGEST:
        return ""
    try:
        return msgspec.json.decode(payload, type=_Named).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # msgspec passes over a thousand brackets so
        return ""


def _checking(classifier: Classifier, golden: Golden) -> Iterator[Verification | None]:
    """Compare the golden outputs, a few a step; the last step gives the result."""
    found = []
    for begin in range(0, len(golden.faces), _FACES_A_STEP):
        part = slice(begin, begin + _FACES_A_STEP)
        found.append(check_golden(classifier, replace(golden, faces=golden.faces[part], outputs=golden.outputs[part])))
        yield None
    total = sum(agreed.n for agreed in found)
    top1 = sum(agreed.top1 * agreed.n for agreed in found) / total
    yield conclude(classifier, GoldenAgreement(total, max(agreed.largest_lsb for agreed in found), top1), golden.scene)
