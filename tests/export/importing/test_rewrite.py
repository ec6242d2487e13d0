"""An int8 file of four ops that gets a device's face in front, in the installed runtime."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the schema of .tflite files is not installed")

from edge.model.preprocessing import encode
from export.edgetpu.predict import predict_mapping
from export.importing.face_input import FaceInput
from export.importing.rewrite import for_devices
from export.importing.scaling import SCALINGS, PixelScaling
from export.quantization.errors import ConversionError
from export.tflite_graph import read_graph
from tests.export.tiny import Net, tiny


def pooled(side: int, channels: int, scaling: PixelScaling, ends: tuple[str, ...] = ()) -> bytes:
    """An int8 network whose scores are its own input, averaged over the face, in the first ``channels`` outputs."""
    means, deviations = scaling.factors(channels)
    low, high = float(((0 - means) / deviations).min()), float(((255 - means) / deviations).max())
    scale = (high - low) / 255
    zero = round(-128 - low / scale)
    net = Net()
    face = net.tensor("input", (1, side, side, channels), scales=[scale])
    mean = net.tensor("mean", (1, channels), scales=[scale])
    for tensor in (face, mean):
        net.main.tensors[tensor].quantization.zeroPoint = [zero]
    axes = net.tensor("axes", (2,), "INT32", (), np.array([1, 2], "<i4"))
    net.op("MEAN", 2, [face, axes], [mean], table="ReducerOptions", keepDims=False)
    net.main.inputs, net.main.outputs = [face], [mean]
    for end in ends:
        made = net.tensor(end, (1, channels), *(("FLOAT32", ()) if end == "DEQUANTIZE" else ("INT8", [1 / 256])))
        net.op(
            end, 2, net.main.outputs, [made], **({"table": "SoftmaxOptions", "beta": 1.0} if end == "SOFTMAX" else {})
        )
        net.main.outputs = [made]
    return net.pack()


def run(file: bytes, values: np.ndarray) -> np.ndarray:
    """The real outputs of a file."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    network = Interpreter(model_content=file)
    network.allocate_tensors()
    [entry], [leaving] = network.get_input_details(), network.get_output_details()
    network.set_tensor(entry["index"], values)
    network.invoke()
    scale, zero = leaving["quantization"]
    return (network.get_tensor(leaving["index"])[0].astype(float) - zero) * scale


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
@pytest.mark.parametrize(("side", "channels"), [(48, 1), (64, 3), (224, 3), (32, 1)])
def test_every_pixel_reaches_the_network_as_its_scaling_says(scaling: PixelScaling, side: int, channels: int) -> None:
    file, _ = for_devices(pooled(side, channels, scaling), FaceInput(side, channels), scaling, "t")
    means, deviations = scaling.factors(channels)
    step = 255 / deviations.min() / 255 if channels == 1 else (255 + np.ptp(means)) / deviations.min() / 255
    for pixel in (0, 1, 100, 127, 128, 200, 255):
        found = run(file, encode(np.full((48, 48), pixel, np.uint8), 1 / 128, 0))
        np.testing.assert_allclose(found, (pixel - means) / deviations, atol=0.75 * step)


def test_enlarging_keeps_the_picture_in_its_place() -> None:
    """The mean of a bright left half is half as bright, whatever the size."""
    file, _ = for_devices(pooled(96, 1, SCALINGS["raw"]), FaceInput(96, 1), SCALINGS["raw"], "t")
    face = np.zeros((48, 48), np.uint8)
    face[:, :24] = 200
    assert run(file, encode(face, 1 / 128, 0))[0] == pytest.approx(100, abs=1)


@pytest.mark.parametrize("ends", [("SOFTMAX",), ("SOFTMAX", "DEQUANTIZE"), ("DEQUANTIZE",), ()])
def test_what_follows_the_logits_is_left_out(ends: tuple[str, ...]) -> None:
    raw = SCALINGS["raw"]
    file, activation = for_devices(pooled(48, 1, raw, ends), FaceInput(48, 1), raw, "t")
    assert activation == ("SOFTMAX" if "SOFTMAX" in ends else "")
    graph = read_graph(file, "t")
    assert [op.name for op in graph.ops] == ["CONV_2D", "MEAN"]
    assert graph.outputs[0].dtype == "INT8"
    assert run(file, encode(np.full((48, 48), 77, np.uint8), 1 / 128, 0))[0] == pytest.approx(77, abs=1)


def test_what_is_put_in_front_is_predicted_to_map_to_the_edge_tpu() -> None:
    file, _ = for_devices(tiny(lambda net: enlarge(net, 24)), FaceInput(24, 1), SCALINGS["zero-one"], "t")
    graph = read_graph(file, "t")
    assert [op.name for op in graph.ops][:2] == ["RESIZE_BILINEAR", "CONV_2D"]
    assert graph.inputs[0].shape == (1, 48, 48, 1)
    assert predict_mapping(graph).all_mapped


def enlarge(net: Net, side: int) -> None:
    """Give the network of tiny another size of face."""
    for tensor in net.main.tensors[:4]:
        if len(tensor.shape) == 4 and list(tensor.shape[1:3]) == [8, 8]:
            tensor.shape = [1, side, side, tensor.shape[3]]
    net.main.tensors[4].shape = [1, side // 2, side // 2, 4]


def test_a_shape_that_is_computed_for_any_batch_becomes_a_constant() -> None:
    def flatten(net: Net) -> None:
        [logits] = net.main.outputs
        shape = net.tensor("shape", (2,), "INT32", ())
        flat = net.tensor("flat", (1, 7), scales=[0.125])
        net.op("SHAPE", 1, [logits], [shape])
        net.op("RESHAPE", 1, [logits, shape], [flat])
        net.main.tensors[flat].shapeSignature = [-1, 7]
        net.main.outputs = [flat]
        enlarge(net, 48)

    plain = tiny(flatten)
    assert predict_mapping(read_graph(plain, "t")).refused
    file, _ = for_devices(plain, FaceInput(48, 1), SCALINGS["raw"], "t")
    graph = read_graph(file, "t")
    assert [op.name for op in graph.ops] == ["CONV_2D", "CONV_2D", "MAX_POOL_2D", "MEAN", "FULLY_CONNECTED", "RESHAPE"]
    assert predict_mapping(graph).all_mapped
    assert run(file, np.zeros((1, 48, 48, 1), np.int8)).shape == (7,)


def test_an_input_that_is_not_int8_is_refused() -> None:
    def floating(net: Net) -> None:
        net.main.tensors[0].type = 0  # FLOAT32

    with pytest.raises(ConversionError, match="its input is not int8"):
        for_devices(tiny(floating), FaceInput(24, 1), SCALINGS["raw"], "t")
