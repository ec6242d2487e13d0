"""The errors a user can meet, each with the exit code that the command line and the service document."""

import difflib
from collections.abc import Iterable


class FerEdgeError(Exception):
    """Root of every error that fer-edge raises on purpose; its text says what to do.

    ``exit_code`` is what the process returns when the error ends it (table in docs/troubleshooting.md).
    """

    exit_code = 1


class UsageError(FerEdgeError):
    """A command line or argument that cannot be carried out."""

    exit_code = 2


class SettingsError(FerEdgeError):
    """The configuration file is missing, malformed, or has an unknown or ill-typed key."""

    exit_code = 3


class BundleError(FerEdgeError):
    """The model bundle is not what its card says it is."""

    exit_code = 4


class SourceError(FerEdgeError):
    """The camera, video, folder or image cannot be opened or read."""

    exit_code = 5


class RuntimeMissingError(FerEdgeError):
    """No usable TFLite runtime is installed."""

    exit_code = 6


class DataError(FerEdgeError):
    """Labelled data is malformed; the text names file, row and reason."""

    exit_code = 7


class DeliveryError(FerEdgeError):
    """The source ended, but the broker has not acknowledged every message."""

    exit_code = 8


class SystemCommandError(FerEdgeError):
    """A command of the operating system that installing the service needs has failed."""

    exit_code = 9


class CameraStalled(FerEdgeError):  # noqa: N818  it says what happened
    """A live camera gives no new picture; only opening it again, best in a new process, can help."""

    exit_code = 10


class AcceleratorError(FerEdgeError):
    """The Edge TPU that is wanted, or worked before, cannot be used; the CPU works in its place."""

    exit_code = 21


class StoreError(FerEdgeError):
    """What must outlive a restart cannot be kept: its file is in use, or cannot be written."""

    exit_code = 18


class VerificationError(FerEdgeError):
    """The model does not do on this device what its card says."""

    exit_code = 23


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that was probably meant, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names) or 'none'}"


def exit_meanings() -> dict[int, str]:
    """What each exit code of the device's commands says, from the first lines above."""
    kinds = (kind for kind in FerEdgeError.__subclasses__() if kind.__module__ == __name__)
    told = {kind.exit_code: (kind.__doc__ or "").partition("\n")[0] for kind in kinds}
    return {0: "It ended as it should.", 1: "An error without a code of its own: see the journal.", **told}
