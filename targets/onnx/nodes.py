"""What every NIR node computes in one time step, as ONNX operators in float32: as `targets.nodes.neurons`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import nir
import numpy as np
import onnx
from onnx import helper, numpy_helper

from hardspike import HardspikeError
from targets.graph import SPIKING, Plan
from targets.graph.shapes import Shape, array, conv_arguments, expand, output_shape, pool_arguments
from targets.nodes.neurons import STEPS, Coefficients, coefficients, delay_steps
from targets.reference import before_start

MOST_DELAYS = 256
"""Different delays of one node."""
LARGEST_STATE = 1 << 28
"""Values; a gigabyte a sample."""

Outputs = dict[str, tuple[str, Shape]]
"""A model's output -> the tensor that is it, and its shape without batch."""


@dataclass
class Emitter:
    """ONNX nodes in the making.

    Args:
        initial: (state's name, shape without batch) -> tensor that holds its first value.
        nodes: so far.
        constants: parameters by name; one that is asked for in every step is stored once.
        scope: the NIR node at work; prefix of all names, so that a runtime's messages tell the layer.
        current: state -> tensor with its present value, `following`: with its next one, `shapes`: without batch.
    """

    initial: Callable[[str, Shape], str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    scope: str = ""
    current: dict[str, str] = field(default_factory=dict)
    following: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        """Append one operator; gives its output's name."""
        name = f"{self.scope}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, key: str, values: np.ndarray) -> str:
        """A parameter of the node at work, numbers in float32, truth values as they are.

        Raises:
            HardspikeError: a value is beyond the range of float32.
        """
        name = f"{self.scope}/{key}"
        if name not in self.constants:
            with np.errstate(over="ignore"):
                stored = values if values.dtype.kind == "b" else values.astype(np.float32)
            if not np.isfinite(stored).all():
                raise HardspikeError(f"node '{self.scope}': {key} is {values.flat[np.abs(values).argmax()]:g}; ONNX is "
                                     "written in float32, which ends at 3.4e38; rescale the layer")
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(stored), name)
        return name

    def coefficient(self, key: str, values: np.ndarray) -> str:
        """A parameter that broadcasts: one number where all are alike."""
        return self.constant(key, values.flat[:1].reshape(()) if (values == values.flat[0]).all() else values)

    def index(self, key: str, values: int | list[int]) -> str:
        """Positions, axes or sizes, int64."""
        name = f"{self.scope}/{key}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def state(self, key: str, shape: Shape) -> str:
        """The present value of a state variable (batch, *shape); all start at zero."""
        name = f"{self.scope}.{key}"
        if name not in self.current:
            self.shapes[name], self.current[name] = shape, self.initial(name, shape)
        return self.current[name]

    def update(self, key: str, tensor: str) -> None:
        """The value that a state variable has in the next step."""
        self.following[f"{self.scope}.{key}"] = tensor

    def advance(self) -> None:
        """Go to the next step."""
        self.current, self.following = self.following, {}

    def total(self, tensors: list[str]) -> str:
        """The sum of several edges."""
        first, *rest = tensors
        for other in rest:
            first = self.op("Add", first, other)
        return first


def neuron(e: Emitter, x: str, c: Coefficients, shape: Shape) -> tuple[str, str]:
    """(output, membrane) of any neuron for its input current `x`; `c` of `targets.nodes.neurons.coefficients`.

    i' = leak_syn i + gain_syn x;  v' = leak v + gain i' + rest;  z = v' > threshold;  v' = reset where z; each part
    where `c` has it. Factors of 1 and offsets of 0 are left out: they round nothing.
    """
    if "gain_syn" in c:
        decayed = _times(e, "leak_syn", e.state("i", shape), c)
        x = e.op("Add", decayed, _times(e, "gain_syn", x, c))
        e.update("i", x)
    if "gain" in c:
        decayed = _times(e, "leak", e.state("v", shape), c)
        x = e.op("Add", decayed, _times(e, "gain", x, c))
        if "rest" in c and c["rest"].any():
            x = e.op("Add", x, e.coefficient("rest", c["rest"].numpy()))
        e.update("v", x)
    if "threshold" not in c:
        return x, x
    fired = e.op("Greater", x, e.coefficient("threshold", c["threshold"].numpy()))
    if "reset" in c:
        e.update("v", e.op("Where", fired, e.coefficient("reset", c["reset"].numpy()), x))
    return e.op("Cast", fired, to=onnx.TensorProto.FLOAT), x


