"""The models that were installed on a device, and which one is in use.

``MODELS/NAME-HASH`` are bundles, complete and checked before they get that name; ``MODELS/choice.json`` says which one
is in use and which one was before, and is replaced in one step. So a power cut leaves the old or the new model. The
service cannot write in there when root has installed: what it finds of a model is kept beside, in ``verdict.json``.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from edge.errors import BundleError, StoreError, UsageError, nearest
from edge.model.archive import read_bundle_archive
from edge.model.bundle import CARD_FILE, DEFAULT, GOLDEN_FILE, MODEL_FILE, Bundle, bundled, find_bundle, open_bundle
from edge.settings import Settings, StoreSettings
from edge.system.atomic_file import sync_folder, write_durably
from edge.system.state import SERVICE_STATE, store_folder

_log = logging.getLogger(__name__)

FOLDER: Final = "models"
KEPT: Final = 5
"""So many installed models stay on the disk: the one in use, the one before, and those last in use before them."""
VERDICT_FILE: Final = "verdict.json"

_CHOICE_FILE: Final = "choice.json"
_INCOMING: Final = ".incoming-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_Kept = TypeVar("_Kept", "Choice", "TrialOutcome")

Step = Callable[[str], None]
"""Called before each thing that a power cut may come before, with its name; tests cut the power there."""


class Choice(msgspec.Struct, frozen=True):
    """Which model is in use and which one was before; empty is the program's own, whichever that is after an upgrade.

    ``number`` grows with each switch, so that a verdict on an earlier one does not hold for this one.
    """

    current: str = ""
    previous: str = ""
    number: int = 0


class TrialOutcome(msgspec.Struct, frozen=True):
    """What the service found of the switch with this ``number``: it has ``lasted``, or why it is not used."""

    number: int = 0
    lasted: bool = False
    sentence: str = ""


@dataclass(frozen=True)
class Candidate:
    """A model that may run: its name, empty for the program's own, and the folder of its bundle."""

    name: str
    folder: Path

    @property
    def called(self) -> str:
        """What to call it in a sentence."""
        return self.name or DEFAULT


def state_folder(store: StoreSettings, environ: Mapping[str, str], service: Path = SERVICE_STATE) -> Path:
    """The folder of the service's state, as it sees it or from outside; where no service is, the user's."""
    if not store.folder and "STATE_DIRECTORY" not in environ and service.is_dir():
        return service
    return store_folder(store, environ)


