"""Published weights are loaded and give the published results, or they are refused."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import h5py  # noqa: E402  TensorFlow brings it
import tf_keras as keras  # noqa: E402

from edge.errors import DataError, UsageError  # noqa: E402
from edge.model.preprocessing import normalize  # noqa: E402
from tests.programs import begin_run, fer_train  # noqa: E402
from train.init.faceres import load_faceres, read_tfjs_weights  # noqa: E402
from train.init.pretrained import PUBLISHED, load_weights, weights_sources  # noqa: E402
from train.models.mobilenet import CHANNEL_MEANS  # noqa: E402
from train.models.registry import MODELS  # noqa: E402
from train.run import Run  # noqa: E402

GOLDEN = Path(__file__).parents[2] / "golden" / "faceres.json"


def uniform(seed: int, n: int = 4) -> np.ndarray:
    """Normalized pictures of noise, ``(n, 48, 48, 1)``."""
    return normalize(np.random.default_rng(seed).integers(0, 256, (n, 48, 48)).astype(np.uint8))[..., None]


# The face-pretrained MobileNetV1


def bytes_of(seed: int) -> Iterator[int]:
    """Numerical Recipes' 32-bit linear congruential generator, as tests/golden/make_faceres.mjs has it."""
    state = seed
    while True:
        state = (1664525 * state + 1013904223) % 2**32
        yield state >> 24


def golden_pictures(seed: int, n: int) -> np.ndarray:
    """The pictures of tests/golden/make_faceres.mjs: coarse blocks and fine noise in equal parts."""
    source, pictures = bytes_of(seed), []
    for _ in range(n):
        blocks = np.fromiter(source, int, 36).reshape(6, 6).repeat(8, axis=0).repeat(8, axis=1)
        pictures.append((blocks + np.fromiter(source, int, 48 * 48).reshape(48, 48)) >> 1)
    return normalize(np.stack(pictures).astype(np.uint8))[..., None]


@pytest.mark.parametrize("faces", [uniform(1, 8), uniform(2, 8) / 10 - 0.5], ids=["noise", "dark and flat"])
def test_the_co_teacher_computes_what_the_published_network_computes(faceres: Path, faces: np.ndarray) -> None:
    """To 1e-3 on pooled features that go up to 4.5, whatever faces its batch norms were measured on."""
    golden = json.loads(GOLDEN.read_text())
    expected = np.frombuffer(base64.b64decode(golden["features_float32_base64"]), "<f4").reshape(golden["shape"])
    assert expected.max() > 4
    model = MODELS["co-teacher"].build(0.3)
    load_weights(model, MODELS["co-teacher"], str(faceres), faces)
    inputs = golden_pictures(golden["seed"], len(expected))
    ours = keras.Model(model.input, model.get_layer("pool").output).predict(inputs, verbose=0)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3)