def _times(e: Emitter, key: str, x: str, c: Coefficients) -> str:
    return x if key not in c or (c[key] == 1).all() else e.op("Mul", x, e.coefficient(key, c[key].numpy()))


def late(e: Emitter, shape: Shape, longest: int, steps: int) -> str:
    """What was remembered `steps` >= 1 steps ago; zero at first.

    The state is `previous` (batch, *shape), or where more than one step is kept `past` (batch, longest, *shape), newest
    first.

    Raises:
        HardspikeError: that state would be of more than `LARGEST_STATE` values.
    """
    if longest == 1:
        return e.state("previous", shape)
    if longest * math.prod(shape) > LARGEST_STATE:
        raise HardspikeError(f"node '{e.scope}': a delay of {longest} steps of {shape} makes a state of "
                             f"{longest * math.prod(shape)} values a sample; at most {LARGEST_STATE}: shorten it")
    return e.op("Gather", e.state("past", (longest, *shape)), e.index(f"age_{steps}", steps - 1), axis=1)


def remember(e: Emitter, x: str, longest: int) -> None:
    """Keep `x` for `late` for `longest` steps; after every `late` of the step."""
    if longest == 1:
        e.update("previous", x)
    elif longest:
        newest = e.op("Unsqueeze", x, e.index("axis", [1]))
        older = e.op("Slice", e.current[f"{e.scope}.past"], *(
            e.index(key, [n]) for key, n in (("from", 0), ("to", longest - 1), ("axis", 1))))
        e.update("past", e.op("Concat", newest, older, axis=1))


def delay(e: Emitter, x: str | None, steps: np.ndarray) -> str:
    """A nir.Delay of `steps` (*shape) whole steps; `x` is None in a loop, where it is not computed yet."""
    value, different = None, np.unique(steps)
    if len(different) > MOST_DELAYS:
        raise HardspikeError(f"node '{e.scope}' (Delay): {len(different)} different delays, which ONNX computes one by "
                             f"one; at most {MOST_DELAYS}: round them")
    for k in different:
        if k:
            part = late(e, steps.shape, int(steps.max()), int(k))
        elif x is not None:
            part = x
        else:
            raise HardspikeError(f"node '{e.scope}' (Delay): a delay of less than half a step, in a loop; "
                                 "make it 0 or at least one step")
        value = part if value is None else e.op("Where", e.constant(f"late_{k}", steps == k), part, value)
    assert value is not None  # no layer is empty
    return value


# ------------------------------------------------------------------------------- layers without a state


def _dense(e: Emitter, x: str, node: nir.Linear | nir.Affine, shape: Shape) -> str:
    parameters = [e.constant("weight", array(node.weight))]
    if isinstance(node, nir.Affine):
        parameters.append(e.constant("bias", np.broadcast_to(array(node.bias), len(node.weight))))
    return e.op("Gemm", x, *parameters, transB=1)


