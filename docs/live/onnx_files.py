"""From PyTorch to the files that a browser loads: small graphs, and one file with the weights of them all.

Encoder and decoder share the embedding, and there are two decoders, one that shows its numbers and a quick one: what
is equal is written once. Matrices can be in 8 bits, whole numbers times a scale for each row.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 18
MOST = 127  # of the whole numbers of a weight
LEAST = 1024  # bytes: what is smaller stays in the graph

WEIGHTS_FILE = "weights.bin"


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
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        axis = find_axis(values) if weight.data_type == TensorProto.FLOAT and values.ndim == 2 else None
        if axis is None:
            weights.append(weight)
            continue
        scale = np.abs(values).max(axis=1 - axis, keepdims=True) / np.float32(MOST)
        name = weight.name
        weights.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8"))
        weights.append(numpy_helper.from_array(scale, f"{name}.scale"))
        # Not DequantizeLinear: ONNX Runtime may join it with a product and then rounds the states to 8 bits, too.
        nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
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
