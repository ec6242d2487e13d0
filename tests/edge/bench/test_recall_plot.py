from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.bench.recall_plot import draw_recall
from edge.errors import SourceError

BLUE, ORANGE, WHITE = [172, 116, 43], [60, 145, 240], [255, 255, 255]


def side(found: int) -> dict[str, Any]:
    bands = [{"pose": "frontal", "size": 0.12, "faces": 10, "found": found}]
    return {"boxes": 12, "false": 2, "bands": [*bands, {"pose": "turned", "size": 0.03, "faces": 0, "found": 0}]}


def report() -> dict[str, Any]:
    costs = {name: {"cpu_ms": ms} for name, ms in (("tutorial", 100.0), ("fer_edge", 4.0))}
    total = {**costs, "recall_by_size": {"tutorial": side(5), "fer_edge": side(9)}}
    return {"clips": [{}], "total": total, "detector": "haar", "opencv": "4.14.0", "machine": "x86_64"}


def test_each_side_has_a_bar_as_high_as_its_recall(tmp_path: Path) -> None:
    file = tmp_path / "recall.png"
    draw_recall(report(), file)
    picture = cv2.imread(str(file))
    baseline, edge = picture[:, 450], picture[:, 850]  # the only band that has faces takes the whole width
    assert baseline[555].tolist() == BLUE
    assert edge[555].tolist() == ORANGE
    assert abs(sum(pixel.tolist() == BLUE for pixel in baseline) - 0.5 * 390) < 5
    assert abs(sum(pixel.tolist() == ORANGE for pixel in edge) - 0.9 * 390) < 5
    assert picture[555, 1130].tolist() == WHITE


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none/recall\.png: cannot be written: No such file"):
        draw_recall(report(), tmp_path / "none" / "recall.png")
