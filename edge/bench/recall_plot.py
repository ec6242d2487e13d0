"""The picture of ``fer-edge bench`` on real videos: which faces are found, by size and pose, side by side."""

from pathlib import Path
from typing import Any, Final

from edge.bench.plot import INK, LINE, MUTED, Canvas, short

_SIDES: Final = {"tutorial": "baseline loop", "fer_edge": "fer-edge"}
_COLOURS: Final = {"tutorial": (172, 116, 43), "fer_edge": (60, 145, 240)}
_LEFT, _RIGHT, _TOP, _BOTTOM = 120, 1140, 170, 560
_WIDTH: Final = 0.36  # of a bar, in the space for a band


def draw_recall(report: dict[str, Any], file: Path) -> None:
    """Draw a report that has ``recall_by_size``, as a PNG. Raises SourceError when it cannot be written."""
    total = report["total"]
    sides = total["recall_by_size"]
    canvas = Canvas()
    canvas.text("Which faces are found", 60, 58, 30)
    false = ", ".join(f"{name} {sides[side]['false']} of {sides[side]['boxes']}" for side, name in _SIDES.items())
    canvas.text(f"{len(report['clips'])} real videos. False boxes: {false}", 60, 92, 15, MUTED)
    for percent in range(0, 101, 25):
        y = _BOTTOM - percent / 100 * (_BOTTOM - _TOP)
        canvas.line((_LEFT, y), (_RIGHT, y), LINE if percent else MUTED)
        canvas.text(f"{percent} %", _LEFT - 10, y + 5, 14, MUTED, 1.0)
    seen = [index for index, band in enumerate(sides["tutorial"]["bands"]) if band["faces"]]
    for place, index in enumerate(seen):
        _draw_band(canvas, {side: sides[side]["bands"][index] for side in _SIDES}, place, len(seen))
    canvas.text("size of the face, in % of the picture's shorter side", (_LEFT + _RIGHT) / 2, 648, 15, MUTED, 0.5)
    for number, (side, name) in enumerate(_SIDES.items()):
        x = 60 + 540 * number
        canvas.box(x, 668, x + 20, 688, _COLOURS[side])
        cpu = total[side]["cpu_ms"]
        canvas.text(f"{name}: {cpu:.1f} ms of CPU a frame", x + 32, 685)
    footer = f"detector of fer-edge: {report['detector']}; OpenCV {report['opencv']}; {report['machine']}"
    canvas.text(short(footer, 120), 60, 734, 13, MUTED)
    canvas.write(file)


def _draw_band(canvas: Canvas, sides: dict[str, dict[str, Any]], place: int, places: int) -> None:
    """Draw one group of bars, with its name and the number of faces below."""
    space = (_RIGHT - _LEFT) / places
    middle = _LEFT + (place + 0.5) * space
    for side, band in sides.items():
        share = band["found"] / band["faces"]
        left = middle - (_WIDTH * space if side == "tutorial" else 0)
        top = _BOTTOM - share * (_BOTTOM - _TOP)
        canvas.box(left, top, left + _WIDTH * space, _BOTTOM, _COLOURS[side])
        canvas.text(f"{100 * share:.0f}", left + _WIDTH * space / 2, top - 6, 13, INK, 0.5)
    band = sides["fer_edge"]
    canvas.text(band["pose"], middle, _BOTTOM + 22, 13, INK, 0.5)
    canvas.text(f"from {100 * band['size']:g} %", middle, _BOTTOM + 40, 13, INK, 0.5)
    canvas.text(f"{band['faces']} faces", middle, _BOTTOM + 60, 13, MUTED, 0.5)
