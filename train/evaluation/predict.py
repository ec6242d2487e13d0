"""``fer-train predict``: name the expression of faces without labels, one line of a CSV for each."""

import csv
import io
from collections import Counter
from pathlib import Path

from edge.labels import FER2013_LABELS
from train.data.unlabelled import read_unlabelled
from train.evaluation.predictors import check_views, open_predictor
from train.outputs import check_output, replacing


def predict(predictor: Path, data: Path, out: Path, views: int) -> Counter[str]:
    """Write the answers of a run or bundle for the faces of ``data`` to ``out``; returns how often it names each label.

    The columns are ``row`` or ``picture``, the class number ``emotion``, its name ``expression``, and the
    ``confidence``, 0 to 1. ``views`` is the number of test-time views. Raises UsageError when ``out`` cannot be written
    or ``predictor`` cannot be opened, and DataError when ``data`` has something that is no face.
    """
    check_views(views)
    check_output(out, data)
    opened = open_predictor(predictor)  # before the data, which may take a minute to parse
    faces = read_unlabelled(data)
    probabilities = opened.probabilities(faces.pixels, views)
    best = probabilities.argmax(axis=1)
    answers = zip(faces.names, best, probabilities.max(axis=1), strict=True)
    lines = [(name, number, FER2013_LABELS[number], f"{confidence:.4f}") for name, number, confidence in answers]
    with replacing(out) as file, io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((faces.named_by, "emotion", "expression", "confidence"))
        writer.writerows(lines)
    return Counter(FER2013_LABELS[number] for number in best)
