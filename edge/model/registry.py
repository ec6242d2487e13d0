"""The models that are installed on a device, and which one is in use.

``models/NAME-HASH`` are bundles; each is complete and checked before it gets that name. ``models/choice.json`` says
which one is in use and which one was before, and is replaced atomically. So a power cut leaves the old or the new
model. All of it belongs to the service's user, and root works there with that user's rights: who owns the folder around
it could replace it anyway. The service's verdict on a model is beside the folder, in ``verdict.json``.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from edge.errors import BundleError, StoreError, UsageError, nearest
from edge.labels import FER2013_LABELS, Labels
from edge.model.archive import read_bundle_archive
from edge.model.bundle import (
    CARD_FILE,
    CARD_NAME,
    DEFAULT,
    GOLDEN_FILE,
    MODEL_FILE,
    Bundle,
    bundled,
    find_bundle,
    open_bundle,
    read_card,
)
from edge.settings import Settings, StoreSettings
from edge.system.atomic_file import sync_folder, write_durably
from edge.system.owner_rights import owner_name, rights_of_owner
from edge.system.state import SERVICE_STATE, store_folder
from edge.untrusted_file import MALFORMED_JSON, read_regular

_log = logging.getLogger(__name__)

FOLDER: Final = "models"
MAX_INSTALLED: Final = 5
"""How many installed models stay on the disk: the one in use, the previous one, and those last in use before them."""
VERDICT_FILE: Final = "verdict.json"

_CHOICE_FILE: Final = "choice.json"
_LARGEST_JSON: Final = 2**16  # bytes
_INCOMING: Final = ".incoming-"

_Stored = TypeVar("_Stored", "Choice", "SwitchVerdict")

StoredName = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\Z", max_length=100)]
"""The name of a model in a file that the service's user may change: it leads out of no folder."""

Step = Callable[[str], None]
"""Called with the name of each step before it is done; tests simulate a power cut there."""


class Choice(msgspec.Struct, frozen=True):
    """Which model is in use, and which one was before. An empty name is the bundled model DEFAULT.

    ``number`` grows with each switch, also after this file was lost, so that a verdict on an earlier switch does not
    apply to this one.
    """

    current: StoredName = ""
    previous: StoredName = ""
    number: int = 0


class SwitchVerdict(msgspec.Struct, frozen=True):
    """The service's verdict on a switch: the model has ``lasted``, or ``sentence`` says why it failed.

    Both are empty while it is undecided. ``number`` is the switch's.
    """

    number: int = 0
    lasted: bool = False
    sentence: str = ""


@dataclass(frozen=True)
class Candidate:
    """A model that may run: its name, empty for the bundled model DEFAULT, and the folder of its bundle."""

    name: str
    folder: Path

    @property
    def display_name(self) -> str:
        """Its name in sentences."""
        return self.name or DEFAULT


def state_folder(store: StoreSettings, environ: Mapping[str, str], service: Path = SERVICE_STATE) -> Path:
    """The folder of the service's state, seen from inside the service or outside; without a service, the user's."""
    if not store.folder and "STATE_DIRECTORY" not in environ and service.is_dir():
        return service
    return store_folder(store, environ)


