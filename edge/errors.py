"""The errors that a user may see, each with the exit code of the command line and the service."""

import difflib
from collections.abc import Iterable


class FerEdgeError(Exception):
    """Base class of every error that fer-edge raises on purpose; its message says what to do.

    ``exit_code`` is the process's exit code when the error ends it (table in docs/troubleshooting.md).
    """

    exit_code = 1

    def __str__(self) -> str:
        r"""The message. Bytes of a file's name that are not UTF-8 are written ``\udcff``, so that it can be sent."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class UsageError(FerEdgeError):
    """The command line is wrong, or asks for something that cannot be done here."""

    exit_code = 2


class SettingsError(FerEdgeError):
    """The configuration file is missing or malformed, or has an unknown key or a wrong value."""

    exit_code = 3


class BundleError(FerEdgeError):
    """The model bundle is damaged, or does not match its card."""

    exit_code = 4


class SourceError(FerEdgeError):
    """The camera, video, stream, folder or picture cannot be opened or read."""

    exit_code = 5


class RuntimeMissingError(FerEdgeError):
    """No usable TFLite runtime is installed."""

    exit_code = 6


class DataError(FerEdgeError):
    """Labelled data is malformed; the message names file, row and reason."""

    exit_code = 7


class DeliveryError(FerEdgeError):
    """The source has ended, but the broker has not acknowledged every message."""

    exit_code = 8


class SystemCommandError(FerEdgeError):
    """A command of the operating system that is needed to install the service has failed."""

    exit_code = 9


class CameraStalled(FerEdgeError):  # noqa: N818  the name says what happened
    """A live camera gives no new picture; it must be opened again, best by a new process."""

    exit_code = 10


class AcceleratorError(FerEdgeError):
    """The Edge TPU that is wanted, or worked before, cannot be used; the CPU is used instead."""

    exit_code = 21


class StoreError(FerEdgeError):
    """A file that must outlive a restart is in use by another process, or cannot be written."""

    exit_code = 18


class VerificationError(FerEdgeError):
    """The model does not work on this device as its card states."""

    exit_code = 23


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a message about an unknown name: the known name that is most like it, or all known names.

    ``prefix`` stands before each name and is not compared: what all begin with makes none more like another.

    A known name that begins with the unknown one is more like it than any other: ``user`` is ``username``, not ``url``.
    """
    names = list(known)
    longer = [candidate for candidate in names if name and candidate.startswith(name)]
    matches = difflib.get_close_matches(name, longer or names, n=1, cutoff=0.0 if longer else 0.5)
    return f"did you mean {prefix}{matches[0]}?" if matches else f"known here: {', '.join(names) or 'none'}"


def exit_meanings() -> dict[int, str]:
    """The meaning of each exit code of ``fer-edge``: the first line of its error's docstring."""
    kinds = (kind for kind in FerEdgeError.__subclasses__() if kind.__module__ == __name__)
    meanings = {kind.exit_code: (kind.__doc__ or "").partition("\n")[0] for kind in kinds}
    return {0: "It ended normally.", 1: "An error without an exit code of its own: see the journal.", **meanings}
