"""A NIR graph as an ONNX model: one time step with explicit states, or a whole sequence.

`step` has the inputs `input` (batch, *Input) and every state, and the outputs `output` (batch, *Output), the spikes
`NAME.spikes` of every spiking node and `STATE.next` of every state. States are `NAME.v` and `NAME.i` (membrane and
synaptic current), `NAME/input.past` (what a Delay holds, newest first), `NAME.previous` (what a recurrent edge carries)
and, where that is not zero before the first step, `NAME.started`. All are float32 and start at zero, so that this runs
one:

    session = onnxruntime.InferenceSession("model.onnx")
    states = {i.name: np.zeros((batch, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "input"}
    names = [o.name for o in session.get_outputs()]
    total = 0
    for frame in spikes:  # (T, batch, ...) float32
        result = dict(zip(names, session.run(None, {"input": frame, **states})))
        states = {name: result[name + ".next"] for name in states}
        total = total + result["output"]
    classes = total.argmax(1)

A sequence is the step written `steps` times over, with no state outside: Scan and Loop would be shorter, but compilers
for accelerators and browsers leave control flow out, and the step itself serves whoever wants a loop.
"""

from collections.abc import Callable
from functools import partial

import nir
import onnx
from onnx import helper

from hardspike import HardspikeError, one_line, versions
from targets import metadata
from targets.chips import chip_of, limits_of
from targets.graph import Plan, plan
from targets.graph.shapes import Shape
from targets.loihi import rules
from targets.loihi.layers import split
from targets.onnx.guard import MOST_NODES
from targets.onnx.integers import bounds, emit_integers
from targets.onnx.nodes import Emitter, Outputs, emit_nodes

OPSET = 18
"""Of early 2023: all that is needed is in it, so that older runtimes read the files as well."""

Emit = Callable[[Emitter, str], Outputs]
"""Emits one step of a graph for an input's tensor."""


def to_onnx(graph: nir.NIRGraph, steps: int | None = None, dt: float | None = None,
            membrane: bool = False) -> onnx.ModelProto:
    """The model of one step, or of a sequence of `steps` steps with time as first axis of its input and outputs.

    A graph that `quantised` in its metadata calls an integer one computes as the chip named there: membranes in 64ths
    of the weights' unit, inputs whole numbers up to `largest_input` in the model's metadata.

    Args:
        dt: seconds a step; see `targets.graph.plan`.
        membrane: also give `NAME.membrane`, what every spiking node compares with its threshold.

    Raises:
        HardspikeError: the graph is refused (by `plan`, or by its chip), a number is beyond float32, or the model is
            over 2 GB.
    """
    layout, chip = plan(graph, dt), chip_of(graph)
    properties = {key: metadata.text(value) for key, value in graph.metadata.items()} | {"dt": repr(layout.dt)}
    if chip:
        if not chip.like_lava:
            raise HardspikeError(f"{limits_of(chip).chip} has an arithmetic of its own, which ONNX models do not hold; "
                                 "export the float graph")
        network = split(layout)
        rules.require(network, limits_of(chip))
        largest, wrapping = bounds(network)
        properties |= {"arithmetic": limits_of(chip).chip, "largest_input": str(largest)}
        emit = partial(emit_integers, network=network, wrapping=wrapping, membrane=membrane)
    else:
        properties["arithmetic"] = "float32"
        emit = partial(_emit_floats, layout, membrane=membrane)
    return assembled(emit, layout.output_shape[layout.input], properties, steps)


def assembled(emit: Emit, shape: Shape, properties: dict[str, str], steps: int | None = None) -> onnx.ModelProto:
    """The model whose every step `emit` writes, for inputs of `shape`, with `properties` as its metadata.

    Raises:
        HardspikeError: it does not pass onnx's own checks, or is over 2 GB.
    """
    body = _sequence(shape, emit, steps) if steps else _step(shape, emit)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hardspike",
                              producer_version=versions("hardspike")["hardspike"],
                              ir_version=helper.OP_SET_ID_VERSION_MAP[("ai.onnx", OPSET)])
    helper.set_model_props(model, properties | ({"steps": str(steps)} if steps else {}))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise HardspikeError(f"the ONNX model does not pass onnx.checker: {one_line(error)}") from error
    return model


def _emit_floats(plan: Plan, e: Emitter, x: str, membrane: bool) -> Outputs:
    return emit_nodes(e, plan, [name for name in plan.nodes if name != plan.input], {plan.input: x}, membrane)


def _step(given: Shape, emit: Emit) -> onnx.GraphProto:
    """One step; states are inputs and outputs."""
    e = Emitter(initial=lambda name, shape: name)
    results = emit(e, "input")
    results |= {f"{name}.next": (e.following[name], shape) for name, shape in e.shapes.items()}
    for name, (tensor, _) in results.items():
        e.nodes.append(helper.make_node("Identity", [tensor], [name], f"{name}/Identity"))
    inputs = {"input": given, **e.shapes}
    return helper.make_graph(e.nodes, "step", [_value(name, "batch", *shape) for name, shape in inputs.items()],
                             [_value(name, "batch", *shape) for name, (_, shape) in results.items()],
                             list(e.constants.values()))


def _sequence(given: Shape, emit: Emit, steps: int) -> onnx.GraphProto:
    """All steps; states start at zero inside."""
    def zeros(name: str, shape: Shape) -> str:
        size = e.op("Concat", batch, e.index(f"{name.rpartition('.')[2]}_shape", list(shape)), axis=0)
        return e.op("ConstantOfShape", size)

    e = Emitter(initial=zeros, scope="sequence")
    batch = e.op("Shape", "input", start=1, end=2)
    collected: dict[str, list[str]] = {}
    for t in range(steps):
        e.scope = "sequence"
        if t and len(e.nodes) * steps > t * MOST_NODES:
            a_step = len(e.nodes) // t
            raise HardspikeError(f"unroll {steps}: {a_step} operators a step make {a_step * steps}, more than "
                                 f"{MOST_NODES}; unroll at most {MOST_NODES // a_step}, or write one step and call it "
                                 "once a step")
        results = emit(e, e.op("Gather", "input", e.index(f"step_{t}", t), axis=0))
        e.advance()
        e.scope = "sequence"
        for name, (tensor, _) in results.items():
            collected.setdefault(name, []).append(e.op("Unsqueeze", tensor, e.index("time", [0])))
    for name, tensors in collected.items():
        e.nodes.append(helper.make_node("Concat", tensors, [name], f"{name}/Concat", axis=0))
    return helper.make_graph(e.nodes, "sequence", [_value("input", steps, "batch", *given)],
                             [_value(name, steps, "batch", *shape) for name, (_, shape) in results.items()],
                             list(e.constants.values()))


def _value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
