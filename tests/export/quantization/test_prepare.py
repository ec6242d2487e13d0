import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from tf_keras import layers  # noqa: E402

from export.quantization.errors import ConversionError  # noqa: E402
from export.quantization.prepare import prepare_network  # noqa: E402
from train.models.registry import MODELS  # noqa: E402


@pytest.mark.parametrize("name", ["paper", "shallow"])
def test_folding_changes_nothing_but_rounding(name: str) -> None:
    rng = np.random.default_rng(1)
    model = MODELS[name].build(0.3)
    model.set_weights([w + rng.uniform(0, 0.5, w.shape) for w in model.get_weights()])  # norms that do something
    prepared = prepare_network(model)
    faces = rng.uniform(-1, 1, (8, 48, 48, 1)).astype(np.float32)
    before, after = model.predict(faces, verbose=0), prepared.predict(faces, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    kinds = [type(layer) for layer in prepared.layers]
    assert layers.Dropout not in kinds
    assert layers.BatchNormalization not in kinds[kinds.index(layers.Flatten) :]


def test_a_network_that_cannot_be_quantized_is_refused_by_the_layer_in_the_way() -> None:
    with pytest.raises(ConversionError, match=r"co-teacher: layer upsample \(UpSampling2D\)"):
        prepare_network(MODELS["co-teacher"].build(0.3))
