"""From PyTorch to the files that a browser loads: small graphs, and one file with the weights of them all.

Encoder and decoder share the embedding, and there are two decoders, one that shows its numbers and a quick one: what
is equal is written once. Weights can be stored in 8 or 16 bits.
"""

from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 18
MOST = 127  # of the whole numbers of a weight
LEAST = 1024  # bytes: what is smaller stays in the graph

WEIGHTS_FILE = "weights.bin"

Stored = tuple[dict[str, np.ndarray], list[onnx.NodeProto]]  # parts of a weight by name, and what makes it of them


def trace(
    module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], axes: dict[str, dict]
) -> onnx.ModelProto:
    """Return a module as a graph.

    Args:
        module: Its forward takes the inputs in their order, and returns a list in the order of the outputs.
        inputs: A sample of each.
        outputs: Names of what it returns.
        axes: Which axes of which inputs may have any length.
    """
    samples = tuple(sample.clone() for sample in inputs.values())
    shapes = tuple(axes.get(name) for name in inputs)
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            samples,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes if axes else None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # never with dynamo
    graph = program.model_proto
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")  # where in the code it comes from
    return graph


def round_weights(model: nn.Module) -> None:
    """Round matrices in place to what 8 bits can say: whole numbers times a scale for each row."""
    with torch.no_grad():
        for weight in {id(weight): weight for weight in model.parameters() if weight.dim() == 2}.values():
            scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / MOST
            weight.copy_((weight / scale).round() * scale)


def store_in_8_bits(graph: onnx.GraphProto) -> None:
    """Replace matrices that `round_weights` has rounded by whole numbers and scales; loading multiplies them."""

    def store(name: str, values: np.ndarray) -> Stored | None:
        axis = find_axis(values) if values.ndim == 2 else None
        if axis is None:
            return None
        scale = np.abs(values).max(axis=1 - axis, keepdims=True) / np.float32(MOST)
        parts = {f"{name}.int8": np.rint(values / scale).astype(np.int8), f"{name}.scale": scale}
        # Not DequantizeLinear: ONNX Runtime may join it with a product and then rounds the states to 8 bits, too.
        cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT)
        return parts, [cast, helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name])]

    replace_weights(graph, store)


def store_in_16_bits(graph: onnx.GraphProto) -> None:
    """Replace weights that half precision holds exactly, as of models that were saved in it; loading casts them."""

    def store(name: str, values: np.ndarray) -> Stored | None:
        half = values.astype(np.float16)
        if values.nbytes < LEAST or not np.array_equal(half.astype(np.float32), values):
            return None
        return {f"{name}.half": half}, [helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)]

    replace_weights(graph, store)


def replace_weights(graph: onnx.GraphProto, store: Callable[[str, np.ndarray], Stored | None]) -> None:
    """Replace weights in place by what they are made from when the graph is loaded.

    Args:
        graph: What is changed.
        store: From the name and the values of a weight to parts and nodes that make it, or None for it to stay.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for weight in graph.initializer:
        stored = store(weight.name, numpy_helper.to_array(weight)) if weight.data_type == TensorProto.FLOAT else None
        if stored is None:
            weights.append(weight)
        else:
            weights.extend(numpy_helper.from_array(values, name) for name, values in stored[0].items())
            nodes.extend(stored[1])
    nodes.extend(graph.node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    initial = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initial)


def find_axis(values: np.ndarray) -> int | None:
    """Return the axis along which a matrix has scales, (rows 0, columns 1); None where it was not rounded."""
    for axis in (0, 1):
        scale = np.abs(values).max(axis=1 - axis, keepdims=True) / np.float32(MOST)
        if (scale > 0).all() and np.abs(np.rint(values / scale) * scale - values).max() < 1e-6:
            return axis
    return None


def take_weights(graphs: dict[str, onnx.ModelProto]) -> bytes:
    """Move the weights out of graphs, in place, and return the file that they point to, each weight once."""
    file = bytearray()
    places: dict[bytes, int] = {}
    for model in graphs.values():
        for weight in model.graph.initializer:
            values = numpy_helper.to_array(weight).tobytes()
            if len(values) < LEAST:
                continue
            if values not in places:
                file.extend(bytes(-len(file) % 64))  # the next address that a processor likes to read from
                places[values] = len(file)
                file.extend(values)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            place = {"location": WEIGHTS_FILE, "offset": places[values], "length": len(values)}
            for key, value in place.items():
                entry = weight.external_data.add()
                entry.key, entry.value = key, str(value)
    return bytes(file)
