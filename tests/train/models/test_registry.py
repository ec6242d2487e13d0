"""Every network has its documented parameters, layers, sizes, stages and budgets."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tensorflow as tf  # noqa: E402
import tf_keras as keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from train.models.layers import ToColour  # noqa: E402
from train.models.registry import MODELS, macs  # noqa: E402

RNG = np.random.default_rng(5)
FACES = RNG.normal(0, 0.5, (2, 48, 48, 1)).astype(np.float32)


@cache
def built(name: str) -> Any:
    return MODELS[name].build(0.25)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def trainable(layered: Any) -> list[str]:
    """The names of the layers that have weights to learn."""
    return [layer.name for layer in layered.layers if layer.trainable_weights]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_grey_faces_and_ends_in_seven_float32_logits(name: str) -> None:
    model = built(name)
    last = model.layers[-1]
    assert model.name == name
    assert model.input_shape == (None, 48, 48, 1)
    assert (last.name, last.output_shape, last.dtype) == ("logits", (None, 7), "float32")
    assert last.activation is keras.activations.linear
    assert len(last.input.shape) == 2


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("name", MODELS)
def test_every_model_works_in_mixed_precision(name: str) -> None:
    model = MODELS[name].build(0.0)
    assert {layer.compute_dtype for layer in model.submodules if isinstance(layer, layers.Conv2D)} == {"bfloat16"}
    # depthwise convolutions in bfloat16 slow a CPU down
    assert {x.compute_dtype for x in model.submodules if isinstance(x, layers.DepthwiseConv2D)} <= {"float32"}
    logits = model(FACES, training=True)
    assert logits.dtype == "float32"
    assert np.isfinite(logits.numpy()).all()
    assert not np.allclose(logits[0], logits[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "most_mmac"),
    [
        ("student", 3_500_000, 110),
        ("student-small", 1_200_000, 45),
        ("student-small-72", 1_200_000, 90),
        ("student-half", 900_000, 31),
        ("student-quarter", 250_000, 9),
    ],
)
def test_students_keep_their_budget(name: str, parameters: int, most_mmac: float) -> None:
    model = built(name)
    assert model.count_params() <= parameters
    assert macs(model) <= most_mmac * 1e6


@pytest.mark.parametrize("name", ["student", "student-small"])
def test_students_72_have_the_weights_of_the_student_and_see_an_enlarged_face(name: str) -> None:
    small, large = built(name), MODELS[f"{name}-72"].build(0.25)
    large.set_weights(small.get_weights())
    kernel, *_ = large.get_layer("conv1").get_weights()
    enlarged = tf.compat.v1.image.resize(FACES, (72, 72), align_corners=True)
    expected = tf.nn.conv2d(enlarged, kernel, 1, "SAME")
    seen = keras.Model(large.input, large.get_layer("conv1").output)(FACES)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert 2.2 < macs(large) / macs(small) < 2.4


@pytest.mark.parametrize("name", ["student", "student-small", "student-half", "student-quarter"])
def test_students_use_only_what_quantizes_and_maps_to_an_edge_tpu(name: str) -> None:
    kinds = {type(layer) for layer in built(name).layers}
    assert kinds == {
        *(layers.InputLayer, layers.Conv2D, layers.DepthwiseConv2D, layers.BatchNormalization, layers.ReLU),
        *(layers.GlobalAveragePooling2D, layers.Dropout, layers.Dense),
    }
    assert all(layer.max_value == 6 for layer in built(name).layers if isinstance(layer, layers.ReLU))


def test_the_paper_cnn_is_exact() -> None:
    """The published layer table: 3,823,367 parameters, 3,819,399 of them trainable."""
    model = built("paper")
    assert model.count_params() == 3_823_367
    assert sum(weight.shape.num_elements() for weight in model.trainable_weights) == 3_819_399
    assert [layer.output_shape[1:] for layer in model.layers if isinstance(layer, layers.MaxPooling2D)] == [
        (24, 24, 64),
        (12, 12, 128),
        (6, 6, 512),
        (2, 2, 512),
    ]


def test_the_shallow_cnn_is_exact_layer_by_layer() -> None:
    found = [(type(layer).__name__, layer.output_shape[1:], layer.count_params()) for layer in built("shallow").layers]
    assert found[1:] == [
        ("Conv2D", (48, 48, 32), 3 * 3 * 32 + 32),
        ("BatchNormalization", (48, 48, 32), 4 * 32),
        ("ReLU", (48, 48, 32), 0),
        ("MaxPooling2D", (24, 24, 32), 0),
        ("Dropout", (24, 24, 32), 0),
        ("Conv2D", (24, 24, 64), 3 * 3 * 32 * 64 + 64),
        ("BatchNormalization", (24, 24, 64), 4 * 64),
        ("ReLU", (24, 24, 64), 0),
        ("MaxPooling2D", (12, 12, 64), 0),
        ("Dropout", (12, 12, 64), 0),
        ("Flatten", (9216,), 0),
        ("Dense", (512,), 9216 * 512 + 512),
        ("BatchNormalization", (512,), 4 * 512),
        ("ReLU", (512,), 0),
        ("Dropout", (512,), 0),
        ("Dense", (7,), 512 * 7 + 7),
    ]


def test_vgg16_is_samplewise_and_batch_norm_noise_thirteen_convolutions_and_two_penalised_layers() -> None:
    model = built("vgg16")
    samplewise, norm, noise = model.layers[1:4]
    picture = 3 * FACES + 0.4  # any contrast and brightness
    np.testing.assert_allclose(
        keras.Model(model.input, samplewise.output)(picture),
        (FACES - FACES.mean((1, 2, 3), keepdims=True)) / FACES.std((1, 2, 3), keepdims=True),
        atol=1e-4,
    )
    assert isinstance(norm, layers.BatchNormalization)
    assert isinstance(noise, layers.GaussianNoise)
    assert noise.stddev == 0.01
    filters = [layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert filters == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [type(layer).__name__ for layer in model.layers[-6:]] == ["Flatten", *["Dense", "Dropout"] * 2, "Dense"]
    convolutions = 14_713_536  # keras.applications.VGG16 on one channel
    assert model.count_params() == 4 + convolutions + (512 + 1) * 2048 + (2048 + 1) * 2048 + (2048 + 1) * 7
    hidden = [model.get_layer("fc1"), model.get_layer("fc2")]
    penalty = sum(1e-3 * np.square(weight.numpy()).sum() for layer in hidden for weight in layer.weights)
    assert sum(float(loss) for loss in model.losses) == pytest.approx(penalty, rel=1e-4)


def test_imagenet_resnet_trains_its_head_first_and_then_the_last_two_blocks() -> None:
    model, freeze = built("resnet50-imagenet"), MODELS["resnet50-imagenet"].freeze
    assert freeze is not None
    backbone = model.get_layer("resnet50")
    assert len(backbone.layers) == 175
    assert backbone.layers[155].name == "conv5_block2_1_conv"
    assert model.count_params() == 23_587_712 + (2048 + 1) * 7
    built_as = trainable(backbone)
    freeze(model, True)
    assert trainable(model) == ["logits"]
    freeze(model, False)
    assert trainable(backbone) == built_as
    assert all(name.startswith(("conv5_block2", "conv5_block3")) for name in trainable(backbone))
    assert len(trainable(backbone)) == 2 * 6  # two blocks of three convolutions and three batch norms
    assert trainable(model) == ["resnet50", "logits"]


def test_vggface_resnet_trains_its_head_first_and_then_all_but_batch_norm() -> None:
    model, freeze = built("resnet50-vggface"), MODELS["resnet50-vggface"].freeze
    assert freeze is not None
    backbone = model.get_layer("resnet50")
    assert model.count_params() == 23_561_152 + (2048 + 1) * 2048 + (2048 + 1) * 1024 + (1024 + 1) * 7
    freeze(model, True)
    assert trainable(model) == ["fc1", "fc2", "logits"]
    freeze(model, False)
    assert trainable(model) == ["resnet50", "fc1", "fc2", "logits"]
    learning = [layer for layer in backbone.layers if layer.trainable_weights]
    assert len(learning) == 53
    assert all(isinstance(layer, layers.Conv2D) for layer in learning)


@pytest.mark.parametrize("name", ["resnet50-imagenet", "resnet50-vggface"])
def test_a_published_backbone_keeps_its_statistics_in_either_stage(name: str) -> None:
    model = built(name)
    statistics = [weight for weight in model.get_layer("resnet50").weights if "moving" in weight.name]
    before = [weight.numpy() for weight in statistics]
    for head_only in (True, False):
        MODELS[name].freeze(model, head_only)  # type: ignore[misc]
        model(FACES, training=True)
    assert len(before) == 2 * 53
    for weight, value in zip(statistics, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_the_teacher_keeps_the_resolution() -> None:
    model = built("teacher")
    maps = [model.get_layer(f"conv{stage}_1_1x1_increase").output_shape[1:] for stage in (2, 3, 4, 5)]
    assert maps == [(24, 24, 256), (12, 12, 512), (6, 6, 1024), (3, 3, 2048)]
    assert not any(isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D) for layer in model.layers)
    halving = [layer.name for layer in model.layers if isinstance(layer, layers.Conv2D) and layer.strides != (1, 1)]
    in_blocks = {name for stage in (2, 3, 4, 5) for name in (f"conv{stage}_1_3x3", f"conv{stage}_1_1x1_proj")}
    assert set(halving) == in_blocks
    assert 23.4e6 < model.count_params() < 23.7e6
    assert MODELS["teacher"].freeze is None


def test_facenet_is_inception_resnet_v1() -> None:
    """Its blocks, and the parameters of FaceNet's Keras conversion (22,808,144) less its 128 outputs and their norm."""
    model = built("facenet")
    assert model.count_params() == 22_808_144 - 1792 * 128 - 3 * 128 + (1792 + 1) * 7
    blocks = ("Block35_5", "Block17_10", "Block8_6")
    assert [model.get_layer(f"{block}_Conv2d_1x1").output_shape[1:] for block in blocks] == [
        (11, 11, 256),
        (5, 5, 896),
        (2, 2, 1792),
    ]
    assert sum(isinstance(layer, layers.Add) for layer in model.layers) == 5 + 10 + 6