def test_a_run_records_the_origin_of_its_weights(faceres: Path, blobs: Path, tmp_path: Path) -> None:
    begin_run("student", str(faceres), blobs, tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert "--weights faceres.json" in run.command
    manifest, values, data = run.sources
    assert (manifest.name, values.name, (values.sha256 or "")[:8]) == ("faceres.json", "faceres.bin", "2c7d2d62")
    assert "VGGFace2" in (values.source or "")
    assert "MIT for the package" in (values.licence or "")
    assert (data.role, data.sha256) == ("data", run.training_sha256)


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

    model = MODELS["student"].build(0.0)
    inputs = normalize(faces)[..., None]
    load_faceres(model, stored(weights, model, tmp_path), inputs)
    ours = keras.Model(model.input, model.get_layer("conv_dw_1_relu").output).predict(inputs, verbose=0)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    assert np.asarray(expected)[inside].std() > 0.1
    np.testing.assert_allclose(ours[inside], np.asarray(expected)[inside], atol=1e-3)


def test_batch_norms_are_measured_as_well_in_mixed_precision(tmp_path: Path) -> None:
    measured = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(policy)
        model = MODELS["student"].build(0.0)
        keras.mixed_precision.set_global_policy("float32")
        load_faceres(model, stored(published(np.random.default_rng(0)), model, tmp_path), uniform(3, 32))
        measured.append(model.get_layer("conv_dw_1_bn").moving_variance.numpy())
    np.testing.assert_allclose(measured[1], measured[0], rtol=0.02)


def stored(weights: dict[str, np.ndarray], model: Any, folder: Path) -> Path:
    """Complete the weights with zeros for the other blocks, and store them as published."""
    complete = dict(weights)
    shapes = {layer.name: layer.weights[0].shape for layer in model.layers if layer.weights}
    for number in range(1, 14):
        depthwise, pointwise = tuple(shapes[f"conv_dw_{number}"]), tuple(shapes[f"conv_pw_{number}"])
        complete.setdefault(f"conv_dw_{number}/depthwise_kernel", np.zeros(depthwise))
        for part in ("mul", "sub"):
            complete.setdefault(f"conv_dw_{number}_bn/batchnorm_1/{part}", np.zeros(depthwise[2]))
        complete[f"conv_pw_{number}/convolution/merged_input"] = np.zeros(pointwise)
        complete[f"conv_pw_{number}_bn/batchnorm_1/sub"] = np.zeros(pointwise[3])
    return manifest(complete, folder)


def manifest(weights: dict[str, np.ndarray], folder: Path) -> Path:
    (folder / "faceres.bin").write_bytes(b"".join(value.astype("<f2").tobytes() for value in weights.values()))
    half = {"dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}}
    entries = [{"name": name, "shape": list(value.shape), **half} for name, value in weights.items()]
    file = folder / "faceres.json"
    file.write_text(json.dumps({"weightsManifest": [{"paths": ["faceres.bin"], "weights": entries}]}))
    return file


def test_files_that_are_not_the_face_pretrained_weights_are_refused(tmp_path: Path) -> None:
    model = MODELS["student"].build(0.0)
    other = manifest({"unknown_26": np.zeros(4)}, tmp_path)
    with pytest.raises(DataError, match=r"no 'conv1/convolution/merged_input'.*npm pack"):
        load_faceres(model, other, uniform(0))
    (tmp_path / "faceres.bin").write_bytes(bytes(12))
    with pytest.raises(DataError, match="12 bytes of values instead of 8"):
        read_tfjs_weights(other)
    other.write_text("{}")
    with pytest.raises(DataError, match="npm pack"):
        read_tfjs_weights(other)


# Keras's ImageNet ResNet50 and keras-vggface's


def vggface_layers() -> dict[str, list[tuple[int, ...]]]:
    """Names and shapes of the weights in rcmalli_vggface_tf_notop_resnet50.h5, as keras-vggface builds them."""
    found: dict[str, list[tuple[int, ...]]] = {}

    def convolution(name: str, size: int, inputs: int, filters: int) -> None:
        found[name] = [(size, size, inputs, filters)]
        found[f"{name}/bn"] = [(filters,)] * 4

    convolution("conv1/7x7_s2", 7, 3, 64)
    inputs = 64
    for stage, filters, blocks in ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3)):
        for block in range(1, blocks + 1):
            convolution(f"conv{stage}_{block}_1x1_reduce", 1, inputs, filters)
            convolution(f"conv{stage}_{block}_3x3", 3, filters, filters)
            convolution(f"conv{stage}_{block}_1x1_increase", 1, filters, 4 * filters)
            if block == 1:
                convolution(f"conv{stage}_{block}_1x1_proj", 1, inputs, 4 * filters)
            inputs = 4 * filters
    return found


def keras_file(file: Path, shapes: dict[str, list[tuple[int, ...]]]) -> dict[str, list[np.ndarray]]:
    """Write seeded values in the layout of Keras's HDF5 weight files; returns them by layer."""
    rng = np.random.default_rng(4)
    values = {name: [rng.random(shape, np.float32) for shape in parts] for name, parts in shapes.items()}
    with h5py.File(file, "w") as content:
        content.attrs["layer_names"] = [name.encode() for name in values]
        content.attrs["backend"], content.attrs["keras_version"] = b"tensorflow", b"2.0.8"
        for name, parts in values.items():
            group = content.require_group(name)
            labels = ["kernel:0"] if len(parts) == 1 else ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"]
            group.attrs["weight_names"] = [f"{name}/{label}".encode() for label in labels]
            for label, part in zip(labels, parts, strict=True):
                group[f"{name}/{label}"] = part
    return values