def _conv(e: Emitter, x: str, node: nir.Conv1d | nir.Conv2d, shape: Shape) -> str:
    arguments, weight = conv_arguments(e.scope, node), array(node.weight)
    before = after = arguments["padding"]
    if before == "same":  # torch puts the odd element behind
        whole = [d * (k - 1) for d, k in zip(arguments["dilation"], weight.shape[2:], strict=True)]
        before, after = [n // 2 for n in whole], [n - n // 2 for n in whole]
    parameters = [e.constant("weight", weight)]
    if array(node.bias).any():
        parameters.append(e.constant("bias", np.broadcast_to(array(node.bias), len(weight))))
    return e.op("Conv", x, *parameters, pads=[*before, *after], strides=arguments["stride"],
                dilations=arguments["dilation"], group=arguments["groups"])


def _scale(e: Emitter, x: str, node: nir.Scale, shape: Shape) -> str:
    return e.op("Mul", x, e.constant("scale", expand(f"node '{e.scope}' (Scale): scale", node.scale, shape)))


def _average_pool(e: Emitter, x: str, node: nir.AvgPool2d, shape: Shape) -> str:
    kernel, stride, padding = pool_arguments(e.scope, node)
    return e.op("AveragePool", x, kernel_shape=kernel, strides=stride, pads=[*padding, *padding], count_include_pad=1)


def _sum_pool(e: Emitter, x: str, node: nir.SumPool2d, shape: Shape) -> str:
    """A depthwise convolution with ones: an average times its size would round."""
    kernel, stride, padding = pool_arguments(e.scope, node)
    ones = e.constant("ones", np.ones((shape[0], 1, *kernel)))
    return e.op("Conv", x, ones, strides=stride, pads=[*padding, *padding], group=shape[0])


def _flatten(e: Emitter, x: str, node: nir.Flatten, shape: Shape) -> str:
    return e.op("Reshape", x, e.index("shape", [0, *output_shape(e.scope, node, shape)]))  # 0: as it is


OPERATORS: dict[type[nir.NIRNode], Callable[[Emitter, str, nir.NIRNode, Shape], str]] = {
    nir.Linear: _dense, nir.Affine: _dense, nir.Conv1d: _conv, nir.Conv2d: _conv, nir.Scale: _scale,
    nir.SumPool2d: _sum_pool, nir.AvgPool2d: _average_pool, nir.Flatten: _flatten}
"""(emitter, input, node, the input's shape without batch) -> output."""


# ------------------------------------------------------------------------------------------- whole graph


def emit_nodes(e: Emitter, plan: Plan, names: list[str], values: dict[str, str],
               membrane: bool) -> Outputs:
    """`names`, in order of execution, the Output among them; `values`: what their sources give."""
    results: Outputs = {}
    delays: dict[str, np.ndarray] = {}
    looped = {edge.source for edge in plan.edges if edge.delayed and edge.target in names}
    before = before_start(plan) if looped else {}
    for name in names:
        node, edges, shape = plan.nodes[name], plan.sources(name), plan.input_shape[name]
        if isinstance(node, nir.Delay):
            delays[name] = delay_steps(name, node, shape, plan.dt)
            e.scope = f"{name}/input"
            known = all(edge.source in values for edge in edges)
            values[name] = delay(e, e.total([values[edge.source] for edge in edges]) if known else None, delays[name])
            continue
        parts = [_previous(e, edge.source, before[edge.source][0].numpy()) if edge.delayed else values[edge.source]
                 for edge in edges]
        e.scope = name
        total = e.total(parts)
        if type(node) in STEPS:
            values[name], compared = neuron(e, total, coefficients(name, node, shape, plan.dt), shape)
            if isinstance(node, SPIKING):
                results[f"{name}.spikes"] = values[name], shape
                if membrane:
                    results[f"{name}.membrane"] = compared, shape
        else:
            values[name] = total if isinstance(node, nir.Output) else OPERATORS[type(node)](e, total, node, shape)
    for name, steps in delays.items():
        e.scope = f"{name}/input"  # no node is called so
        remember(e, e.total([values[edge.source] for edge in plan.sources(name)]), int(steps.max()))
    for name in sorted(looped):
        e.scope = name
        remember(e, values[name], 1)
        if f"{name}.started" in e.current:
            e.update("started", e.op("Max", e.current[f"{name}.started"], e.constant("one", np.ones(()))))
    return {"output": (values[plan.output], plan.output_shape[plan.output]), **results}


def _previous(e: Emitter, source: str, before: np.ndarray) -> str:
    """What `source` gave in the step before, and `before` (*shape) before the first."""
    e.scope = source
    value = late(e, before.shape, 1, 1)
    if not before.any():
        return value
    started = e.op("Cast", e.state("started", (1,) * before.ndim), to=onnx.TensorProto.BOOL)
    return e.op("Where", started, value, e.constant("before", before))