class ModelRegistry:
    """The installed models in ``state``, the state folder of a device."""

    def __init__(self, state: Path, step: Step = lambda _: None) -> None:
        self.folder = state / FOLDER
        self._verdict_file = state / VERDICT_FILE
        self._verdict: SwitchVerdict | None = None
        self._step = step

    def require_readable(self) -> None:
        """Raise UsageError when this user may not read the choice: DEFAULT would then seem to be in use."""
        try:
            os.scandir(self.folder.parent).close()
        except FileNotFoundError:  # no model was chosen yet
            return
        except OSError as error:
            raise UsageError(f"{self.folder.parent} cannot be read: {error.strerror}. This needs root: sudo") from error

    @property
    def choice(self) -> Choice:
        """The current choice; DEFAULT when none was made, or it cannot be read."""
        return _read_json(self.folder / _CHOICE_FILE, Choice)

    @property
    def verdict(self) -> SwitchVerdict:
        """The service's verdict on the current choice; undecided when the stored one is about another choice."""
        verdict = self._stored_verdict()
        return verdict if verdict.number == self.choice.number else SwitchVerdict(self.choice.number)

    def _stored_verdict(self) -> SwitchVerdict:
        return self._verdict or _read_json(self._verdict_file, SwitchVerdict)

    def installed(self) -> list[str]:
        """Names of the installed models."""
        with rights_of_owner(self.folder):
            if not os.access(self.folder, os.R_OK | os.X_OK, effective_ids=True):
                return []
            return sorted(found.parent.name for found in self.folder.glob(f"[!.]*/{CARD_FILE}"))

    def candidates(self) -> list[Candidate]:
        """The model that is to run, then those to fall back to: the previous one, and DEFAULT."""
        choice = self.choice
        names = [choice.previous, ""] if self.verdict.sentence else [choice.current, choice.previous, ""]
        return [Candidate(name, self.folder_of(name)) for name in dict.fromkeys(names)]

    def confirm_choice(self) -> None:
        """Record that the service has lasted with the chosen model."""
        if not self.verdict.sentence:
            self._store_verdict(SwitchVerdict(self.choice.number, lasted=True))

    def refuse_choice(self, sentence: str) -> None:
        """Record why the chosen model does not work; from now on the previous one is used."""
        self._store_verdict(SwitchVerdict(self.choice.number, sentence=sentence))

    def _store_verdict(self, verdict: SwitchVerdict) -> None:
        """Store a verdict; when it cannot be written, it holds for this process only."""
        if verdict == self.verdict:
            return
        self._verdict = verdict
        try:
            with rights_of_owner(self._verdict_file.parent):
                write_durably(self._verdict_file, msgspec.json.encode(verdict), 0o644)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._verdict_file, error.strerror)

    def install(self, source: Path, check: Callable[[Bundle], object]) -> str:
        """Copy a bundle, folder or zip, and put it in use when ``check`` passes; returns its name in the registry.

        Installed models beyond MAX_INSTALLED are then removed. Raises BundleError when the bundle is not sound, what
        ``check`` raises, UsageError without the right to write, and StoreError when writing fails; then nothing is
        changed.
        """
        files = read_bundle_archive(source)
        with self._locked():
            self._remove_leftovers()
            incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.folder))
            try:
                self._write_files(incoming, files)
                bundle = open_bundle(incoming)
                name = f"{_checked_name(bundle.card.name, source)}-{_fingerprint(files)}"
                check(bundle)
                self._move_into_place(incoming, name)
            except BundleError as error:  # the copy that it names is about to be removed
                raise BundleError(str(error).replace(str(incoming), str(source))) from error
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            self._choose(name)
            self._remove_surplus()
        return name

    def use(self, name: str, check: Callable[[Bundle], object]) -> None:
        """Put an installed or a bundled model in use. Raises UsageError for an unknown name, and as install does."""
        known = [*self.installed(), *bundled()]
        if name not in known:
            raise UsageError(f"{name}: no such model; {nearest(name, known)}")
        chosen = "" if name == DEFAULT else name
        with self._locked():
            check(open_bundle(self.folder_of(chosen)))
            self._choose(chosen)

    def rollback(self, check: Callable[[Bundle], object]) -> str:
        """Put the previous model in use again; returns its name. Raises UsageError without one, and as install does."""
        choice = self.choice
        if choice.number == 0:
            raise UsageError("there is no previous model: no other one was in use before this one")
        with self._locked():
            check(open_bundle(self.folder_of(choice.previous)))
            self._choose(choice.previous)
        return choice.previous or DEFAULT

    def folder_of(self, name: str) -> Path:
        """The bundle's folder of an installed or bundled model; an empty name is DEFAULT."""
        return find_bundle(name) if not name or name in bundled() else self.folder / name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock for writing, as the user whose state folder it is, even for root.

        Failures to write become errors that say what to do.
        """
        state = self.folder.parent
        try:
            with rights_of_owner(state), _lock(self.folder):
                yield
        except PermissionError as error:
            remedy, owner = "This needs root: sudo", owner_name(state)
            if os.geteuid() == 0 and owner != "root":
                remedy = f"It must belong to {owner}: sudo chown --recursive --no-dereference {owner}: {self.folder}"
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}. {remedy}") from error
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}. Nothing was changed.") from error

    def _remove_leftovers(self) -> None:
        """Remove what a power cut has left of an earlier installation."""
        for left in self.folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _write_files(self, incoming: Path, files: Mapping[str, bytes]) -> None:
        """Write all files to the disk. Every user may read them: the service does not run as root."""
        incoming.chmod(0o755)
        for name, content in files.items():
            self._step(f"write {name}")
            write_durably(incoming / name, content, 0o644)
        self._step("sync the folder")
        sync_folder(incoming)

    def _move_into_place(self, incoming: Path, name: str) -> None:
        """Give a complete bundle its name. An existing bundle of that name is the same, unless it is damaged."""
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
        if self.verdict.sentence and former.current != name:  # never roll back to a model that failed
            previous = former.previous if former.previous != name else ""
        self._step("choose")
        # The verdict outlives a choice that is lost, and must not be about the new one.
        number = max(former.number, self._stored_verdict().number) + 1
        content = msgspec.json.encode(Choice(name, previous, number))
        write_durably(self.folder / _CHOICE_FILE, content, 0o644)
        if name in self.installed():
            os.utime(self.folder / name)  # when it was last put in use, for _remove_surplus
        self._step("chosen")

    def _remove_surplus(self) -> None:
        """Remove the models beyond MAX_INSTALLED, the longest unused first; never the current or the previous one.

        A folder is renamed before its files are removed, so that a power cut leaves no partial bundle that could be
        used.
        """
        choice = self.choice
        folders = [found for found in self.folder.glob("[!.]*") if found.is_dir()]
        others = [found for found in folders if found.name not in (choice.current, choice.previous)]
        others.sort(key=lambda found: found.stat().st_mtime, reverse=True)
        kept = len(folders) - len(others)  # a bundled model takes no place
        for found in others[MAX_INSTALLED - kept :]:
            doomed = self.folder / f"{_INCOMING}{found.name}"  # the next installation removes what is left of it
            self._step(f"remove {found.name}")
            try:
                found.rename(doomed)
            except OSError as error:  # the new model is in use nevertheless
                _log.warning("%s cannot be removed: %s", found, error.strerror)
                continue
            self._step("remove its files")
            shutil.rmtree(doomed, ignore_errors=True)


def deployed_folder(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The bundle that a run tries first: that of the settings, else the one in use. Raises BundleError."""
    if settings.model.bundle:
        return find_bundle(settings.model.bundle)
    return ModelRegistry(state_folder(settings.store, environ)).candidates()[0].folder


