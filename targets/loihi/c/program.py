"""A network of layers as the C generator sees it: how each layer is stored, what feeds it, and which widths hold it.

A layer of shape (C, H, W) is stored (H, W, C), so that one event meets the weights of all channels of a neighbour in a
row; flat layers are (1, 1, N). Its sums have a margin, into which a convolution may write without asking whether it
is still inside the picture. The Input keeps the order in which users have it, (C, H, W).
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph.shapes import array, conv_arguments, groups_of
from targets.loihi import bounds
from targets.loihi.bounds import ONE_WRAP, SHIFT
from targets.loihi.layers import DECAY_UNIT, LINEAR, Connection, Layer, Network

NARROW = (1 << 15) - 1
"""Sums within it are held in 16 bits."""
WASTE = 4
"""Times the work that filling up the taps of a convolution may cost: it saves a branch that nobody can foresee."""
LARGEST_TABLE = 1 << 26
"""Weights of one connection, bytes; beyond, no compiler takes the text."""
LARGEST_LAYER = 1 << 22
"""Neurons of a layer: places inside it are counted in 32 bits, sums and margins included."""
PARTS = ("weights", "threshold", "bias", "v", "u", "v_keep", "u_keep", "v_kept", "u_kept", "awake", "asleep", "spikes",
         "now", "row", "places", "rows", "quads", "gather", "picture")
RESERVED = set("""
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm
    main input in out data sum list n i x y w v u m s t b c a k j l to row from count value events decay state awake
    start fired seen membrane reset step size keep kept narrow_sum wide_sum in_spikes in_now simulate state_size group
    threshold bias v_keep u_keep v_kept u_kept list_t put taken given ahead floats most odd dot asleep quarter place
    q at four picture bytes16 bytes32 narrow16 narrow32 wide16 narrow16_at narrow32_at wide16_at x4
    """.split())  # noqa: SIM905


@dataclass(frozen=True)
class Geometry:
    """How a population lies in memory: `height` rows of `width` places of `channels`; `planes`: channel by channel."""

    channels: int
    height: int
    width: int
    planes: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return self.channels * self.height * self.width

    def order(self) -> np.ndarray:
        """The (C, H, W) index of every stored element."""
        index = np.arange(self.size).reshape(self.channels, self.height, self.width)
        return (index if self.planes else index.transpose(1, 2, 0)).reshape(-1)


@dataclass(frozen=True)
class Margin:
    """Rows and columns of places around a layer's sums."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def around(self, other: "Margin") -> "Margin":
        """The larger on every side."""
        return Margin(*map(max, vars(self).values(), vars(other).values()))


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, seen from an input place: place p hits taps whose offset divides by the stride.

    `classes[r]`: the taps that a place with (p + padding) % stride == r meets, the last one first, so that the outputs
    ascend; `step`: outputs between two of them; `first[r]`: the output of the first, less (p + padding) // stride.
    """

    padding: int
    stride: int
    dilation: int
    step: int
    classes: tuple[tuple[int, ...], ...]
    first: tuple[int, ...]


@dataclass(frozen=True)
class Synapses:
    """What comes from `source`, `delay` steps late.

    Args:
        name: identifier.
        label: the linear node, as the graph calls it.
        source: key of a population, or "" for the Input.
        weight: (out, in) for a dense connection, indices as stored; OI... for a convolution, (O, I, kh, kw).
        axes: (vertical, horizontal) of a convolution; None: dense.
        groups: of a convolution.
    """

    name: str
    label: str
    source: str
    delay: int
    weight: np.ndarray
    axes: tuple[Axis, Axis] | None = None
    groups: int = 1

    @property
    def conv(self) -> tuple[Axis, Axis]:
        """`axes` of what is known to be a convolution."""
        assert self.axes is not None, self.label
        return self.axes

    @property
    def filled(self) -> tuple[int, int]:
        """`even` where it is known to be one."""
        assert self.even is not None, self.label
        return self.even

    @property
    def even(self) -> tuple[int, int] | None:
        """Rows and columns of taps that hold those of any class, where filling up the others costs little."""
        if self.axes is None or self.groups > 1 or self.axes[1].step > 1:
            return None
        rows, columns = (max(map(len, axis.classes)) for axis in self.axes)
        kernel = self.weight.shape[2] * self.weight.shape[3] / (self.axes[0].stride * self.axes[1].stride)
        return (rows, columns) if rows * columns <= WASTE * kernel else None

    def margin(self, source: Geometry, target: Geometry, even: bool = False) -> Margin:
        """How far a convolution's events reach over the edges of the target; `even`: taps are filled up."""
        if self.axes is None:
            return Margin()
        sides, filled = [], self.even if even else None
        for number, axis in enumerate(self.axes):
            size, wanted = ((source.height, target.height), (source.width, target.width))[number]
            low, high = 0, wanted - 1
            for place in range(size):
                at, r = divmod(place + axis.padding, axis.stride)
                taps = filled[number] if filled else len(axis.classes[r])
                if taps:
                    begin = at + axis.first[r]
                    low, high = min(low, begin), max(high, begin + (taps - 1) * axis.step)
            sides += [-low, high - wanted + 1]
        return Margin(*sides)


