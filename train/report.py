"""``report.html``: the accuracy of a run or a bundle, in one file without scripts. It shows no faces."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, ReliabilityDiagram, measure, reliability_diagram
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import softmax
from train.outputs import replacing

if TYPE_CHECKING:  # it loads TensorFlow, which takes seconds and is not needed to draw
    from train.checkpoints import Epoch

_TEMPLATES: Final = Environment(autoescape=True, keep_trailing_newline=True)
_PAGE: Final = _TEMPLATES.from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto } code { background: #f3f3f3 }
</style></head><body><h1>{{ title }}</h1>
{% for heading, body in sections %}{% if heading %}<h2>{{ heading }}</h2>
{% endif %}{{ body }}
{% endfor %}</body></html>
""")
_TABLE: Final = _TEMPLATES.from_string(
    "<table><tr>{% for head in heads %}<th>{{ head }}{% endfor %}</tr>{% for row in rows %}"
    "<tr>{% for cell in row %}<td>{{ cell }}{% endfor %}</tr>{% endfor %}</table>"
)


def write_report(
    folder: Path, command: str, history: "list[Epoch]", measured: LabelledFaces, logits: NDArray[np.float32]
) -> None:
    """Write ``report.html`` of a finished run into its folder.

    ``logits`` is ``(n, 7)``: those of the best epoch for the ``measured`` faces in single crop.
    """
    probabilities = softmax(logits.astype(np.float64))
    figures = measure(measured.labels, probabilities.argmax(axis=1), FER2013_LABELS)
    diagram = reliability_diagram(measured.labels, probabilities)
    best = max(history, key=lambda line: line.accuracy)
    summary = (
        f"{measured.split}, {figures.n} faces, single crop, Keras: accuracy {figures.accuracy:.2%}, macro-F1 "
        f"{figures.macro_f1:.2%}, expected calibration error {diagram.ece:.3f}. Epoch {best.epoch + 1} of "
        f"{len(history)}, chosen by {measured.split}."
    )
    page = render(
        folder.name,
        [
            ("", Markup("<p>{}</p><p><code>{}</code></p>").format(summary, command)),
            ("Training and validation", _epoch_table(best, measured)),
            ("Learning curves", draw_svg(lambda figure: _curves(figure, history, str(measured.split)), 12, 3.2)),
            *classifier_sections(figures, diagram),
        ],
    )
    (folder / "report.html").write_text(page)


def render(title: str, sections: Iterable[tuple[str, Markup]]) -> str:
    """A page of sections, each a heading and HTML."""
    return _PAGE.render(title=title, sections=sections)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """An HTML table; text is escaped."""
    return Markup(_TABLE.render(heads=heads, rows=rows))


def classifier_sections(figures: Figures, diagram: ReliabilityDiagram) -> list[tuple[str, Markup]]:
    """The sections of every report: figures per class, confusion matrix, reliability diagram."""
    return [
        ("Per class", _class_table(figures)),
        ("Confusion matrix", draw_svg(lambda figure: _confusion(figure, figures), 6, 5)),
        ("Reliability diagram", draw_svg(lambda figure: _reliability(figure, diagram), 5, 4) + _bin_table(diagram)),
    ]


def draw_confusion(figures: Figures, file: Path) -> None:
    """Write the confusion matrix alone, as SVG. Raises UsageError when the file cannot be written."""
    drawn = draw_svg(lambda figure: _confusion(figure, figures), 6, 5)
    with replacing(file) as target:
        target.write(drawn.encode())


def draw_svg(draw: Callable[[Figure], None], width: float, height: float) -> Markup:
    """Draw an inline SVG of ``width`` x ``height`` inches; the same figures give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "fer-edge", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    svg = target.getvalue()
    return Markup(svg[svg.index("<svg") :])


def _class_table(figures: Figures) -> Markup:
    rows = (
        (label, f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.1%}", str(c.support))
        for label, c in figures.per_class.items()
    )
    return table(("label", "precision", "recall", "F1", "faces"), rows)


def _bin_table(diagram: ReliabilityDiagram) -> Markup:
    count = len(diagram.bins)
    rows = (
        (f"{i / count:.0%} to {(i + 1) / count:.0%}", str(b.n), f"{b.confidence:.1%}", f"{b.accuracy:.1%}")
        for i, b in enumerate(diagram.bins)
        if b.n
    )
    return table(("confidence", "faces", "mean confidence", "accuracy"), rows)


def _epoch_table(best: "Epoch", measured: LabelledFaces) -> Markup:
    """Loss and accuracy of the best epoch; a history of an earlier version has not all of them."""
    rows = (
        ("Training", best.training_loss, best.training_accuracy),
        (str(measured.split), best.validation_loss, best.accuracy),
    )
    note = Markup(
        "<p>Loss: the mean cross-entropy of the label. Training: the mean over the steps of that epoch, with dropout, "
        "on changed pictures.</p>"
    )
    shown = (
        (name, "" if loss is None else f"{loss:.3f}", "" if accuracy is None else f"{accuracy:.2%}")
        for name, loss, accuracy in rows
    )
    return table(("faces", "loss", "accuracy"), shown) + note


def _curves(figure: Figure, history: "list[Epoch]", split: str) -> None:
    epochs = [line.epoch + 1 for line in history]
    panels: list[tuple[str, dict[str, list[float | None]]]] = [
        (
            "loss (cross-entropy of the label)",
            {
                "Training": [line.training_loss for line in history],
                split: [line.validation_loss for line in history],
            },
        ),
        (
            "accuracy",
            {"Training": [line.training_accuracy for line in history], split: [line.accuracy for line in history]},
        ),
        ("what training minimizes", {"Training": [line.loss for line in history]}),
        ("learning rate", {"": [line.learning_rate for line in history]}),
    ]
    for axes, (title, curves) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, values in curves.items():
            known = [np.nan if value is None else value for value in values]
            axes.plot(epochs, known, marker="." if len(epochs) < 30 else "", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()


def _confusion(figure: Figure, figures: Figures) -> None:
    axes: Any = figure.subplots()
    share = figures.confusion / np.maximum(figures.confusion.sum(axis=1, keepdims=True), 1)
    cells = range(len(figures.labels))
    axes.pcolormesh(cells, cells, share, cmap="Blues", vmin=0, vmax=1, shading="nearest")  # imshow embeds a PNG
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(share):
        axes.text(column, row, f"{value:.0%}", ha="center", va="center", color="white" if value > 0.5 else "black")
    axes.set_xticks(cells, figures.labels, rotation=45, ha="right")
    axes.set_yticks(cells, figures.labels)
    axes.set(xlabel="called", ylabel="labelled", title="share of each label's faces")


def _reliability(figure: Figure, diagram: ReliabilityDiagram) -> None:
    axes: Any = figure.subplots()
    filled = [b for b in diagram.bins if b.n]
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    axes.bar(
        [(i + 0.5) / len(diagram.bins) for i in range(len(diagram.bins))],
        [b.accuracy for b in diagram.bins],
        width=1 / len(diagram.bins),
        alpha=0.5,
        edgecolor="white",
        label="accuracy",
    )
    axes.plot([b.confidence for b in filled], [b.accuracy for b in filled], "o", label="mean confidence")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=f"ECE {diagram.ece:.3f}, 10 bins")
    axes.legend()
