import json
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.contract import normalize  # noqa: E402
from train.models import CHANNEL_MEANS, MODELS  # noqa: E402
from train.pretrained import load_backbone  # noqa: E402


def published(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights of the published shapes and names for the stem and block 1."""
    return {
        "conv1/convolution/merged_input": rng.normal(0, 0.01, (3, 3, 3, 32)),
        "conv1_bn/batchnorm_1/sub": rng.normal(0, 1, 32),
        "conv_dw_1/depthwise_kernel": rng.normal(0, 0.3, (3, 3, 32, 1)),
        "conv_dw_1_bn/batchnorm_1/mul": rng.uniform(0.5, 2, 32),
        "conv_dw_1_bn/batchnorm_1/sub": rng.normal(0, 1, 32),
    }


def test_the_stem_on_48_pixels_is_the_published_stem_on_96(tmp_path: Path) -> None:
    """Stride 2 on a 2x bilinear upsampled colour face equals our stride-1 grey stem, borders aside."""
    rng = np.random.default_rng(0)
    weights = {name: value.astype("<f2").astype(np.float32) for name, value in published(rng).items()}
    faces = rng.integers(0, 256, (6, 48, 48)).astype(np.uint8)

    big = tf.image.resize(faces[..., None].astype(np.float32), (96, 96), method="bilinear")
    colour = tf.repeat(big, 3, axis=-1) - np.array(CHANNEL_MEANS, np.float32)
    stem = tf.nn.conv2d(colour, weights["conv1/convolution/merged_input"], 2, "SAME")
    stem = tf.nn.relu6(stem + weights["conv1_bn/batchnorm_1/sub"])
    expected = tf.nn.depthwise_conv2d(stem, weights["conv_dw_1/depthwise_kernel"], [1, 1, 1, 1], "SAME")
    expected = tf.nn.relu6(expected * weights["conv_dw_1_bn/batchnorm_1/mul"] + weights["conv_dw_1_bn/batchnorm_1/sub"])

    model = MODELS["student-small"].build(0.0)
    inputs = normalize(faces)[..., None]
    load_backbone_of(weights, model, inputs, tmp_path)
    ours = keras.Model(model.input, model.get_layer("conv_dw_1_relu").output).predict(inputs, verbose=0)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    assert np.asarray(expected)[inside].std() > 0.1
    np.testing.assert_allclose(ours[inside], np.asarray(expected)[inside], atol=1e-3)


def load_backbone_of(weights: dict[str, np.ndarray], model, inputs: np.ndarray, folder: Path) -> None:  # noqa: ANN001
    """Complete the weights with zeros for the other blocks, store them as published, and load them."""
    complete = dict(weights)
    shapes = {layer.name: layer.weights[0].shape for layer in model.layers if layer.weights}
    for number in range(1, 10):
        if f"conv_dw_{number}" not in shapes:
            continue
        depthwise, pointwise = tuple(shapes[f"conv_dw_{number}"]), tuple(shapes[f"conv_pw_{number}"])
        complete.setdefault(f"conv_dw_{number}/depthwise_kernel", np.zeros(depthwise))
        for part in ("mul", "sub"):
            complete.setdefault(f"conv_dw_{number}_bn/batchnorm_1/{part}", np.zeros(depthwise[2]))
        complete[f"conv_pw_{number}/convolution/merged_input"] = np.zeros(pointwise)
        complete[f"conv_pw_{number}_bn/batchnorm_1/sub"] = np.zeros(pointwise[3])
    (folder / "faceres.bin").write_bytes(b"".join(value.astype("<f2").tobytes() for value in complete.values()))
    entries = [{"name": name, "shape": list(value.shape)} for name, value in complete.items()]
    manifest = folder / "faceres.json"
    manifest.write_text(json.dumps({"weightsManifest": [{"paths": ["faceres.bin"], "weights": entries}]}))
    load_backbone(model, manifest, inputs)