class ModelRegistry:
    """The installed models under ``state``, the folder of a device's state."""

    def __init__(self, state: Path, step: Step = lambda _: None) -> None:
        self.folder = state / FOLDER
        self._verdict_file = state / VERDICT_FILE
        self._verdict: TrialOutcome | None = None
        self._step = step

    def require_readable(self) -> None:
        """Raise UsageError when this user may not see the choice, which would then look like the program's own."""
        try:
            os.scandir(self.folder.parent).close()
        except FileNotFoundError:  # nothing was chosen yet
            return
        except OSError as error:
            raise UsageError(f"{self.folder.parent} cannot be read: {error.strerror}. This needs root: sudo") from error

    @property
    def choice(self) -> Choice:
        """What is in use; the program's own model when nothing was chosen, or nobody can read what."""
        return _read(self.folder / _CHOICE_FILE, Choice)

    @property
    def verdict(self) -> TrialOutcome:
        """What the service found of the choice; nothing yet when it is of another choice."""
        verdict = self._verdict or _read(self._verdict_file, TrialOutcome)
        return verdict if verdict.number == self.choice.number else TrialOutcome(self.choice.number)

    def installed(self) -> list[str]:
        """Names of the models that were installed, complete."""
        if not os.access(self.folder, os.R_OK | os.X_OK):
            return []
        return sorted(found.parent.name for found in self.folder.glob(f"[!.]*/{CARD_FILE}"))

    def candidates(self) -> list[Candidate]:
        """What is to run, and after it what to fall back to: the former model, and the program's own."""
        choice = self.choice
        names = [choice.previous, ""] if self.verdict.sentence else [choice.current, choice.previous, ""]
        return [Candidate(name, self.folder_of(name)) for name in dict.fromkeys(names)]

    def lasted(self) -> None:
        """The service has lasted with the choice, which needs no more proof."""
        if not self.verdict.sentence:
            self._judge(TrialOutcome(self.choice.number, lasted=True))

    def refuse(self, sentence: str) -> None:
        """The choice does not work: from now on the one before counts."""
        self._judge(TrialOutcome(self.choice.number, sentence=sentence))

    def _judge(self, verdict: TrialOutcome) -> None:
        """Keep it; what cannot be written holds for this process."""
        if verdict == self.verdict:
            return
        self._verdict = verdict
        try:
            write_durably(self._verdict_file, msgspec.json.encode(verdict), 0o644)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._verdict_file, error.strerror)

    def install(self, source: Path, check: Callable[[Bundle], object]) -> str:
        """Copy a bundle, folder or zip, and put it in use when ``check`` passes; returns the name that it got.

        Of the others, those are removed then that are beyond the KEPT ones.
        Raises BundleError when it is not sound, what ``check`` raises, UsageError without the right to write, and
        StoreError when it cannot be written; nothing is changed then.
        """
        files = read_bundle_archive(source)
        with self._writing():
            self._clear()
            incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.folder))
            try:
                self._fill(incoming, files)
                bundle = open_bundle(incoming)
                name = f"{_safe(bundle.card.name, source)}-{_fingerprint(files)}"
                check(bundle)
                self._settle(incoming, name)
            except BundleError as error:  # the copy that it names is about to go
                raise BundleError(str(error).replace(str(incoming), str(source))) from error
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            self._choose(name)
            self._prune()
        return name

    def use(self, name: str, check: Callable[[Bundle], object]) -> None:
        """Put an installed model in use, or one that comes with the program; as :meth:`install`."""
        known = [*self.installed(), *bundled()]
        if name not in known:
            raise UsageError(f"{name}: no such model; {nearest(name, known)}")
        chosen = "" if name == DEFAULT else name
        check(open_bundle(self.folder_of(chosen)))
        with self._writing():
            self._choose(chosen)

    def rollback(self, check: Callable[[Bundle], object]) -> str:
        """Put the former model in use again; returns its name. As :meth:`install`."""
        choice = self.choice
        if choice.number == 0:
            raise UsageError("no other model was in use before this one")
        check(open_bundle(self.folder_of(choice.previous)))
        with self._writing():
            self._choose(choice.previous)
        return choice.previous or DEFAULT

    def folder_of(self, name: str) -> Path:
        """The bundle of an installed model, or of one that comes with the program; empty is its own."""
        return find_bundle(name) if not name or name in bundled() else self.folder / name

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone, with errors that say what to do."""
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.folder.chmod(0o755)
            with (self.folder / ".lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except PermissionError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}. This needs root: sudo") from error
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}. Nothing was changed.") from error

    def _clear(self) -> None:
        """Remove what a power cut has left of an earlier installation."""
        for left in self.folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _fill(self, incoming: Path, files: Mapping[str, bytes]) -> None:
        """Bring all files to the disk, for every user to read: the service is another one than root."""
        incoming.chmod(0o755)
        for name, content in files.items():
            self._step(f"write {name}")
            write_durably(incoming / name, content, 0o644)
        self._step("sync the folder")
        sync_folder(incoming)

    def _settle(self, incoming: Path, name: str) -> None:
        """Give a complete bundle its name; one of this name is the same, unless it was damaged since."""
        place = self.folder / name
        if place.is_dir():
            try:
                open_bundle(place)
                return
            except BundleError:
                self._step("move the damaged one away")
                place.rename(incoming.with_name(f"{incoming.name}-damaged"))
        self._step("rename")
        incoming.rename(place)
        self._step("sync the name")
        sync_folder(self.folder)

    def _choose(self, name: str) -> None:
        former = self.choice
        previous = former.current if former.current != name else former.previous
        if self.verdict.sentence and former.current != name:  # what failed is nothing to roll back to
            previous = former.previous if former.previous != name else ""
        self._step("choose")
        content = msgspec.json.encode(Choice(name, previous, former.number + 1))
        write_durably(self.folder / _CHOICE_FILE, content, 0o644)
        if name in self.installed():
            os.utime(self.folder / name)  # when it was last put in use, for _prune
        self._step("chosen")

    def _prune(self) -> None:
        """Remove what is beyond the KEPT ones, longest out of use first; never what is in use or was before.

        Each loses its name before its files, so that a power cut leaves no half bundle that could be used.
        """
        needed = {self.choice.current, self.choice.previous} - {""}
        others = [found for found in self.folder.glob("[!.]*") if found.is_dir() and found.name not in needed]
        others.sort(key=lambda found: found.stat().st_mtime, reverse=True)
        for found in others[max(0, KEPT - len(needed)) :]:
            nameless = self.folder / f"{_INCOMING}{found.name}"  # the next installation clears what is left of it
            self._step(f"remove {found.name}")
            try:
                found.rename(nameless)
            except OSError as error:  # the new model is in use all the same
                _log.warning("%s cannot be removed: %s", found, error.strerror)
                continue
            self._step("remove its files")
            shutil.rmtree(nameless, ignore_errors=True)


def deployed_folder(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The bundle that a run uses first: the settings', else the one that was put in use, else the program's."""
    if settings.model.bundle:
        return find_bundle(settings.model.bundle)
    return ModelRegistry(state_folder(settings.store, environ)).candidates()[0].folder


def _safe(name: str, source: Path) -> str:
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"{source}: its card calls it {name!r}; a name has letters, digits, dot, dash and underscore, at most 64"
        )
    return name


def _fingerprint(files: Mapping[str, bytes]) -> str:
    """Twelve digits that tell one bundle from another of the same name."""
    digest = hashlib.sha256()
    for name in (CARD_FILE, MODEL_FILE, GOLDEN_FILE):
        digest.update(hashlib.sha256(files.get(name, b"")).digest())
    return digest.hexdigest()[:12]


def _read(file: Path, kind: type[_Kept]) -> _Kept:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return kind()
    except (OSError, msgspec.DecodeError) as error:
        _log.error("%s cannot be read, so the program's own model counts as chosen: %s", file, error)
        return kind()
