import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import numpy as np  # noqa: E402
import tf_keras as keras  # noqa: E402

from train.models import MODELS, macs  # noqa: E402


@pytest.mark.parametrize(
    ("name", "parameters", "most_mmac"), [("student", 3_500_000, 110), ("student-small", 1_200_000, 45)]
)
def test_students_keep_their_budget(name: str, parameters: int, most_mmac: float) -> None:
    model = MODELS[name].build(0.3)
    assert model.count_params() <= parameters
    assert macs(model) <= most_mmac * 1e6
    assert model.input_shape == (None, 48, 48, 1)
    assert model.output_shape == (None, 7)


def test_the_paper_cnn_is_exact() -> None:
    """The published layer table: 3,823,367 parameters, 3,819,399 of them trainable."""
    model = MODELS["paper"].build(0.25)
    assert model.count_params() == 3_823_367
    assert sum(weight.shape.num_elements() for weight in model.trainable_weights) == 3_819_399
    assert [layer.output_shape[1:] for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)] == [
        (24, 24, 64),
        (12, 12, 128),
        (6, 6, 512),
        (2, 2, 512),
    ]


def test_macs_are_counted_by_hand_on_a_small_net() -> None:
    picture = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, padding="same")(picture)  # 8*8 * 3*3*2*4
    x = keras.layers.DepthwiseConv2D(3, 2, padding="same")(x)  # 4*4 * 3*3*4
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(picture, keras.layers.Dense(5)(x))  # 4*5
    assert macs(model) == 8 * 8 * 72 + 4 * 4 * 36 + 20


def test_the_last_layer_gives_logits_not_probabilities() -> None:
    model = MODELS["student-small"].build(0.3)
    logits = model.predict(np.random.default_rng(0).normal(size=(4, 48, 48, 1)), verbose=0)
    assert model.layers[-1].activation is keras.activations.linear
    assert not np.allclose(logits.sum(axis=1), 1)
