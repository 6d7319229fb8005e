"""Smaller numbers for the weights of a graph: 16 bits in place of 32, or 8.

With 8 bits each column of a matrix, or row of an embedding, has a scale s_j: w_j = s_j w'_j. A call scales its inputs
as well, x = s x', and products are those of integers: x w_j = s s_j (x' w'_j). An embedding that is the output layer
too is stored once.
"""

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ZERO = 128  # unsigned: sums of two signed products overflow on processors that lack VNNI
MOST = 127  # from it


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store matrices in 16 bits; loading turns them into 32 again, so that all is computed as before."""
    casts = []
    for weight in find_matrices(model.graph).values():
        casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=TensorProto.FLOAT))
        values = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(values, f"{weight.name}.half"))
    replace_nodes(model.graph, [*casts, *model.graph.node])
    return model


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store matrices in 8 bits and multiply by them in integers; all else is computed as before."""
    graph = model.graph
    matrices = find_matrices(graph)
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    rows = {node.input[0] for node in graph.node if node.op_type in ("Gather", "Transpose")}
    weights = [
        numpy_helper.from_array(np.array(ZERO, np.uint8), "zero"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    weights.append(numpy_helper.from_array(np.array([-1]), "last_axis"))
    for name, weight in matrices.items():
        weights.extend(quantize(weight, axis=1 if name in rows else 0))
    nodes: list[onnx.NodeProto] = []
    inputs: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in matrices:
            nodes.extend(gather(node))
        elif node.op_type == "Transpose" and node.input[0] in matrices:
            node.input[0] += ".int8"
            nodes.append(node)
        elif node.op_type == "MatMul" and turned.get(node.input[1], node.input[1]) in matrices:
            if node.input[0] not in inputs:
                nodes.append(quantize_input(node.input[0]))
                inputs.add(node.input[0])
            nodes.extend(multiply(node, turned))
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)
    read = {name for node in graph.node for name in node.input}
    weights = [weight for weight in [*graph.initializer, *weights] if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    return model


def find_matrices(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the weights that are read as embeddings or multiplied by, and nothing else: name -> weight."""
    matrices = {weight.name: weight for weight in graph.initializer if len(weight.dims) == 2}
    matrices = {name: weight for name, weight in matrices.items() if weight.data_type == TensorProto.FLOAT}
    places = {"MatMul": 1, "Gather": 0, "Transpose": 0}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if places.get(node.op_type) != place:
                matrices.pop(name, None)
    return matrices


def quantize(weight: onnx.TensorProto, axis: int) -> list[onnx.TensorProto]:
    """Return a weight in 8 bits, of the same shape, and its scales, which are equal along an axis."""
    values = numpy_helper.to_array(weight)
    scales = np.abs(values).max(axis=axis, keepdims=True).clip(min=1e-12) / MOST
    integers = (np.rint(values / scales) + ZERO).astype(np.uint8)
    scales = scales.reshape(-1).astype(np.float32)
    return [
        numpy_helper.from_array(integers, f"{weight.name}.int8"),
        numpy_helper.from_array(scales, f"{weight.name}.scale"),
    ]


def quantize_input(name: str) -> onnx.NodeProto:
    """Return what scales the input of products."""
    outputs = [f"{name}.{kind}" for kind in ("int8", "scale", "zero")]
    return helper.make_node("DynamicQuantizeLinear", [name], outputs)


def multiply(node: onnx.NodeProto, turned: dict[str, str]) -> list[onnx.NodeProto]:
    """Return what a product becomes."""
    name, weight, (output,) = node.input[0], node.input[1], node.output
    integers = weight if weight in turned else f"{weight}.int8"
    return [
        helper.make_node("MatMulInteger", [f"{name}.int8", integers, f"{name}.zero", "zero"], [f"{output}.int32"]),
        helper.make_node("Cast", [f"{output}.int32"], [f"{output}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.scale", f"{turned.get(weight, weight)}.scale"], [f"{output}.scale"]),
        helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
    ]


def gather(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return what reading an embedding becomes."""
    (weight, ids), (output,) = node.input, node.output
    return [
        helper.make_node("Gather", [f"{weight}.int8", ids], [f"{output}.int8"]),
        helper.make_node("DequantizeLinear", [f"{output}.int8", "one", "zero"], [f"{output}.float"]),
        helper.make_node("Gather", [f"{weight}.scale", ids], [f"{output}.scales"]),
        helper.make_node("Unsqueeze", [f"{output}.scales", "last_axis"], [f"{output}.scale"]),
        helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
    ]


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Give a graph other nodes."""
    nodes = copy.deepcopy(nodes)  # which live on when the graph that they come from does not
    del graph.node[:]
    graph.node.extend(nodes)
