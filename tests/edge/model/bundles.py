"""Bundles for tests: sound ones under other names or with other labels, and one whose golden outputs differ."""

import hashlib
import json
import platform
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.labels import FER2013_LABELS
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Network
from export.golden import make_golden, write_golden

BUNDLED = find_bundle("student-small")

PERMUTED = {label: FER2013_LABELS.index(label) for label in sorted(FER2013_LABELS, reverse=True)}
"""The bundled network's outputs in another order, with their names."""
TWO = {"neutral": 6, "happy": 3}
AFFECTNET = {
    "neutral": 6,
    "contempt": 3,
    "sadness": 4,
    "surprise": 5,
    "fear": 2,
    "disgust": 1,
    "anger": 0,
    "happiness": 3,
}
"""What the bundled network calls happy is called contempt."""


def accept(_: object) -> None:
    """A check that every bundle passes."""


def bundle_named(folder: Path, name: str) -> Path:
    """A sound bundle with another name, and so another fingerprint."""
    copy = Path(shutil.copytree(BUNDLED, folder / name))
    file = copy / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    return copy


def failing_bundle(folder: Path, name: str) -> Path:
    """A bundle that opens, but whose network does not give its golden outputs."""
    copy = bundle_named(folder, name)
    spoil_golden(copy)
    return copy


def spoil_golden(folder: Path) -> None:
    """Replace the golden outputs of a bundle by others."""
    with np.load(folder / "golden.npz") as stored:
        parts = dict(stored)
    np.savez(folder / "golden.npz", **{**parts, "outputs": np.roll(parts["outputs"], 1, axis=1)})


def zip_bundle(folder: Path, file: Path, under: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, f"{under}{part.name}")
    return file


def relabelled_bundle(folder: Path, name: str, outputs: Mapping[str, int]) -> Path:
    """The bundled network with these labels; each is the label and the number of the bundled network's output.

    An output that is used again is less likely by a constant.
    """
    copy = bundle_named(folder, name)
    file = _with_outputs((copy / "model.tflite").read_bytes(), list(outputs.values()))
    (copy / "model.tflite").write_bytes(file)
    network = Network(file, name)
    write_golden(copy, make_golden(network, open_bundle(BUNDLED).card.crop_margin, tuple(outputs)))
    changes = {
        "labels": list(outputs),
        "sha256": hashlib.sha256(file).hexdigest(),
        "golden_runtime": network.runtime,
        "golden_machine": platform.machine(),
    }
    (copy / "card.json").write_text(json.dumps(json.loads((copy / "card.json").read_text()) | changes))
    (copy / "labels.txt").write_text("".join(f"{label}\n" for label in outputs))
    return copy


def rewired_bundle(folder: Path, name: str, rewire: Callable[[Any], None]) -> Path:
    """A bundle whose network's graph (a schema.SubGraphT) has been changed; its card names the changed file."""
    copy = bundle_named(folder, name)
    model = schema.ModelT.InitFromPackedBuf((copy / "model.tflite").read_bytes(), 0)
    rewire(model.subgraphs[0])
    file = _packed(model)
    (copy / "model.tflite").write_bytes(file)
    changes = {"sha256": hashlib.sha256(file).hexdigest()}
    (copy / "card.json").write_text(json.dumps(json.loads((copy / "card.json").read_text()) | changes))
    return copy


def add_tensor(graph: Any, *shape: int) -> int:
    """Add an int8 tensor that no op uses to a graph; returns its number."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "more", list(shape), schema.TensorType.INT8, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _with_outputs(file: bytes, rows: list[int]) -> bytes:
    """The network with these rows of its last, fully connected op."""
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    graph = model.subgraphs[0]
    weights, bias = (graph.tensors[index] for index in graph.operators[-1].inputs[1:])
    stored = model.buffers[weights.buffer].data.view(np.int8).reshape(weights.shape)
    offsets = model.buffers[bias.buffer].data.view("<i4")[rows]
    offsets -= np.array([rows[:number].count(row) for number, row in enumerate(rows)], np.int32) * 20_000
    model.buffers[weights.buffer].data = np.ascontiguousarray(stored[rows]).view(np.uint8).ravel()
    model.buffers[bias.buffer].data = offsets.view(np.uint8)
    [logits] = graph.outputs
    weights.shape, bias.shape, graph.tensors[logits].shape = [len(rows), weights.shape[1]], [len(rows)], [1, len(rows)]
    for tensor in (weights, bias, graph.tensors[logits]):
        tensor.shapeSignature = None
    return _packed(model)


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