def test_a_nested_model_with_slashes_in_its_names_is_saved_and_read_back(tmp_path: Path) -> None:
    """As the trainer keeps the best epoch."""
    model, other = built("resnet50-vggface"), MODELS["resnet50-vggface"].build(0.25)
    model.save_weights(tmp_path / "best.weights.h5")
    assert not np.allclose(other(FACES), model(FACES), atol=1e-4)
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_allclose(other(FACES), model(FACES), atol=1e-4)


def test_grey_becomes_pixels_of_three_colours_less_their_means() -> None:
    layer = ToColour((10.0, 20.0, 30.5))
    again = ToColour.from_config(layer.get_config())  # as Keras clones a network for several devices
    expected = 128 * FACES + 128 - np.array([10.0, 20.0, 30.5])
    for one in (layer, again):
        np.testing.assert_allclose(one(FACES), expected, atol=1e-4)


def test_macs_are_counted_by_hand_on_a_small_net() -> None:
    inner_picture = keras.Input((8, 8, 4))
    inner = keras.Model(inner_picture, layers.Conv2D(3, 1)(inner_picture))  # 8*8 * 4*3
    picture = keras.Input((8, 8, 2))
    x = inner(layers.Conv2D(4, 3, padding="same")(picture))  # 8*8 * 3*3*2*4
    x = layers.DepthwiseConv2D(3, 2, padding="same")(x)  # 4*4 * 3*3*3
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(picture, layers.Dense(5)(x))  # 3*5
    assert macs(model) == 64 * 72 + 64 * 12 + 16 * 27 + 15


def test_resnet50_has_the_macs_of_its_paper() -> None:
    """Table 1 of arXiv 1512.03385: 3.8e9 multiply-adds, with its 1000-way head (2 M)."""
    assert macs(built("resnet50-imagenet")) == pytest.approx(3.8e9, rel=0.02)


def test_the_enlargement_keeps_corners_and_mirror_images() -> None:
    enlarge = keras.Model((model := built("student-72")).input, model.get_layer("enlarge").output)
    face = np.tile(np.linspace(-1, 1, 48, dtype=np.float32), (1, 48, 1))[..., None]
    enlarged = enlarge(face).numpy()
    assert enlarged.shape == (1, 72, 72, 1)
    assert enlarged[0, :, :, 0] == pytest.approx(np.tile(np.linspace(-1, 1, 72), (72, 1)), abs=1e-6)
    assert enlarge(FACES[:, :, ::-1]).numpy() == pytest.approx(enlarge(FACES).numpy()[:, :, ::-1], abs=1e-4)
