"""The report of ``fer-edge bench``, for a machine and for a person."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from edge.bench.results import ClipResult
from edge.bench.startup import StartSummary
from edge.model.classifier import Classifier


def make_report(
    classifier: Classifier, detector: str, clips: Sequence[tuple[str, ClipResult]], start: StartSummary
) -> dict[str, Any]:
    """The report that ``--json`` prints; ``clips`` are names and results, in the order of the command line."""
    total = ClipResult()
    for _, result in clips:
        total += result
    return {
        "machine": f"{platform.machine()}, {_processor()}",
        "opencv": cv2.__version__,
        "runtime": classifier.runtime,
        "model": classifier.card.name,
        "detector": detector,
        "clips": [result.as_json(name) for name, result in clips],
        "total": total.as_json("total"),
        "start": {
            name: value if isinstance(value, str | int | None) else round(value, 3)
            for name, value in asdict(start).items()
        },
    }


def report_text(report: dict[str, Any]) -> str:
    """The report for a person."""
    total = report["total"]
    lines = [
        f"{report['model']} on {report['runtime']}, OpenCV {report['opencv']}, one thread; {report['machine']}",
        "",
        f"{'':12}{'CPU ms a frame':^26}      {'of the baseline':^15}  {'against the truth':^57}",
        f"{'clip':10}{'frames':>7}{'baseline':>10}{'fer-edge':>10}{'ratio':>8}{'faces covered':>18}"
        f"{'recall':>10}{'(baseline)':>11}{'false tracks':>14}{'(lingering)':>12}{'switches':>10}",
    ]
    rows = [*report["clips"], total] if len(report["clips"]) > 1 else report["clips"]
    lines += [_clip_row(row) for row in rows]
    known = sum(row["fer_edge"]["counts"] is not None for row in report["clips"])
    if 0 < known < len(report["clips"]):
        lines.append(f"faces of the total: those of the {known} of {len(report['clips'])} clips with a ground truth")
    if total["recall_by_size"]:
        lines += ["", *_recall_lines(total["recall_by_size"])]
    baseline, edge = total["tutorial"], total["fer_edge"]
    lines += [
        "",
        f"CPU ms a frame{'detector':>12}{'network':>10}{'the rest':>10}{'sum':>10}{'wall':>10}{'fps':>8}"
        f"{'scans':>10}{'faces':>8}",
        *(_cost_row(name, side) for name, side in (("baseline", baseline), ("fer-edge", edge))),
        "",
        "fer-edge by stage, CPU (wall): "
        + ", ".join(f"{name} {ms['cpu']:.3f} ({ms['wall']:.3f})" for name, ms in edge["stages_ms"].items()),
        _start_line(report["start"]),
        "baseline: OpenCV's tutorial loop, which scans every frame and classifies every face",
    ]
    return "\n".join(lines)


def _clip_row(row: dict[str, Any]) -> str:
    baseline, edge, covered = row["tutorial"], row["fer_edge"], row["covered"]
    switches = edge["counts"]["switches"] if edge["counts"] else "-"
    return (
        f"{row['clip'][:16]:<10}{row['frames']:>7}{baseline['cpu_ms']:>10.2f}{edge['cpu_ms']:>10.3f}{row['ratio']:>7.1f}x"
        f"{_percent(covered['share']):>10} of {covered['faces']:<4}{_percent(edge['recall']):>10}"
        f"{_percent(baseline['recall']):>11}{_percent(edge['false_tracks']):>14}"
        f"{_percent(edge['lingering_tracks']):>12}{switches:>10}"
    )


def _recall_lines(sides: dict[str, Any]) -> list[str]:
    """The table of recall by size and pose, for all videos together; a row for each band that has faces."""
    lines = [f"{'recall by size, % of the shorter side':40}{'baseline':>22}{'fer-edge':>22}"]
    for baseline, edge in zip(sides["tutorial"]["bands"], sides["fer_edge"]["bands"], strict=True):
        if baseline["faces"]:
            name = f"{baseline['pose']}, from {100 * baseline['size']:g} %"
            lines.append(f"{name:40}{_found(baseline):>22}{_found(edge):>22}")
    false = (f"{side['false']} of {side['boxes']}" for side in sides.values())
    lines.append(f"{'false boxes':40}" + "".join(f"{text:>22}" for text in false))
    return lines


def _found(band: dict[str, Any]) -> str:
    return f"{band['found']} of {band['faces']}{_percent(band['found'] / band['faces']):>9}"


def _cost_row(name: str, side: dict[str, Any]) -> str:
    parts = side["parts_cpu_ms"]
    return (
        f"{name:14}{parts['cascade']:>12.3f}{parts['network']:>10.3f}{parts['rest']:>10.3f}{side['cpu_ms']:>10.3f}"
        f"{side['wall_ms']:>10.3f}{side['fps']:>8.0f}{side['scans_per_frame']:>10.3f}{side['inferences_per_frame']:>8.3f}"
    )


def _start_line(start: dict[str, Any]) -> str:
    memory = f"fer-edge run on {start['clip']}: peak of resident memory {start['peak_mb']:.0f} MB"
    if start["seconds"] is None:
        return f"{memory}; no event"
    return (
        f"{memory}; first event {start['seconds']:.2f} s after its start, {start['cpu_seconds']:.2f} s of CPU "
        f"(medians of {start['times']})"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _processor() -> str:
    """The board's or the processor's name. A Raspberry Pi has the former, a PC has the latter."""
    for file, key in ((Path("/proc/device-tree/model"), ""), (Path("/proc/cpuinfo"), "model name")):
        try:
            lines = file.read_text(errors="replace").rstrip("\0").splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip() if key else line.strip()
    return "unknown processor"