@dataclass(frozen=True)
class Population:
    """A layer of neurons, or (`threshold` None) sums that the host reads.

    Constants are flat, in stored order, in the chip's unit (<< 6 done), int64; `narrow`: sums fit 16 bits; `small`:
    nothing wraps or saturates; `wide`: one wrap may not bring the current back into 24 bits, so that it is kept in 64;
    `largest`: |v| and |u| stay below it.
    """

    name: str
    label: str
    geometry: Geometry
    margin: Margin
    synapses: tuple[Synapses, ...]
    threshold: np.ndarray | None
    bias: np.ndarray
    v_keep: np.ndarray
    u_keep: np.ndarray
    reset: str
    group: int
    small: bool
    narrow: bool
    wide: bool
    largest: float

    @property
    def sums(self) -> tuple[int, int]:
        """Rows of the sums with their margin, and elements of a row."""
        g, m = self.geometry, self.margin
        return m.top + g.height + m.bottom, (m.left + g.width + m.right) * g.channels

    @property
    def rests(self) -> bool:
        """Whether a neuron at zero without input stays there: it has no bias, and thresholds lie above zero."""
        return self.threshold is not None and not self.bias.any()


@dataclass(frozen=True)
class Program:
    """All that is written: populations in order of execution; `largest`: |input| is at most that.

    `graded`: an input event counts as its value, not as 1.
    """

    input: Geometry
    shape: tuple[int, ...]
    largest: int
    signed: bool
    populations: dict[str, Population]

    @property
    def graded(self) -> bool:
        """Whether an input event counts as its value."""
        return self.largest > 1 or self.signed

    def geometry(self, source: str) -> Geometry:
        """Of a population, or of the Input ("")."""
        return self.populations[source].geometry if source else self.input


