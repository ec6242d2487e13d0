"""The picture of ``fer-edge bench`` on drawn clips: where the milliseconds of a frame go, side by side.

It is drawn with OpenCV, the only drawing library on a device, at three times the size, and then averaged down.
"""

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from edge.errors import SourceError

_SIZE: Final = (1200, 760)
_SCALE: Final = 3
INK, MUTED, LINE = (40, 40, 40), (120, 120, 120), (225, 225, 225)  # BGR, as all colours here
_COLOURS: Final = {"cascade": (172, 116, 43), "network": (60, 145, 240), "rest": (105, 175, 115)}
_NAMES: Final = {"cascade": "face detection", "network": "network (invoke)", "rest": "everything else"}
_TOP, _BOTTOM = 150, 560
_TICKS: Final = 5


class Canvas:
    """A white picture to draw on. Coordinates are pixels of its final size."""

    def __init__(self) -> None:
        self._pixels = np.full((_SIZE[1] * _SCALE, _SIZE[0] * _SCALE, 3), 255, np.uint8)

    def box(self, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]) -> None:
        """Fill a rectangle."""
        cv2.rectangle(self._pixels, _scaled(left, top), _scaled(right, bottom), colour, -1)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int]) -> None:
        """Draw a thin line."""
        cv2.line(self._pixels, _scaled(*start), _scaled(*end), colour, _SCALE, cv2.LINE_AA)

    def text(
        self, text: str, x: float, y: float, size: float = 16, colour: tuple[int, int, int] = INK, align: float = 0.0
    ) -> None:
        """Write text on line ``y``. ``align`` 0 begins it at ``x``, 0.5 centres it there, and 1 ends it there."""
        text = text.encode(errors="replace").decode()  # OpenCV crashes with the name of a file that is not UTF-8
        font, scale = cv2.FONT_HERSHEY_DUPLEX, size * _SCALE / 30
        (width, _), _ = cv2.getTextSize(text, font, scale, _SCALE)
        origin = (round(x * _SCALE - align * width), round(y * _SCALE))
        cv2.putText(self._pixels, text, origin, font, scale, colour, max(1, round(size * _SCALE / 22)), cv2.LINE_AA)

    def write(self, file: Path) -> None:
        """Write it as a PNG. Raises SourceError when that is not possible."""
        encoded = cv2.imencode(".png", cv2.resize(self._pixels, _SIZE, interpolation=cv2.INTER_AREA))[1]
        try:
            file.write_bytes(encoded.tobytes())
        except OSError as error:
            raise SourceError(f"{file}: cannot be written: {error.strerror}") from error


def draw_costs(report: dict[str, Any], file: Path) -> None:
    """Draw the report that ``fer-edge bench --json`` prints, as a PNG. Raises SourceError when it cannot be written."""
    total = report["total"]
    baseline, edge = (total[side]["parts_cpu_ms"] for side in ("tutorial", "fer_edge"))
    canvas = Canvas()
    canvas.text("Where the milliseconds of a frame go", 60, 58, 30)
    clips = ", ".join(Path(clip["clip"]).stem for clip in report["clips"])
    subtitle = f"CPU time of one thread, {total['frames']} frames of {short(clips, 60)}; decoding not counted"
    canvas.text(subtitle, 60, 92, 15, MUTED)
    _panel(canvas, (60, 640), (("baseline loop", baseline), ("fer-edge", edge)))
    if total["ratio"] > 1:
        canvas.text(f"{total['ratio']:.1f} times less", 480, _BOTTOM + 58, 17, MUTED, 0.5)
    _panel(canvas, (760, 1140), (("fer-edge, enlarged", edge),))
    for number, (part, name) in enumerate(_NAMES.items()):
        x = 60 + 330 * number
        canvas.box(x, 668, x + 20, 688, _COLOURS[part])
        canvas.text(name, x + 32, 685)
    footer = f"{report['model']} on {report['runtime']}, OpenCV {report['opencv']}; {report['machine']}"
    canvas.text(short(footer, 120), 60, 734, 13, MUTED)
    canvas.write(file)


def _panel(canvas: Canvas, across: tuple[int, int], bars: tuple[tuple[str, dict[str, float]], ...]) -> None:
    """Draw stacked bars on one scale; each part that is high enough has its value in it."""
    left, right = across
    highest = max([1e-6, *(sum(parts.values()) for _, parts in bars)])
    step = _round_step(highest / _TICKS)
    full = step * int(np.ceil(highest / step))
    per_ms = (_BOTTOM - _TOP) / full
    for tick in range(round(full / step) + 1):
        y = _BOTTOM - tick * step * per_ms
        canvas.line((left + 45, y), (right, y), LINE if tick else MUTED)
        canvas.text(f"{tick * step:g}", left + 36, y + 5, 14, MUTED, 1.0)
    canvas.text("ms", left + 36, _TOP - 14, 14, MUTED, 1.0)
    width = (right - left - 45) / len(bars)
    for number, (name, parts) in enumerate(bars):
        middle = left + 45 + (number + 0.4) * width
        canvas.text(name, middle, _BOTTOM + 32, 17, INK, 0.5)
        bottom = float(_BOTTOM)
        for part, value in parts.items():
            top = bottom - max(0.0, value) * per_ms
            canvas.box(middle - 55, top, middle + 55, bottom, _COLOURS[part])
            if bottom - top >= 18:
                canvas.text(_ms(value), middle, (top + bottom) / 2 + 5, 14, (255, 255, 255), 0.5)
            bottom = top
        canvas.text(f"{_ms(sum(parts.values()))} ms", middle, bottom - 10, 17, INK, 0.5)


def _scaled(x: float, y: float) -> tuple[int, int]:
    return round(x * _SCALE), round(y * _SCALE)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999))


def short(text: str, limit: int) -> str:
    """The text, or its beginning when it has more than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
