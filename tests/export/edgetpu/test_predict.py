"""Predictions for files that each violate one rule of the Edge TPU compiler."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.errors import BundleError
from edge.model.bundle import MODEL_FILE, find_bundle, open_bundle
from edge.model.classifier import find_runtime
from export.edgetpu.predict import PredictedOp, Prediction, format_prediction, predict_mapping
from export.edgetpu.rules import RULES, OpStatus
from export.tflite_graph import read_graph
from tests.conftest import ROOT
from tests.export.tiny import CONV, DENSE, MEAN, POOL, Net, as_compiled, indices, schema, single, tiny

BIN = Path(sys.executable).parent
STUDENT = find_bundle("student-small")


def predicted(file: bytes) -> Prediction:
    return predict_mapping(read_graph(file, "the test's file"))


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "fer-export", "check", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_tiny_network_is_a_real_one_and_maps_whole() -> None:
    interpreter = find_runtime()[0](model_content=tiny())
    interpreter.allocate_tensors()
    picture = np.random.default_rng(3).integers(-128, 128, (1, 8, 8, 1), np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    assert len(set(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].tolist())) > 1
    prediction = predicted(tiny())
    assert prediction.all_mapped
    assert (prediction.partition, prediction.mapped_ops, prediction.cpu_ops) == ((0, 4), 4, 0)
    assert prediction.parameter_bytes == 36 + 4 * 4 + 28 + 7 * 4
    assert prediction.warnings == ()


def test_every_op_of_the_bundled_model_is_predicted_to_map() -> None:
    prediction = predicted((STUDENT / MODEL_FILE).read_bytes())
    assert prediction.all_mapped
    card = open_bundle(STUDENT).card
    assert prediction.mapped_ops == sum(card.ops.values())
    assert (
        0.9 < prediction.parameter_bytes / card.parameters < 1.1
    )  # a byte each; biases have four, batch norms are gone


def test_the_page_shows_what_check_prints_of_a_bundled_model() -> None:
    page = (ROOT / "docs" / "edge-tpu.md").read_text()
    *_, last_op, _, verdict = check("student-small").stdout.splitlines()
    assert last_op in page
    assert verdict in page


def retype(tensor: str, dtype: str) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        [found] = [each for each in net.main.tensors if each.name == tensor]
        found.type = getattr(schema.TensorType, dtype)

    return edit


def rescale(tensor: str, scales: Sequence[float]) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        [found] = [each for each in net.main.tensors if each.name == tensor]
        found.quantization.scale = list(scales)
        found.quantization.zeroPoint = [0] * len(scales)

    return edit


def unfreeze(tensor: str) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        [found] = [each for each in net.main.tensors if each.name == tensor]
        found.buffer = 0

    return edit


def reshape(sizes: dict[str, Sequence[int]]) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        for found in net.main.tensors:
            found.shape = list(sizes.get(found.name, found.shape))

    return edit


def version(op: int, number: int) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        net.model.operatorCodes[op].version = number

    return edit


def option(op: int, **values: int) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        for name, value in values.items():
            assert hasattr(net.main.operators[op].builtinOptions, name)
            setattr(net.main.operators[op].builtinOptions, name, value)

    return edit


def kind(op: int, name: str, number: int = 1) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        code = net.model.operatorCodes[op]
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), number
        net.main.operators[op].builtinOptions, net.main.operators[op].builtinOptionsType = None, 0

    return edit


BATCH_OF_2 = {"face": (2, 8, 8, 1), "features": (2, 8, 8, 4), "pooled": (2, 4, 4, 4), "mean": (2, 4), "logits": (2, 7)}


@pytest.mark.parametrize(
    ("edit", "op", "status", "words"),
    [
        (retype("features", "FLOAT32"), CONV, OpStatus.DTYPE, "features is FLOAT32"),
        (retype("kernel", "INT4"), CONV, OpStatus.DTYPE, "kernel is INT4"),
        (rescale("features", [0.5] * 4), CONV, OpStatus.DTYPE, "one scale per channel"),
        (rescale("pooled", []), POOL, OpStatus.DTYPE, "no scale"),
        (reshape(BATCH_OF_2), CONV, OpStatus.RANK, "2x8x8x1: only the three innermost"),
        (unfreeze("kernel"), CONV, OpStatus.NOT_CONSTANT, "kernel is computed"),
        (unfreeze("offset"), DENSE, OpStatus.NOT_CONSTANT, "offset is computed"),
        (option(CONV, dilationWFactor=2), CONV, OpStatus.UNSPECIFIED, "dilation is 2 in x and 1 in y"),
        (option(POOL, fusedActivationFunction=1), POOL, OpStatus.UNSPECIFIED, "fused activation"),
        (option(DENSE, weightsFormat=1), DENSE, OpStatus.UNSPECIFIED, "not in the default format"),
        (reshape({"logits": (7, 1)}), DENSE, OpStatus.UNSPECIFIED, "more than one dimension"),
        (version(CONV, 4), CONV, OpStatus.VERSION, "version 4; int8 ones that map are of version 3"),
        (version(POOL, 1), POOL, OpStatus.VERSION, "ai-edge-quantizer"),
        (version(CONV, 1), CONV, OpStatus.VERSION, "marked version 1 instead of 3"),
        (kind(POOL, "LEAKY_RELU"), POOL, OpStatus.UNSUPPORTED, "use ReLU, ReLU6 or PReLU"),
        (kind(POOL, "HARD_SWISH"), POOL, OpStatus.UNSUPPORTED, "use ReLU6"),
        (kind(POOL, "TRANSPOSE", 2), POOL, OpStatus.UNSUPPORTED, "rules that are not published"),
        (kind(DENSE, "ARG_MAX", 2), DENSE, OpStatus.UNSUPPORTED, "arg max"),
        (kind(MEAN, "BIDIRECTIONAL_SEQUENCE_LSTM"), MEAN, OpStatus.UNSUPPORTED, "only a unidirectional"),
    ],
)
def test_an_op_that_breaks_a_rule_and_all_after_it_stay_on_the_cpu(
    edit: Callable[[Net], None], op: int, status: OpStatus, words: str
) -> None:
    prediction = predicted(tiny(edit))
    assert prediction.refused is None
    assert not prediction.all_mapped
    broken = prediction.ops[op]
    assert (broken.mapping, broken.status) == ("cpu", status)
    assert words in broken.reason
    if op > 0:
        assert prediction.partition == (0, op)
        assert [each.mapping for each in prediction.ops[:op]] == ["tpu"] * op
        assert {each.mapping for each in prediction.ops[op:]} == {"cpu"}


def test_ops_after_the_first_failure_say_which_one_it_was() -> None:
    last = predicted(tiny(kind(POOL, "LEAKY_RELU"))).ops[DENSE]
    assert (last.status, last.reason) == (OpStatus.SUBGRAPH, "it comes after op 1, which runs on the CPU")


def test_a_leading_op_on_the_cpu_does_not_keep_the_rest_from_mapping() -> None:
    prediction = predicted(tiny(version(CONV, 4)))
    assert prediction.partition == (1, 4)
    assert [op.mapping for op in prediction.ops] == ["cpu", "tpu", "tpu", "tpu"]


def test_uint8_ops_of_version_1_are_what_they_should_be() -> None:
    def unsigned(net: Net) -> None:
        for name in ("face", "features", "pooled", "mean", "logits"):
            retype(name, "UINT8")(net)
        for op in (CONV, POOL, MEAN, DENSE):
            version(op, 1)(net)

    assert predicted(tiny(unsigned)).all_mapped


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (tiny(version(CONV, 6)), "CONV_2D version 6; the compiler of 2021 reads up to 5"),
        (tiny(version(DENSE, 12)), "FULLY_CONNECTED version 12"),
        (tiny(kind(POOL, "QUANTIZE", 3)), "QUANTIZE version 3"),
        (tiny(kind(POOL, "SHAPE")), "SHAPE, which computes a size at run time"),
        (as_compiled(tiny()), "compiled already"),
        (
            tiny(lambda net: [setattr(tensor, "quantization", None) for tensor in net.main.tensors]),
            "Model not quantized",
        ),
    ],
)
def test_a_file_that_the_compiler_refuses_maps_nothing_and_has_a_reason(file: bytes, words: str) -> None:
    prediction = predicted(file)
    assert prediction.refused is not None
    assert words in prediction.refused
    assert {op.mapping for op in prediction.ops} == {"none"}
    assert (prediction.mapped_ops, prediction.cpu_ops, prediction.partition) == (0, 0, None)
    assert "PREDICTED" in format_prediction(prediction, "x")


def test_a_reshape_to_a_shape_from_run_time_is_dynamic() -> None:
    def edit(net: Net) -> None:
        shape = net.tensor("shape", (2,), "INT32", ())
        kind(MEAN, "RESHAPE")(net)
        net.main.operators[MEAN].inputs = [net.main.operators[POOL].outputs[0], shape]

    refused = predicted(tiny(edit)).refused
    assert refused is not None
    assert "RESHAPE to a shape that is computed at run time" in refused


NHWC = (1, 4, 4, 8)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (single("SOFTMAX", 2, ((1, 7), (1, 7))), ""),
        (single("SOFTMAX", 2, ((1, 16_000), (1, 16_000))), ""),
        (single("SOFTMAX", 2, ((1, 16_001), (1, 16_001))), "16,001 elements"),
        (single("SOFTMAX", 2, ((1, 2, 7), (1, 2, 7))), "more than one dimension"),
        (single("MEAN", 2, (NHWC, (1, 4, 4)), constants=[(3,)]), ""),
        (single("MEAN", 2, ((1, 4, 4, 6), (1, 4, 4)), constants=[(-1,)]), "6 is not a multiple of 4"),
        (single("MEAN", 2, (NHWC, (4, 4, 8)), constants=[(0,)]), "across the batch"),
        (single("REDUCE_MAX", 2, (NHWC, (4, 4, 8)), constants=[(-4,)]), "across the batch"),
        (single("REDUCE_MIN", 2, (NHWC, (1, 8)), constants=[(1, 2)]), ""),
        (single("PAD", 2, (NHWC, (1, 5, 5, 8)), constants=[(0, 0, 0, 1, 0, 1, 0, 0)]), ""),
        (single("PAD", 2, (NHWC, (1, 4, 4, 8)), constants=[(1, 0, 0, 0, 0, 0, 0, 0)]), "across the batch"),
        (single("SPLIT", 2, (NHWC, (1, 4, 4, 4)), constants=[(3,)], constants_first=True), ""),
        (single("SPLIT", 2, (NHWC, NHWC), constants=[(0,)], constants_first=True), "across the batch"),
        (single("PACK", 2, ((4, 8), (4, 1, 8)), table="PackOptions", axis=1), ""),
        (single("PACK", 2, ((4, 8), (1, 4, 8)), table="PackOptions", axis=0), "across the batch"),
        (single("SQUEEZE", 1, ((1, 1, 4, 8), (4, 8))), ""),
        (single("SQUEEZE", 1, ((1, 4, 1, 8), (1, 4, 8))), "other than leading ones"),
        (single("STRIDED_SLICE", 2, (NHWC, NHWC), constants=[(0,) * 4, NHWC, (1,) * 4]), ""),
        (
            single("STRIDED_SLICE", 2, (NHWC, (1, 2, 2, 8)), constants=[(0,) * 4, NHWC, (1, 2, 2, 1)]),
            "strides are not all 1",
        ),
        (
            single(
                "STRIDED_SLICE",
                2,
                (NHWC, NHWC),
                constants=[(0,) * 4, NHWC, (1,) * 4],
                table="StridedSliceOptions",
                newAxisMask=1,
            ),
            "new-axis mask",
        ),
        (single("QUANTIZE", 2, (NHWC, NHWC)), ""),
        (single("LOGISTIC", 2, ((1, 7), (1, 7))), ""),
    ],
)
def test_the_limits_of_single_ops(file: bytes, words: str) -> None:
    [op] = predicted(file).ops
    assert op.mapping == ("cpu" if words else "tpu"), op.reason
    assert words in op.reason


@pytest.mark.parametrize(
    ("stored", "inputs", "mapping"), [(b"\0" * 32, 2, "tpu"), (b"\0" * 31 + b"\1", 2, "cpu"), (b"\0" * 32, 3, "cpu")]
)
def test_a_constant_in_a_concatenation_must_be_zeros_and_one_of_two(stored: bytes, inputs: int, mapping: str) -> None:
    net = Net()
    numbers = [net.tensor(f"in{number}", (1, 2, 2, 8)) for number in range(inputs - 1)]
    constant = net.tensor("zeros", (1, 2, 2, 8), data=np.frombuffer(stored, np.int8))
    out = net.tensor("out", (1, 2, 2, 8 * inputs))
    net.op("CONCATENATION", 2, [*numbers, constant], [out], table="ConcatenationOptions", axis=3)
    net.main.inputs, net.main.outputs = numbers, [out]
    assert predicted(net.pack()).ops[0].mapping == mapping


@pytest.mark.parametrize(("alpha", "mapping"), [((1, 1, 8), "tpu"), ((4, 4, 8), "cpu")])
def test_a_prelu_has_one_alpha_a_channel(alpha: tuple[int, ...], mapping: str) -> None:
    net = Net()
    numbers = net.tensor("in", NHWC), net.tensor("alpha", alpha, data=np.zeros(alpha, np.int8))
    out = net.tensor("out", NHWC)
    net.op("PRELU", 1, numbers, [out])
    net.main.inputs, net.main.outputs = [0], [out]
    assert predicted(net.pack()).ops[0].mapping == mapping


def test_an_open_batch_is_warned_of() -> None:
    prediction = predicted(tiny(lambda net: setattr(net.main.tensors[0], "shapeSignature", [-1, 8, 8, 1])))
    assert prediction.all_mapped
    assert "the batch size is dynamic" in prediction.warnings[0]


def test_a_dense_layer_with_a_scale_for_each_output_is_warned_of() -> None:
    prediction = predicted(tiny(rescale("weights", [0.01] * 7)))
    assert prediction.all_mapped
    [warning] = prediction.warnings
    assert "op 3 is a FULLY_CONNECTED with a scale for each of 7 outputs" in warning


def test_more_parameters_than_the_chip_holds_are_warned_of() -> None:
    def edit(net: Net) -> None:
        big = net.tensor("big", (7, 2**21 + 4), scales=[0.01], data=np.ones(7 * (2**21 + 4), np.int8))
        net.main.operators[DENSE].inputs[1] = big

    prediction = predicted(tiny(edit))
    assert prediction.all_mapped
    assert "14.00 MiB of parameters do not fit the Edge TPU's 8 MiB" in prediction.warnings[0]


def test_ops_whose_limits_are_not_published_give_a_warning() -> None:
    prediction = predicted(single("RESHAPE", 1, (NHWC, (1, 128)), constants=[(1, 128)]))
    assert prediction.all_mapped
    assert "op 0, RESHAPE: large ones are not mapped" in prediction.warnings[0]


def resized(kind: str, version: int, **options: bool) -> PredictedOp:
    """The prediction for an op that enlarges a face from 48 to 72 pixels."""
    sizes = ((1, 48, 48, 1), (1, 72, 72, 1))
    [op] = predicted(single(kind, version, sizes, constants=[(72, 72)], **options)).ops
    return op


@pytest.mark.parametrize("aligned", [False, True])
def test_a_bilinear_resize_without_half_pixel_centers_maps(aligned: bool) -> None:
    op = resized("RESIZE_BILINEAR", 2, table="ResizeBilinearOptions", alignCorners=aligned)
    assert (op.mapping, op.reason) == ("tpu", "")


@pytest.mark.parametrize(("kind", "raw_op"), [("BILINEAR", "Bilinear"), ("NEAREST_NEIGHBOR", "NearestNeighbor")])
@pytest.mark.parametrize("version", [2, 3])
def test_half_pixel_centers_are_named_as_what_keeps_a_resize_on_the_cpu(kind: str, raw_op: str, version: int) -> None:
    op = resized(f"RESIZE_{kind}", version, table=f"Resize{raw_op}Options", halfPixelCenters=True)
    assert op.mapping == "cpu"
    assert op.status == (OpStatus.VERSION if version == 3 else OpStatus.UNSPECIFIED)
    assert "half-pixel centers" in op.reason
    assert f"tf.raw_ops.Resize{raw_op}(half_pixel_centers=False" in op.reason


def test_a_nearest_resize_with_aligned_corners_is_of_the_version_that_stays_on_the_cpu() -> None:
    op = resized("RESIZE_NEAREST_NEIGHBOR", 3, table="ResizeNearestNeighborOptions", alignCorners=True)
    assert (op.mapping, op.status) == ("cpu", OpStatus.VERSION)
    assert "align_corners=False" in op.reason


def test_a_half_pixel_resize_at_the_front_costs_that_op_only() -> None:
    def enlarge(net: Net) -> None:
        face = net.tensor("small", (1, 6, 6, 1))
        size = net.tensor("size", (2,), "INT32", (), indices(8, 8))
        options = {"table": "ResizeBilinearOptions", "halfPixelCenters": True}
        op = net.op("RESIZE_BILINEAR", 3, [face, size], [net.main.inputs[0]], **options)
        net.main.operators.insert(0, net.main.operators.pop(net.main.operators.index(op)))
        net.main.inputs = [face]

    prediction = predicted(tiny(enlarge))
    assert (prediction.partition, prediction.mapped_ops, prediction.cpu_ops) == ((1, 5), 4, 1)


def test_every_rule_names_an_op_that_tflite_has() -> None:
    assert set(RULES) <= set(vars(schema.BuiltinOperator))
    assert all(lowest <= highest for rule in RULES.values() for lowest, highest in [rule.versions])


@pytest.mark.parametrize("size", [0, 4, 8, 64, 900])
def test_a_file_cut_short_is_damaged_and_not_something_else(size: int) -> None:
    with pytest.raises(BundleError, match=r"not a TFLite file|damaged"):
        read_graph(tiny()[:size], "short.tflite")


def test_check_prints_that_nothing_was_compiled() -> None:
    done = check("student-small")
    assert done.returncode == 0
    assert check(STUDENT).stdout == done.stdout
    ops = sum(open_bundle(find_bundle("student-small")).card.ops.values())
    assert f"PREDICTED (no compiler was run): {ops} of {ops} ops" in done.stdout
    assert "FULLY_CONNECTED         4  1x7 INT8             Edge TPU" in done.stdout


def test_check_has_an_exit_code_of_its_own_for_what_does_not_map(tmp_path: Path) -> None:
    file = tmp_path / "leaky.tflite"
    file.write_bytes(tiny(kind(POOL, "LEAKY_RELU")))
    done = check(file, "--json")
    assert done.returncode == 12
    told = json.loads(done.stdout)
    assert (told["schema_version"], told["predicted"], told["all_mapped"]) == (1, True, False)
    assert (told["mapped_ops"], told["cpu_ops"], told["partition"]) == (1, 3, [0, 1])
    assert told["ops"][POOL] == {
        "index": 1,
        "op": "LEAKY_RELU",
        "version": 1,
        "output": {"shape": [1, 4, 4, 4], "dtype": "INT8"},
        "mapping": "cpu",
        "status": "Operation not supported",
        "reason": "not on Coral's list of supported ops; use ReLU, ReLU6 or PReLU with one alpha a channel instead",
    }


@pytest.mark.parametrize(
    ("name", "content", "exit_code", "words"),
    [
        ("missing.tflite", None, 2, "cannot be read: No such file"),
        ("text.tflite", b"not a network", 4, "not a TFLite file"),
        ("cut.tflite", tiny()[:800], 4, "damaged TFLite file"),
    ],
)
def test_check_refuses_what_is_no_model(
    tmp_path: Path, name: str, content: bytes | None, exit_code: int, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = check(tmp_path / name)
    assert (done.returncode, words in done.stderr) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_is_the_bundled_model_and_a_path_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a run's folder of that name, which has no card."""
    monkeypatch.chdir(tmp_path)
    done = check("./student-small")
    assert (done.returncode, "nor a folder with a card.json" in done.stderr) == (4, True), done.stderr
    (tmp_path / "student-small").mkdir()
    done = check("student-small")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, str(STUDENT / MODEL_FILE)), done.stderr
    done = check("./student-small")
    assert (done.returncode, "a folder without a card.json" in done.stderr) == (2, True), done.stderr


def test_a_pipe_is_not_awaited(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = check(tmp_path / "pipe")
    assert (done.returncode, "this is a named pipe, not a file" in done.stderr) == (2, True), done.stderr


def test_check_loads_no_tensorflow() -> None:
    code = (
        "import sys; sys.argv = ['fer-export', 'check', sys.argv[1]]; from export.cli import main; main(); "
        "print(sorted({'tensorflow', 'tf_keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, STUDENT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_axes_are_read_as_they_are_stored() -> None:
    """A guard for the tests above: what they write is what the reader gives back."""
    graph = read_graph(tiny(), "tiny")
    axes = graph.ops[MEAN].inputs[1]
    assert axes is not None
    assert axes.integers().tolist() == indices(1, 2).tolist()
    assert graph.inputs[0].shape == (1, 8, 8, 1)
