"""Run a network as it was brought, with its faces prepared as its user prepares them."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.model.classifier import find_runtime
from edge.records import Gray
from export.importing.scaling import PixelScaling, prepare
from export.importing.source import SourceNetwork
from export.quantization.native import native_messages_hidden

_SECONDS_BETWEEN_MESSAGES: Final = 10


class BroughtNetwork:
    """A source's network in the installed runtime. Raises BundleError when the runtime cannot run it."""

    def __init__(self, source: SourceNetwork) -> None:
        self._source = source
        interpreter_class, self.runtime = find_runtime()
        try:
            with native_messages_hidden():
                self._interpreter = interpreter_class(model_content=source.file, num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{source.path}: {self.runtime} cannot run it: {error}") from error
        [self._input], [self._output] = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def scores(self, pixels: Gray, scaling: PixelScaling) -> NDArray[np.float32]:
        """The scores of a face, ``(48, 48)`` uint8: ``(labels,)`` float32, whether logits or probabilities."""
        values = prepare(pixels, self._source.face, scaling)
        self._interpreter.set_tensor(self._input["index"], _stored(values, self._input))
        self._interpreter.invoke()
        return _real(self._interpreter.get_tensor(self._output["index"])[0], self._output)


def _stored(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    """Real values as a tensor takes them: as they are, or quantized with saturation."""
    dtype = np.dtype(tensor["dtype"])
    if dtype == np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max), dtype)


def _real(stored: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    if stored.dtype == np.float32:
        return stored
    scale, zero_point = tensor["quantization"]
    return np.asarray((stored.astype(np.float32) - zero_point) * scale, np.float32)


def for_each_face(pixels: NDArray[np.uint8], what: str, compute: Callable[[Gray], NDArray[Any]]) -> NDArray[Any]:
    """``compute`` of every face, stacked. What takes long tells stderr how far it is; ``what`` names it."""
    return np.stack(list(_computed(pixels, what, compute)))


def _computed(pixels: NDArray[np.uint8], what: str, compute: Callable[[Gray], NDArray[Any]]) -> Iterator[NDArray[Any]]:
    told = time.monotonic()
    for number, face in enumerate(pixels):
        if time.monotonic() - told > _SECONDS_BETWEEN_MESSAGES:
            told = time.monotonic()
            print(f"{what}: {number:,} of {len(pixels):,} faces", file=sys.stderr, flush=True)
        yield compute(face)
