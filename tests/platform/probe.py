"""Runs on both sides of the aarch64 test: prints this machine's results on the bundles and on a clip, as JSON.

Arguments: a folder of pictures and their frame rate. Without arguments there is no clip.
"""

import json
import platform
import sys
from importlib import metadata, resources
from pathlib import Path

from edge.camera.sources import open_source
from edge.model.bundle import open_bundle
from edge.model.classifier import Classifier
from edge.model.loader import open_deployed
from edge.model.verification import check_golden
from edge.pipeline import Pipeline, make_pipeline
from edge.settings import CameraSettings, Settings


def goldens() -> dict[str, dict[str, float]]:
    agreements = {}
    for folder in sorted((Path(str(resources.files("edge"))) / "bundles").iterdir()):
        bundle = open_bundle(folder)
        agreement = check_golden(Classifier(bundle), bundle.golden)
        agreements[folder.name] = {"n": agreement.n, "lsb": agreement.largest_lsb, "top1": agreement.top1}
    return agreements


def changes(folder: str, fps: float) -> list[tuple[float, int, str, str, float]]:
    pipeline: Pipeline = make_pipeline(Settings(), open_deployed(Settings(), {})[0])
    frames = open_source(CameraSettings(source=folder, folder_fps=fps)).frames()
    found = [change for seen in pipeline.run(frames) for change in seen.changes] + pipeline.finish()
    return [(c.time, c.track, c.kind, c.expression.label, c.expression.confidence) for c in found]


if __name__ == "__main__":
    packages = ("numpy", "opencv-python-headless", "ai-edge-litert")
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "versions": {name: metadata.version(name) for name in packages},
                "goldens": goldens(),
                "changes": changes(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 1 else [],
            }
        )
    )
