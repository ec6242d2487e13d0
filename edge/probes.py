"""What the doctor does in a child process, because a camera may hang and a mismatched library may crash.

``python -m edge.probes NAME ARGUMENT`` prints one JSON object a line. An error of ours ends it with its exit code and
its sentence on stderr.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Final

import msgspec

from edge.errors import guarded
from edge.settings import Camera, Model

_DISTRIBUTIONS: Final = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tflite_runtime.interpreter": "tflite-runtime",
    "picamera2": "picamera2",
}


def imports(_argument: str) -> None:
    """Import, one after the other into this one process, what is there; each is named before and told after."""
    for module, distribution in _DISTRIBUTIONS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue
        _tell({"importing": distribution})
        try:
            importlib.import_module(module)
        except (
            ImportError,
            ValueError,
            AttributeError,
            SystemError,
        ) as error:  # what a wrong numpy has been seen to do
            _tell({"failed": distribution, "error": f"{type(error).__name__}: {error}"})
            return
        _tell({"imported": distribution, "version": _version(distribution)})


def frame(argument: str) -> None:
    """Open the source of these camera settings and take one frame."""
    from edge.camera import open_source  # noqa: PLC0415  OpenCV may be what is broken; `imports` must get that far

    gray = next(open_source(msgspec.json.decode(argument, type=Camera)).frames()).gray
    _tell({"width": gray.shape[1], "height": gray.shape[0], "darkest": int(gray.min()), "brightest": int(gray.max())})


def golden(argument: str) -> None:
    """Open the bundle of these model settings and compare its golden outputs."""
    from edge.bundle import find_bundle, open_bundle  # noqa: PLC0415
    from edge.classify import Classifier  # noqa: PLC0415
    from edge.verify import check_golden  # noqa: PLC0415

    settings = msgspec.json.decode(argument, type=Model)
    bundle = open_bundle(find_bundle(settings.bundle))
    classifier = Classifier(bundle, settings.threads)
    agreed = asdict(check_golden(classifier, bundle.golden))
    _tell({"name": bundle.card.name, "runtime": classifier.runtime, **agreed})


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # Debian's OpenCV, for one, is no Python distribution
        return "?"


def _tell(told: dict[str, object]) -> None:
    print(json.dumps(told), flush=True)


def _main(name: str, argument: str) -> int:
    probes: dict[str, Callable[[str], None]] = {"imports": imports, "frame": frame, "golden": golden}
    probes[name](argument)
    return 0


if __name__ == "__main__":
    sys.exit(guarded("probe", lambda: _main(sys.argv[1], sys.argv[2])))