def folder_in_use(settings: Settings, environ: Mapping[str, str]) -> Path:
    """As `deployed_folder`, for commands. Raises UsageError when this user may not read which model is in use."""
    if not settings.model.bundle:
        ModelRegistry(state_folder(settings.store, environ)).require_readable()
    return deployed_folder(settings, environ)


def expected_labels(settings: Settings, environ: Mapping[str, str]) -> Labels:
    """The labels of the model that a run tries first; those of DEFAULT when its card cannot be read."""
    try:
        return read_card(deployed_folder(settings, environ)).labels
    except BundleError:
        return FER2013_LABELS


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder of models, which is made if it is missing."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _checked_name(name: str, source: Path) -> str:
    if not CARD_NAME.fullmatch(name):
        raise BundleError(
            f"{source}: its card calls it {name!r}; a name is up to 64 letters, digits, dots, dashes or underscores, "
            "and begins with a letter or digit"
        )
    return name


def _fingerprint(files: Mapping[str, bytes]) -> str:
    """Twelve hexadecimal digits that distinguish bundles of the same name."""
    digest = hashlib.sha256()
    for name in (CARD_FILE, MODEL_FILE, GOLDEN_FILE):
        digest.update(hashlib.sha256(files.get(name, b"")).digest())
    return digest.hexdigest()[:12]


def _read_json(file: Path, kind: type[_Stored]) -> _Stored:
    try:
        with rights_of_owner(file.parent):
            content = read_regular(file, _LARGEST_JSON)
        return msgspec.json.decode(content, type=kind)
    except FileNotFoundError:
        return kind()
    except (OSError, *MALFORMED_JSON) as error:
        _log.error("%s cannot be read, so the bundled model is used: %s", file, error)
        return kind()