def test_the_file_of_keras_vggface_is_loaded_by_its_layer_names(tmp_path: Path) -> None:
    architecture, file = MODELS["resnet50-vggface"], tmp_path / PUBLISHED["vggface"].file
    values = keras_file(file, vggface_layers())
    model = architecture.build(0.25)
    load_weights(model, architecture, str(file), uniform(0))
    for layer in model.get_layer("resnet50").layers:
        for ours, theirs in zip(layer.get_weights(), values.pop(layer.name, []), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not values


def test_the_imagenet_network_sees_what_keras_would_show_it(tmp_path: Path) -> None:
    """Our grey 48x48 input gives the features of keras.applications on the same picture, its own way."""
    keras.utils.set_random_seed(9)
    theirs = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    file = tmp_path / "resnet50.h5"
    theirs.save_weights(file)
    picture = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 1)).astype(np.float32)
    big = np.repeat(tf.image.resize(picture, (224, 224), "bilinear"), 3, axis=-1)
    expected = theirs(keras.applications.resnet50.preprocess_input(big)).numpy()

    architecture = MODELS["resnet50-imagenet"]
    model = architecture.build(0.2)
    load_weights(model, architecture, str(file), uniform(0))
    ours = keras.Model(model.input, model.get_layer("pool").output)(normalize(picture)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_the_file_of_facenet_gives_all_features(tmp_path: Path) -> None:
    """It has outputs of its own besides, which are no part of ours."""
    architecture, file = MODELS["facenet"], tmp_path / PUBLISHED["facenet"].file
    keras.utils.set_random_seed(9)
    source = architecture.build(0.0)
    pooled = source.get_layer("pool").output
    whole = keras.Model(source.input, keras.layers.Dense(128, name="Bottleneck")(pooled))
    whole.save_weights(file)
    model = architecture.build(0.3)
    load_weights(model, architecture, str(file), uniform(0))
    expected = keras.Model(source.input, pooled)(uniform(1)).numpy()
    ours = keras.Model(model.input, model.get_layer("pool").output)(uniform(1)).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    keras.Model(source.input, source.get_layer("Block8_1_Conv2d_1x1").output).save_weights(file)
    with pytest.raises(DataError, match=r"not the weights of facenet: it lacks \d+ layers, the first is Block8_2_"):
        load_weights(model, architecture, str(file), uniform(0))


def test_a_keras_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    architecture, file = MODELS["resnet50-vggface"], tmp_path / "weights.h5"
    model = architecture.build(0.25)
    few = {"conv1/7x7_s2": [(7, 7, 3, 64)]}
    keras_file(file, few)
    with pytest.raises(DataError, match="lacks 105 layers, the first is conv1/7x7_s2/bn"):
        load_weights(model, architecture, str(file), uniform(0))
    keras_file(file, vggface_layers() | {"conv1/7x7_s2": [(7, 7, 1, 64)]})
    with pytest.raises(DataError, match=r"Shape mismatch.*conv1/7x7_s2"):
        load_weights(model, architecture, str(file), uniform(0))
    file.write_text("no HDF5")
    with pytest.raises(DataError, match="not the weights of resnet50-vggface"):
        load_weights(model, architecture, str(file), uniform(0))


def test_weights_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    keras_file(tmp_path / "weights.h5", {"dense": [(1, 1)]})
    student, resnet = MODELS["student"], MODELS["resnet50-imagenet"]
    with pytest.raises(DataError, match="not the face-pretrained weights"):
        load_weights(student.build(0.0), student, str(tmp_path / "weights.h5"), uniform(0))
    with pytest.raises(DataError, match="not the weights of resnet50-imagenet"):
        load_weights(resnet.build(0.0), resnet, str(manifest({"a": np.zeros(1)}, tmp_path)), uniform(0))


# What --weights takes


def test_each_model_names_the_weights_it_takes() -> None:
    for name, source, said in (
        ("paper", "imagenet", "paper takes none, or an earlier run of it"),
        ("student-small", "faceres.json", "student-small takes none, or a run or bundle of it or of student"),
        ("teacher", "imagenet", "teacher takes none, or a run or bundle of it or of student-half"),
        ("student", "imagenet", "student takes none, or the path of faceres.json"),
        ("facenet", "nowhere.h5", "facenet takes none, or the path of facenet_keras_2024.h5"),
        ("resnet50-vggface", "imagenet", "resnet50-vggface takes vggface, none, or the path of rcmalli_vggface"),
        ("resnet50-imagenet", "nowhere.h5", "resnet50-imagenet takes imagenet, none, or the path of resnet50_weights"),
    ):
        with pytest.raises(UsageError, match=said):
            weights_sources(MODELS[name], source)
    assert all(weights_sources(model, "none") == () for model in MODELS.values())


def test_a_run_refuses_weights_that_its_model_does_not_take(blobs: Path, tmp_path: Path) -> None:
    done = fer_train("run", "shallow", "--data", blobs, "--weights", "imagenet", "--out", tmp_path / "run")
    assert (done.returncode, "--weights imagenet: shallow takes none" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "folder"), [("imagenet", ".keras/models"), ("vggface", ".keras/models/vggface")], ids=str
)
def test_without_internet_the_file_and_its_place_are_named_and_then_found_there(
    name: str, folder: str, tmp_path: Path
) -> None:
    code = (
        "from train import *; from train.models.registry import MODELS; "
        "from train.init.pretrained import weights_sources; "
        f"print(weights_sources(MODELS['resnet50-{name}'], '{name}'))"
    )
    # nobody listens on the discard port: the download fails here as on a machine without internet
    offline = os.environ | {"HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}

    def told() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=offline, capture_output=True, text=True, timeout=120, check=False)

    file = PUBLISHED[name].file
    failed = told()
    assert failed.stdout == ""
    assert f"{file} is not in {tmp_path / folder} and could not be downloaded" in failed.stderr
    assert "or give its path: --weights PATH" in failed.stderr
    if name == "vggface":  # the other's MD5 is known, so that another file is not taken for it
        (tmp_path / folder / file).write_bytes(b"the weights")
        assert f"Source(role='start', name='{file}'," in told().stdout
