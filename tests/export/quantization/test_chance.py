"""How many faces it takes to tell a good network from chance."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the export extra is not installed")

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces, Split
from export.quantization.chance import require_enough


def faces(labels: list[int]) -> LabelledFaces:
    return LabelledFaces(np.zeros((len(labels), 48, 48), np.uint8), np.array(labels, np.int64), None, Split.TRAINING)


@pytest.mark.parametrize("labels", [[3], [3, 4], [0, 1, 2], 50 * [5]])
def test_faces_that_cannot_tell_a_perfect_network_from_chance_are_refused(labels: list[int]) -> None:
    with pytest.raises(DataError, match=f"Training has too few faces to tell .*: {len(labels)}, of which"):
        require_enough(faces(labels))
    require_enough(faces([0, 1, 2, 3]))