def build(network: Network, steps: float, largest: int, signed: bool = False, even: bool = False,
          taken: Iterable[str] = ()) -> Program:
    """The layers of a network, ready to be written; `network` has passed the rules of its chip.

    Args:
        steps: of a run; infinity where nobody knows.
        largest: |input|.
        signed: whether the input may be below zero.
        even: convolutions are written with `Synapses.even` taps.
        taken: identifiers that are not free.

    Raises:
        HardspikeError: what the generator, or 24 bits, cannot hold, by name.
    """
    shape = network.plan.output_shape[network.plan.input]
    image = geometry_of(shape, "Input")
    names = Names(taken)
    keys = {network.plan.input: ""} | {name: names.take(name) for name in network.layers}
    geometries = {network.plan.input: Geometry(image.channels, image.height, image.width, planes=True)}
    geometries |= {name: _layer_geometry(network, layer) for name, layer in network.layers.items()}
    populations = {}
    for name, proof in bounds.prove(network, steps, largest).items():
        layer, geometry = network.layers[name], geometries[name]
        synapses, margin, reach = [], Margin(), 0
        for c in layer.connections:
            s = synapses_of(network, c, names.take(c.linear), keys[c.source], geometries[c.source], geometry)
            synapses.append(s)
            margin = margin.around(s.margin(geometries[c.source], geometry, even))
            reach += _reach(s.weight, signed) * (1 if s.source else max(1, largest))
        v_keep, u_keep = (DECAY_UNIT - _stored(layer, np.round(d), geometry) for d in (layer.v_decay, layer.i_decay))
        populations[keys[name]] = Population(
            keys[name], name, geometry, margin, tuple(synapses), _stored(layer, layer.threshold, geometry) * SHIFT,
            _stored(layer, layer.bias, geometry) * SHIFT, v_keep, u_keep, layer.reset, layer.group, proof.small,
            reach <= NARROW, proof.arriving > ONE_WRAP and bool(u_keep.any()), proof.largest)
    return Program(geometries[network.plan.input], shape, largest, signed, populations)


class Names:
    """C identifiers, each given out once, together with the names that are made of it."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken: set[str] = {*RESERVED, *taken}

    def take(self, name: str) -> str:
        """`name` as an identifier that nothing else has."""
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "layer"
        plain = (f"n{plain}" if not plain[0].isalpha() or re.fullmatch(r"(from|group)\d+", plain) else plain)[:40]
        found, number = plain, 2
        while not self.taken.isdisjoint(_family(found)):
            found, number = f"{plain}_{number}", number + 1
        self.taken.update(_family(found))
        return found


def _family(name: str) -> list[str]:
    """All that is called after a layer or a connection."""
    return [name, *(f"{name}_{part}" for part in PARTS)]


def _reach(weight: np.ndarray, signed: bool) -> int:
    """How far from zero a neuron's sum may come over one connection, on the way as well: signs summed apart."""
    rows = weight.reshape(len(weight), -1)
    up, down = rows.clip(min=0).sum(1), -rows.clip(max=0).sum(1)
    return int((up + down if signed else np.maximum(up, down)).max())


def geometry_of(shape: tuple[int, ...], label: str) -> Geometry:
    """A shape as channels, rows and columns.

    Raises:
        HardspikeError: more than three axes, or too many neurons.
    """
    if len(shape) > 3:
        raise HardspikeError(f"{label}: has shape {shape}; C is written for up to three axes (C, H, W); flatten it")
    if math.prod(shape) > LARGEST_LAYER:
        raise HardspikeError(f"{label}: {math.prod(shape)} neurons; C is written for at most {LARGEST_LAYER} a layer; "
                             "run it on loihi2, or make the layer smaller")
    if len(shape) == 3:
        return Geometry(*shape)
    return Geometry(shape[0], 1, shape[1]) if len(shape) == 2 else Geometry(math.prod(shape), 1, 1)


def _layer_geometry(network: Network, layer: Layer) -> Geometry:
    """As the first convolution that feeds it lies, else as its own shape says."""
    for c in layer.connections:
        if isinstance(network.plan.nodes[c.linear], nir.Conv1d | nir.Conv2d):
            return geometry_of(network.plan.output_shape[c.linear], f"layer '{layer.name}'")
    return geometry_of(layer.shape, f"layer '{layer.name}'")


def _stored(layer: Layer, values: np.ndarray, geometry: Geometry) -> np.ndarray:
    flat = np.broadcast_to(values, layer.shape).reshape(-1)
    return np.round(flat).astype(np.int64)[geometry.order()]


