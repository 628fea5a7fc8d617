"""ONNX files, whoever wrote them: looked at before a runtime sees them.

An ONNX file may name other files that hold its weights, and operators that a runtime loads or that loop for ever. What
`targets.onnx.model` writes has neither, so a file that has is not run.
"""

import math
from pathlib import Path

import onnx

from hardspike import HardspikeError, one_line, printable, read_bytes, shown

LARGEST = (1 << 31) - 1
"""Bytes of a file: protobuf holds no more."""
MOST_NODES = 500_000
LARGEST_VALUE = 1 << 28
"""Elements of one value in one step, of one sample."""
LARGEST_NUMBER = 1 << 31
OPERATORS = {"Abs", "Add", "AveragePool", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv", "Floor", "Gather",
             "Gemm", "Greater", "Identity", "LessOrEqual", "MatMul", "Max", "Mul", "Reshape", "Shape", "Sign", "Slice",
             "Sub", "Transpose", "Unsqueeze", "Where"}
"""All that our models are made of; none of them holds a graph of its own."""
_WIDTHS = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.INT64: 8, onnx.TensorProto.BOOL: 1}
_PLAIN = {onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT}


def read_model(path: str | Path) -> bytes:
    """The content of a file that `hardspike export onnx` wrote, which names nothing outside itself.

    Raises:
        HardspikeError: it is missing, too large, no such model, or holds what such a model does not have; names it.
    """
    content = read_bytes(path, LARGEST, "ONNX model")
    try:
        model = onnx.load_model_from_string(content)
        properties = {entry.key: entry.value for entry in model.metadata_props}
    except Exception as error:  # protobuf's own class
        raise HardspikeError(f"{path}: no ONNX model, or a damaged one; `hardspike export onnx` writes one") from error
    try:
        if unread := [text for pair in properties.items() for text in pair if not isinstance(text, str)]:
            raise HardspikeError(f"its metadata are no text ({_text(unread[0])}); the file is damaged")
        if "arithmetic" not in properties:
            raise HardspikeError("an ONNX model, but not one of `hardspike export onnx` (no 'arithmetic' in its "
                                 "metadata)")
        _check_parts(model)
        _check_ends(model.graph, properties)
        _check_shapes(model)
    except HardspikeError as error:
        raise HardspikeError(f"{path}: {error}") from error
    return content


def _check_parts(model: onnx.ModelProto) -> None:
    """Operators and parameters."""
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        raise HardspikeError("holds functions, sparse tensors or training steps, which no model of ours has")
    if len(graph.node) > MOST_NODES:
        raise HardspikeError(f"holds {len(graph.node)} operators; at most {MOST_NODES}")
    for node in graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            kind = _text(f"{node.domain} {node.op_type}").strip()
            raise HardspikeError(f"operator '{_name(node)}' is {kind}, which no model of ours has; it is not run")
        for attribute in node.attribute:
            numbers = [attribute.i, *attribute.ints]
            if attribute.type not in _PLAIN or max(map(abs, numbers)) > LARGEST_NUMBER:
                raise HardspikeError(f"operator '{_name(node)}': {_text(attribute.name)} is no number up to "
                                     f"{LARGEST_NUMBER}")
    for tensor in graph.initializer:
        label = f"parameter '{_text(tensor.name)}'"
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise HardspikeError(f"{label} lies in another file, which is not opened; store it in the model")
        width = _WIDTHS.get(tensor.data_type)
        if width is None or min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) * width != len(tensor.raw_data):
            raise HardspikeError(f"{label} of shape {shown(list(tensor.dims))} is not held in full as float32, int64 "
                                 "or bool; the file is damaged")


def _check_ends(graph: onnx.GraphProto, properties: dict[str, str]) -> None:
    """Inputs and outputs, as `targets.onnx.model` describes them."""
    for key in ("steps", "largest_input"):
        value = properties.get(key)
        if value is not None and not (value.isascii() and value.isdigit() and len(value) < 16 and int(value)):
            raise HardspikeError(f"metadata {key} {shown(value)} is no whole number above 0")
    inputs, outputs = ({value.name: value.type.tensor_type for value in values}
                       for values in (graph.input, graph.output))
    states = inputs.keys() - {"input"}
    missing = [name for name in ("input", *inputs) if name not in inputs] + \
        [name for name in ("output", *(f"{name}.next" for name in states)) if name not in outputs]
    if missing or len(inputs) != len(graph.input) or len(outputs) != len(graph.output):
        raise HardspikeError(f"its inputs and outputs do not fit each other ({_text(missing[0])} is missing)"
                             if missing else "two of its inputs or outputs have one name")
    for name, kind in (*inputs.items(), *outputs.items()):
        free = 1 if "steps" in properties else 0  # where the batch stands
        sizes = [size for axis, size in enumerate(kind.shape.dim) if axis != free]
        if kind.elem_type != onnx.TensorProto.FLOAT or not all(size.dim_value > 0 for size in sizes) \
                or not kind.shape.dim:
            raise HardspikeError(f"'{_text(name)}' is no float32 of known shape, batch aside")
    if states and "steps" in properties:
        raise HardspikeError("is a sequence and has states as inputs; no model of ours has both")


def _check_shapes(model: onnx.ModelProto) -> None:
    """Refuse what would make a value of more elements than memory holds."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx has its own classes, and protobuf others
        raise HardspikeError(f"its shapes do not fit each other: {printable(one_line(error))[:200]}") from error
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if math.prod(size or 1 for size in sizes) > LARGEST_VALUE or min(sizes, default=0) < 0:
            raise HardspikeError(f"'{_text(value.name)}' is of shape {sizes}; at most {LARGEST_VALUE} "
                                 "elements")


def _name(node: onnx.NodeProto) -> str:
    return _text(node.name or node.op_type)


def _text(name: str | bytes) -> str:
    """A name for a message; protobuf gives what is no UTF-8 as bytes."""
    return printable(name if isinstance(name, str) else repr(name))[:80]
