"""``fer-edge bench --source``: compare the cost and the recall of fer-edge with the baseline's."""

import json
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec

from edge.bench.annotations import Annotations, read_annotations
from edge.bench.compare import bench_clip
from edge.bench.ground_truth import GroundTruth, read_truth, truth_beside
from edge.bench.report import make_report, report_text
from edge.bench.startup import measure_starts
from edge.camera.address import safe_source
from edge.camera.sources import is_live, open_source
from edge.errors import SourceError, UsageError
from edge.model.loader import open_deployed
from edge.model.registry import folder_in_use
from edge.settings import Settings, load_settings
from edge.system.atomic_file import require_writable
from edge.system.instance import service_environ
from edge.system.owner_rights import user_to_become
from edge.untrusted_file import is_file, is_folder


def bench(arguments: Namespace) -> int:
    """Carry out ``fer-edge bench --source`` with its parsed arguments."""
    cv2.setNumThreads(1)
    settings, environ = _settings(arguments), service_environ(arguments.config, os.environ)
    _require_own_network(settings, environ)
    clips = [_clip_of(settings, source) for source in arguments.source]
    if arguments.picture:
        _require_spare(arguments.picture, clips)
    truths = [_truth_of(clip, arguments.truth, len(clips)) for clip in clips]
    results = [bench_clip(settings, clip, truth, environ) for clip, truth in zip(clips, truths, strict=True)]
    with_events = (clip for clip, result in zip(clips, results, strict=True) if result.first_event is not None)
    start = measure_starts(next(with_events, clips[0]), arguments.config, arguments.bundle, arguments.starts)
    named = [(clip.name, result) for clip, result in zip(clips, results, strict=True)]
    report = make_report(open_deployed(settings, environ)[0], settings.detect.detector, named, start)
    print(json.dumps(report) if arguments.json else report_text(report))
    if arguments.picture:
        _draw(report, arguments.picture)
    return 0


def _require_own_network(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raise UsageError when this is root and the model another user's. That user may not read what root may."""
    folder = folder_in_use(settings, environ)
    if user := user_to_become(folder):
        raise UsageError(
            f"{folder} belongs to {user}, and root does not run its network: bench as that user (sudo -u {user}), or "
            "name a bundled model with --bundle"
        )


def _draw(report: dict[str, Any], file: Path) -> None:
    """Draw which faces are found where that is known of real videos, else what a frame costs."""
    from edge.bench.plot import draw_costs  # noqa: PLC0415  both are loaded only when they are used
    from edge.bench.recall_plot import draw_recall  # noqa: PLC0415

    (draw_recall if report["total"]["recall_by_size"] else draw_costs)(report, file)


def _settings(arguments: Namespace) -> Settings:
    if arguments.bundle is None:
        return load_settings(arguments.config)
    if arguments.config:
        raise UsageError("give either --bundle or a --config whose [model] names the bundle")
    if "\\udc" in ascii(arguments.bundle):  # Python's way to write what is not UTF-8, which no settings file can have
        raise UsageError(f"--bundle {arguments.bundle}: this name is not UTF-8. Rename it, or make a link to it")
    settings = Settings()
    return msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, bundle=arguments.bundle))


def _clip_of(settings: Settings, source: str) -> Path:
    """The path of a clip, absolute unless it is the built-in ``demo``: relative to a folder, ``.`` has no name.

    Raises SourceError when it cannot be opened: the clips before it may take hours.
    """
    if is_live(msgspec.structs.replace(settings.camera, source=source)):
        raise UsageError(
            f"{safe_source(source)}: bench needs a video or a folder of pictures, whose frames it can read again"
        )
    clip = Path(source) if source == "demo" else Path(source).absolute()
    open_source(msgspec.structs.replace(settings.camera, source=str(clip))).close()
    return clip


def _require_spare(picture: Path, clips: Sequence[Path]) -> None:
    """Raise UsageError when the picture would be written over a clip, and SourceError when it cannot be written."""
    for clip in clips:
        if is_file(picture) and is_file(clip) and picture.samefile(clip):
            raise UsageError(f"--picture {picture}: this is a source, which would be lost. Give another file")
    try:
        require_writable(picture)
    except OSError as error:
        raise SourceError(f"{picture}: cannot be written: {error.strerror}") from error


def _truth_of(clip: Path, given: Path | None, clips: int) -> GroundTruth | Annotations | None:
    """The ground truth that ``--truth`` gives for a clip, or else the one beside the clip, if there is one."""
    if given and is_folder(given):
        return read_annotations(given / f"{clip.stem}.json")
    if given and clips > 1:
        raise UsageError(f"--truth {given}: no folder. For several sources, give a folder with NAME.json for each")
    if given:
        return read_annotations(given) if given.suffix == ".json" else read_truth(given)
    beside = truth_beside(clip)
    return read_truth(beside) if is_file(beside) else None