def synapses_of(network: Network, c: Connection, name: str, key: str, source: Geometry, target: Geometry) -> Synapses:
    node = network.plan.nodes[c.linear]
    assert isinstance(node, LINEAR), c.linear
    weight = np.round(array(node.weight)).astype(np.int64)
    named = (name, c.linear, key, c.delay)
    if isinstance(node, nir.Linear | nir.Affine):
        return Synapses(*named, _table(c.linear, weight)[target.order()][:, source.order()])
    inside = geometry_of(network.plan.input_shape[c.linear], f"node '{c.linear}'")
    outside = geometry_of(network.plan.output_shape[c.linear], f"node '{c.linear}'")
    if isinstance(node, nir.Conv1d):
        weight = weight[:, :, None]
    axes = _axes(c.linear, node, weight.shape[2:])
    same = (source.channels, source.height, source.width) == (inside.channels, inside.height, inside.width)
    if not same or (target.channels, target.height, target.width) != (outside.channels, outside.height, outside.width):
        dense = _unrolled(c.linear, weight, axes, node, inside, outside)
        return Synapses(*named, dense[target.order()][:, source.order()])
    return Synapses(*named, _table(c.linear, weight), axes, groups_of(node))


def _table(label: str, weight: np.ndarray) -> np.ndarray:
    if weight.size > LARGEST_TABLE:
        raise HardspikeError(f"node '{label}': {weight.size} weights; C is written for at most {LARGEST_TABLE} in one "
                             "table; run it on loihi2, or make the layer smaller")
    return weight


def _axes(label: str, node: nir.Conv1d | nir.Conv2d, kernel: tuple[int, ...]) -> tuple[Axis, Axis]:
    """Rows and columns of a convolution; one of signals has one row."""
    arguments = conv_arguments(f"node '{label}'", node)
    count = 1 if isinstance(node, nir.Conv1d) else 2

    def pair(values, neutral: int) -> list[int]:
        values = [int(v) for v in np.broadcast_to(np.ravel(values), count)]
        return [neutral] * (2 - count) + values

    stride, dilation = pair(arguments["stride"], 1), pair(arguments["dilation"], 1)
    if arguments["padding"] == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    else:
        padding = pair(arguments["padding"], 0)
    down, across = (_axis(*values) for values in zip(padding, stride, dilation, kernel, strict=True))
    return down, across


def _axis(padding: int, stride: int, dilation: int, kernel: int) -> Axis:
    classes = tuple(tuple(k for k in reversed(range(kernel)) if k * dilation % stride == r) for r in range(stride))
    first = tuple((r - taps[0] * dilation) // stride if taps else 0 for r, taps in enumerate(classes))
    return Axis(padding, stride, dilation, dilation // math.gcd(dilation, stride), classes, first)


def _unrolled(label: str, weight: np.ndarray, axes: tuple[Axis, Axis], node: nir.NIRNode, inside: Geometry,
              outside: Geometry) -> np.ndarray:
    """A convolution whose ends lie otherwise in memory, as a matrix (out, in)."""
    _table(label, np.broadcast_to(0, (outside.size, inside.size)))
    groups = groups_of(node)
    dense = np.zeros((outside.channels, outside.height, outside.width, inside.channels, inside.height, inside.width),
                     np.int64)
    each = outside.channels // groups
    for y, x in np.ndindex(inside.height, inside.width):
        rows, columns = _hits(axes[0], y, outside.height), _hits(axes[1], x, outside.width)
        for (ky, oy), (kx, ox) in ((r, c) for r in rows for c in columns):
            for g in range(groups):
                out = slice(g * each, (g + 1) * each)
                into = slice(g * weight.shape[1], (g + 1) * weight.shape[1])
                dense[out, oy, ox, into, y, x] = weight[out, :, ky, kx]
    return dense.reshape(outside.size, inside.size)


def _hits(axis: Axis, place: int, size: int) -> list[tuple[int, int]]:
    """(tap, output) that an input place meets along one axis."""
    at, r = divmod(place + axis.padding, axis.stride)
    found = [(k, at + axis.first[r] + i * axis.step) for i, k in enumerate(axis.classes[r])]
    return [(k, o) for k, o in found if 0 <= o < size]
