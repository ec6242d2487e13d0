"""Read the description of a Keras network before Keras does, and find in it what would run code.

Keras builds whatever classes and functions a file names. Its safe mode does not cover every form of file: legacy HDF5
files are loaded without it by the legacy Keras, so ``Lambda`` layers would run. So only what is on a list is built.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

_MODULES: Final = re.compile(
    r"(tf_)?keras(\.src)?\.(layers|models|engine|initializers|regularizers|constraints|activations|dtype_policies|ops|optimizers|losses|metrics)\b"
    r"(?!.*\.(lambda_layer|tfsm_layer|torch_wrapper|jax_layer)\b).*"
)
_CLASSES_OF_KERAS: Final = {"DTypePolicy", "Functional", "Sequential", "Model"}
_POLICIES: Final = re.compile(r"(tf_)?keras(\.src)?\.mixed_precision(\.policy)?")  # of precision, in Keras 2
_REDUCED: Final = {"mixed_float16", "mixed_bfloat16", "float16", "bfloat16"}
_UNUSED: Final = {"compile_config"}  # of the whole network: the optimizer and the loss, which are not loaded
_REFUSED: Final = {
    "Lambda": "holds Python code, and code from a file is never run",
    "__lambda__": "holds Python code, and code from a file is never run",
    **dict.fromkeys(
        ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"), "belongs to another file or framework"
    ),
    **dict.fromkeys(
        ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"),
        "may call any function of TensorFlow",
    ),
}
_SYMBOLS: Final = re.compile(
    r"(math|nn|__operators__|linalg)\.\w+|image\.resize|concat|reshape|cast|transpose|expand_dims|squeeze|identity|pad|"
    r"clip_by_value|convert_to_tensor|stack|unstack|split|repeat|tile|compat\.v1\.(transpose|nn\.\w+|image\.resize\w*)"
)
_SYMBOL_LAYERS: Final = {"TFOpLambda", "SlicingOpLambda"}
_REFERENCES: Final = {"__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__ellipsis__", "slice"}


def problems(config: object, built_in: frozenset[str]) -> list[str]:
    """A sentence about each layer of a network's ``config`` that needs code that is not Keras's.

    ``built_in`` has the names of the layers that the Keras which will load the file has.
    """
    network = (
        {key: value for key, value in config.items() if key not in _UNUSED} if isinstance(config, dict) else config
    )
    found = dict.fromkeys(f"layer {name} ({kind}) {problem}" for name, kind, problem in _walk(network, "?", built_in))
    return list(found)


def in_float32(config: Any) -> Any:
    """A copy of a network's ``config`` in which every layer computes in float32, as devices and TFLite do.

    Networks that were trained in mixed precision have float32 weights, so nothing is lost.
    """
    if isinstance(config, list | tuple):
        return type(config)(in_float32(part) for part in config)
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and _precision(part) in _REDUCED else in_float32(part)
        for key, part in config.items()
    }


def _precision(dtype: Any) -> str:
    """The name of a layer's precision, which is stored alone or as that of an object."""
    if isinstance(dtype, dict) and isinstance(described := dtype.get("config"), dict):
        dtype = described.get("name")
    return dtype if isinstance(dtype, str) else ""


def _walk(value: Any, layer: str, built_in: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """Each object that is refused: the name of its layer, its class, and why."""
    if isinstance(value, list):
        for part in value:
            yield from _walk(part, layer, built_in)
        return
    if not isinstance(value, dict):
        return
    if isinstance(kind := value.get("class_name"), str):
        config = value.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            layer = config["name"]
        is_layer = "inbound_nodes" in value or value.get("module") == "keras.layers"
        if problem := _problem(value, kind, is_layer=is_layer, built_in=built_in):
            yield layer, kind, problem
    for part in value.values():
        yield from _walk(part, layer, built_in)


def _problem(value: dict[str, Any], kind: str, *, is_layer: bool, built_in: frozenset[str]) -> str:
    """Why an object is not built; empty if it is one of Keras's own."""
    module, registered = value.get("module"), value.get("registered_name")
    if kind in _REFUSED:
        return _REFUSED[kind]
    if kind in _SYMBOL_LAYERS:
        function = (value.get("config") or {}).get("function")
        return "" if isinstance(function, str) and _SYMBOLS.fullmatch(function) else f"calls {str(function)[:60]}"
    if kind in _REFERENCES:
        return ""
    own = (isinstance(registered, str) and ">" in registered) or ">" in kind
    known_module = module is None or bool(
        isinstance(module, str)
        and (kind != "function" or ".activations" in module)
        and (
            _MODULES.fullmatch(module)
            or (module in {"keras", "tf_keras", "builtins"} and kind in _CLASSES_OF_KERAS)
            or (kind == "Policy" and _POLICIES.fullmatch(module))
        )
    )
    known_layer = not is_layer or module is not None or kind in built_in or kind in _CLASSES_OF_KERAS
    return "is of a class that Keras does not have" if own or not known_module or not known_layer else ""
