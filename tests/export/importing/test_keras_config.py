"""Descriptions of networks as Keras writes them, and what would run code among them."""

from typing import Any

import pytest

from export.importing.keras_config import in_float32, problems

BUILT_IN = frozenset({"InputLayer", "Conv2D", "Dense", "TimeDistributed"})


def network(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    face = {"module": "keras.layers", "class_name": "InputLayer", "config": {"name": "face"}, "inbound_nodes": []}
    config = {"name": "net", "layers": [face, *layers]}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": config, **more}


def layer(kind: str, module: str | None = "keras.layers", name: str = "it", **more: Any) -> dict[str, Any]:
    config = {"name": name, **more.pop("config", {})}
    return {"class_name": kind, "config": config, "inbound_nodes": [], **({"module": module} if module else {}), **more}


@pytest.mark.parametrize(
    "taken",
    [
        layer("Conv2D", config={"kernel_initializer": {"module": "keras.initializers", "class_name": "HeNormal"}}),
        layer("Conv2D", config={"dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {}}}),
        layer("Conv2D", config={"dtype": {"module": "keras.mixed_precision", "class_name": "Policy", "config": {}}}),
        layer("Dense", None),
        layer("TrueDivide", "keras.src.ops.numpy", registered_name="TrueDivide"),
        layer("TFOpLambda", "tf_keras.src.layers.core.tf_op_layer", config={"function": "math.truediv"}),
        layer("TFOpLambda", None, config={"function": "nn.relu"}),
        layer("SlicingOpLambda", None, config={"function": "__operators__.getitem"}),
        network(compile_config={"optimizer": {"module": "keras.optimizers", "class_name": "Adam"}}),
    ],
)
def test_what_belongs_to_keras_is_built(taken: dict[str, Any]) -> None:
    assert problems(network(taken), BUILT_IN) == []


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (layer("Lambda"), "layer it (Lambda) holds Python code"),
        (layer("Lambda", None), "layer it (Lambda) holds Python code"),
        (
            layer("TimeDistributed", None, name="all", config={"layer": {"class_name": "Lambda", "config": {}}}),
            "layer all (Lambda) holds Python code",
        ),
        (layer("Dense", config={"activation": {"class_name": "__lambda__"}}), "(__lambda__) holds Python code"),
        (layer("Attention2", None), "(Attention2) is of a class that Keras does not have"),
        (layer("Attention2", "my.code", registered_name="my>Attention2"), "does not have"),
        (layer("Dense", registered_name="my>Dense"), "does not have"),
        (layer("Popen", "subprocess"), "does not have"),
        (layer("function", "builtins", config={"config": "eval"}), "does not have"),
        (layer("function", "keras.models", config={"config": "load_model"}), "does not have"),
        (layer("get_file", "keras.src.utils.file_utils"), "does not have"),
        (layer("Functional", "keras.src.saving.serialization_lib"), "does not have"),
        (layer("x", "keras.layers\n.evil"), "does not have"),
        (layer("set_global_policy", "keras.mixed_precision"), "does not have"),
        (layer("Policy", "keras.mixed_precision.evil"), "does not have"),
        (layer("TFSMLayer"), "belongs to another file"),
        (layer("TFOpLambda", None, config={"function": "io.write_file"}), "calls io.write_file"),
        (layer("TFOpLambda", None, config={"function": "py_function"}), "calls py_function"),
        (layer("TFOpLambda", None), "calls None"),
        (layer("ClassMethod", "tf_keras.src.layers.core.tf_op_layer"), "may call any"),
        (network(compile_config={"loss": {"module": "builtins", "class_name": "function"}}), "does not have"),
    ],
)
def test_what_would_need_other_code_is_refused_by_its_layer(refused: dict[str, Any], words: str) -> None:
    [sentence] = problems(network(refused), BUILT_IN)
    assert words in sentence


def test_every_layer_is_listed_once() -> None:
    found = problems(
        network(layer("Lambda", name="a"), layer("Lambda", name="a"), layer("Mine", None, name="b")), BUILT_IN
    )
    assert found == [
        "layer a (Lambda) holds Python code, and code from a file is never run",
        "layer b (Mine) is of a class that Keras does not have",
    ]


@pytest.mark.parametrize("odd", [None, 3, "text", [], {}, {"class_name": 3}, {"config": {"layers": [None, 3]}}])
def test_what_is_no_description_has_nothing_to_refuse(odd: object) -> None:
    assert problems(odd, BUILT_IN) == []


def test_every_layer_computes_in_float32() -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    inner = layer("Dense", config={"dtype": "bfloat16", "units": 7})
    mixed = network(
        layer("Conv2D", config={"dtype": policy, "strides": (1, 1)}),
        layer("TimeDistributed", config={"dtype": policy | {"config": {"name": "float32"}}, "layer": inner}),
        layer("Embedding", config={"dtype": "int32"}),
    )
    face, first, second, third = in_float32(mixed)["config"]["layers"]
    assert face == mixed["config"]["layers"][0]
    assert first["config"] == {"name": "it", "dtype": "float32", "strides": (1, 1)}
    assert second["config"]["dtype"] == policy | {"config": {"name": "float32"}}
    assert second["config"]["layer"]["config"] == {"name": "it", "dtype": "float32", "units": 7}
    assert third == mixed["config"]["layers"][3]
