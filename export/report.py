"""``report.html`` of a bundle: its card and figures as a page."""

from markupsafe import Markup

from edge.evaluation.metrics import Figures, ReliabilityDiagram
from edge.model.bundle import Card
from edge.model.origin import SplitFigures
from export.quantization.parity import CLEAR_MARGIN, FormPair
from train.report import classifier_sections, render, table


def bundle_report(card: Card, figures: Figures, diagram: ReliabilityDiagram, pairs: list[FormPair]) -> str:
    """The page's HTML; ``figures`` and ``diagram`` are of the int8 file on the measured split, calibrated."""
    return render(
        f"{card.name}, int8",
        [
            ("", _summary(card)),
            ("Before and after quantization", _quantization(card)),
            ("Do all forms agree?", _parity(pairs)),
            ("Confidence", _confidence(card)),
            *classifier_sections(figures, diagram),
            ("The network", _network(card)),
            ("What it was made of", _sources(card)),
            ("Intended use", Markup("<p>{}</p><p>{}</p>").format(card.intended_use, card.limits)),
        ],
    )


def _summary(card: Card) -> Markup:
    figures = card.figures
    text = (
        f"{figures.split}, {figures.n} faces, single crop: accuracy {figures.accuracy:.2%}, macro-F1 "
        f"{figures.macro_f1:.2%}, measured with {card.golden_runtime}."
    )
    return Markup("<p>{}</p><p><code>{}</code></p><p><code>{}</code></p>").format(
        text, card.origin.train_command, card.origin.export_command
    )


def _quantization(card: Card) -> Markup:
    forms: dict[str, SplitFigures] = {"float32": card.origin.float_figures, **card.origin.quantization_figures}
    rows = [
        [f"{name} (used)" if name == card.origin.quantization else name, f"{f.accuracy:.2%}", f"{f.macro_f1:.2%}"]
        for name, f in forms.items()
    ]
    return table(["form", "accuracy", "macro-F1"], rows)


def _parity(pairs: list[FormPair]) -> Markup:
    rows = [
        [
            f"{pair.first} → {pair.second}",
            f"{pair.points:+.2f}",
            f"{pair.agreement:.2%}",
            f"{pair.clear_agreement:.2%} of {pair.clear}" if pair.clear else "",
            str(pair.ties),
            " ".join(map(str, pair.histogram)),
        ]
        for pair in pairs
    ]
    heads = ["forms", "points", "same label", "where clear", "ties", "logits by steps of difference: 0, 1, 2, …"]
    note = Markup("<p>Clear: the first two int8 logits are more than {} steps apart.</p>").format(CLEAR_MARGIN)
    return note + table(heads, rows)


def _confidence(card: Card) -> Markup:
    assessed, abstention, temperature = card.calibration, card.abstention, card.temperature
    verdict = "cannot be distinguished from" if assessed.ece <= assessed.perfect_p95 else "is worse than"
    return Markup(
        f"<p>Temperature: exp({temperature.level:g} {temperature.slope:+g} g {temperature.curve:+g} g²), g being the "
        f"lead of the first logit. Cross-fitted, the expected calibration error is {assessed.ece:.3f} (before: "
        f"{assessed.ece_before:.3f}); a perfectly calibrated model with these confidences stays under "
        f"{assessed.perfect_p95:.3f} in 95 of 100 cases, so this one {verdict} such a model. Negative log-likelihood "
        f"{assessed.nll_before:.3f} → {assessed.nll:.3f}.</p><p>The confidence is {abstention.threshold:.2f} or more "
        f"for {abstention.coverage:.0%} of the faces; {abstention.accuracy:.1%} of those are classified correctly.</p>"
    )


def _network(card: Card) -> Markup:
    ops = ", ".join(f"{count} {name}" for name, count in card.ops.items())
    return Markup("<p>{} parameters, {} million multiply-accumulates per face. {}.</p>").format(
        f"{card.parameters:,}", f"{card.macs / 1e6:.1f}", ops
    )


def _sources(card: Card) -> Markup:
    item = Markup("<li><b>{}</b> ({})<br>{}<br>licence: {}<br>sha256: <code>{}</code></li>")
    items = (
        item.format(one.name, one.role, *(part or "unknown" for part in (one.source, one.licence, one.sha256)))
        for one in card.origin.sources
    )
    return Markup("<ul>{}</ul>").format(Markup("").join(items))
