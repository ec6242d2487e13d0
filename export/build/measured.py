"""An int8 network measured on labelled faces, in every runtime of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, measure
from edge.model.bundle import Golden, Tolerance
from edge.model.classifier import Network
from edge.model.origin import SplitFigures
from edge.model.preprocessing import dequantize, encode
from export.quantization import legacy_runtime
from export.quantization.parity import NetworkForm

QUANTIZATION_AWARE: Final = "quantization-aware training"
POST_TRAINING: Final = "post-training quantization"


@dataclass(frozen=True)
class QuantizedNetwork:
    """The result of one quantization method: an int8 file, and its logits for the ``n`` measured faces.

    ``logits`` is ``(n, labels)`` int8.
    """

    method: str
    file: bytes
    network: Network
    logits: NDArray[np.int8]

    def real_logits(self) -> NDArray[np.float64]:
        """The dequantized logits, ``(n, labels)``."""
        quantization = self.network.output_quantization
        return dequantize(self.logits, quantization.scale, quantization.zero_point)


def measure_logits(logits: NDArray[Any], measured: LabelledFaces) -> Figures:
    """Accuracy of logits ``(n, labels)`` for the measured faces."""
    return measure(measured.labels, logits.argmax(axis=1), measured.names)


def split_figures(logits: NDArray[Any], measured: LabelledFaces) -> SplitFigures:
    """The same as a card states it."""
    figures = measure_logits(logits, measured)
    return SplitFigures(str(measured.split), figures.n, round(figures.accuracy, 5), round(figures.macro_f1, 5))


def runtime_forms(best: QuantizedNetwork, measured: LabelledFaces) -> list[NetworkForm]:
    """The int8 file in the installed runtime, and in the older one if that can run here."""
    forms = [NetworkForm(best.network.runtime, best.logits)]
    if legacy_runtime.available():
        logits = legacy_runtime.outputs(best.file, _encoded(best.network, measured.pixels))
        forms.append(NetworkForm(legacy_runtime.NAME, logits))
    return forms


def _encoded(network: Network, pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    return np.concatenate(
        [encode(face, network.input_quantization.scale, network.input_quantization.zero_point) for face in pixels]
    )


def tolerances(forms: Sequence[NetworkForm], best: QuantizedNetwork, golden: Golden) -> tuple[Tolerance, ...]:
    """How far the older runtime, the last form, is from the newer one, on the measured faces and the golden inputs."""
    if forms[-1].name == best.network.runtime:
        return ()
    legacy_golden = legacy_runtime.outputs(best.file, _encoded(best.network, golden.faces))
    steps = [_largest_step(forms[-1].logits, best.logits), _largest_step(legacy_golden, golden.outputs)]
    same = forms[-1].logits.argmax(axis=1) == best.logits.argmax(axis=1)
    return (Tolerance(forms[-1].name, max(steps), round(float(same.mean()), 5)),)


def _largest_step(first: NDArray[Any], second: NDArray[np.int8]) -> int:
    return int(np.abs(first.astype(np.int64) - second).max())
