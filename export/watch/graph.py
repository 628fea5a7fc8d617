"""The graph of a recorded run: neurons, what leads into them, and one output.

What no neuron has a part in and has no form is the host's: the graph's Input begins behind it. The same holds behind
the last neurons: what forward makes of their spikes without a form is the host's readout.
"""

from dataclasses import dataclass, field

import nir
import numpy as np
import torch
from torch import nn

from export.freeze.assembly import BINARY, Assembly, Signal, few_values
from export.freeze.convert import CONVERTERS, convert
from export.freeze.layers import Layer, Piece
from export.freeze.neurons import factor
from export.freeze.pooling import MAXIMUM, uneven
from export.watch import forms, levels, states, traces
from export.watch.cuts import Cut, Cuts, Inside
from export.watch.delays import close_loops, delayed
from export.watch.dense import Affine, source_of
from export.watch.fold import Apply, Expr, Fired, Fixed, Folder, Late, Stream, close
from export.watch.leaf import is_fake_quantizer, is_leaf
from export.watch.linear import as_taps, linear
from export.watch.output import Deeper, Readout, readouts
from export.watch.same import require_same_graph
from export.watch.sequences import Sequence, sequences
from export.watch.steps import Population, in_order
from export.watch.taps import Tap
from export.watch.usage import Run, Usage, recorded
from export.watch.values import label
from export.watch.words import LINEAR_MODULES, why
from hardspike import HardspikeError


@dataclass
class Watched:
    """A graph and what of the run it stands for.

    Args:
        graph: as it was built, nothing folded.
        steps: of the run.
        neurons: name of a layer -> the neurons.
        compared: name of a layer -> the node whose membrane is the neuron's own.
        streams: what goes in, one expression a part of Input.
        readout: what comes out.
        host: what the host computes before the graph, in words.
        calls: which of the calls of forward are its, where each is one step.
        notes: what the user has to know besides.
        reasons: why the host computes what it does.
        moved: whether the host hands on other steps than it gets, or in another order.
        more: the other sequences of the run, which are the same graph.
    """

    graph: nir.NIRGraph
    steps: int
    neurons: dict[str, Population]
    compared: dict[str, str]
    streams: list[Expr]
    readout: Readout
    host: list[str]
    calls: slice
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    moved: bool = False
    more: list["Watched"] = field(default_factory=list)

    def sequences(self) -> list["Watched"]:
        """All sequences of the run."""
        return [self, *self.more]


def watched_graph(usage: Usage, metadata: dict | None = None, lossy_reset: bool = False) -> nir.NIRGraph:
    """The graph of what one run does; unchecked.

    Raises:
        HardspikeError: forward fails, or does what no graph holds, before the first neuron included.
    """
    with recorded(usage) as run:
        watched = build(run, metadata, lossy_reset)
    if watched.reasons:
        raise HardspikeError(watched.reasons[0])
    return watched.graph


def build(run: Run, metadata: dict | None = None, lossy_reset: bool = False) -> Watched:
    """The graph of a recorded run, while its modules are as they were in it.

    Raises:
        HardspikeError: what no graph holds, by the layer's or operation's name.
    """
    first, *first.more = [_built(run, one, metadata, lossy_reset) for one in sequences(run)]
    for number, other in enumerate(first.more, 1):
        require_same_graph(first.graph, other.graph, f"sequence {number} of the run is another graph than the first")
    if first.more:
        steps = sorted({one.steps for one in first.sequences()})
        first.notes.append(f"{len(first.more) + 1} sequences of {' or '.join(map(str, steps))} steps are run, each "
                           "from rest: the file is one of them, so reset its states in between")
    return first


def _built(run: Run, part: Sequence, metadata: dict | None, lossy_reset: bool) -> Watched:
    """The graph of one sequence of a run."""
    folder = Folder(part.steps, {id(call): p for p in part.neurons for call in p.calls}, run.recorder.names,
                    part.neurons[0].calls[0].input.shape[0])
    for name, module in run.recorder.modules.items():
        if "/" in name and (is_leaf(module) or name in run.recorder.calls):
            raise HardspikeError(f"layer '{name}': '/' parts the folders of a NIR file (HDF5), so nobody could read it "
                                 "back; rename the layer")
    cuts, skipped, found, tapped = Cuts(), {}, {}, {}
    while True:
        builder = Builder(run, folder, part, lossy_reset, cuts)
        builder.found, builder.taps = found, tapped
        try:
            with run.recorder.aside(), torch.no_grad():
                readout, output = readouts(builder, skipped)
                streams = builder.streams()
                if len(streams) > 1 and cuts.widen(builder):
                    continue
                return builder.finish(streams, readout, output, metadata)
        except Cut as cut:
            cuts.add(cut.expr, str(cut))
        except Deeper as deeper:
            skipped[id(deeper.values[0])] = HardspikeError(str(deeper))


class Builder:
    """Signals of folded expressions, each built once.

    Args:
        run, folder, part: what was recorded, and the sequence of it.
        cuts: expressions that the host computes.

    Attributes:
        found, taps: matrices and convolutions that were found already, by an expression and what it is made of.
        gates, under_way: thresholds of sums that were made already; operations that are being built, by id.
        late: an operation -> nodes that delay it and wait for its signal.
        made: expressions that no run gave.
    """

    def __init__(self, run: Run, folder: Folder, part: Sequence, lossy_reset: bool, cuts: Cuts):
        self.run, self.folder, self.part, self.neurons, self.lossy_reset = run, folder, part, part.neurons, lossy_reset
        self.cuts = cuts
        self.found: dict[tuple[int, ...], Affine] = {}
        self.taps: dict[tuple[int, ...], tuple[list[Tap], np.ndarray] | None] = {}
        self.gates: dict[tuple, tuple[str, ...]] = {}
        self.assembly = Assembly({*run.recorder.modules, *(n.name for n in self.neurons)} - {""})
        self.pieces: dict[int, Piece] = {}
        self.inputs: dict[int, Expr] = {}
        self.outputs: list[Expr] = []
        self._signals: dict[int, Signal] = {}
        self.under_way: set[int] = set()
        self.made: list[Expr] = []
        self.late: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
        self._names: dict[int, str] = {}
        self._flat: set[int] = set()
        self._looped: set[int] = set()
        self._pooled: set[int] = set()

    def sequence(self, values: tuple) -> Expr:
        """The folded expression of one value a step."""
        expr = self.folder.fold(values)
        close(expr, self.folder)
        return expr

    def signal(self, expr: Expr) -> Signal:
        """What flows where `expr` is used.

        Raises:
            HardspikeError: NIR cannot hold it.
        """
        key = id(expr)
        if key not in self._signals:
            if isinstance(expr, Stream) or key in self.cuts:
                self._signals[key] = self._input(expr)
            elif isinstance(expr, Fired):
                return self._fired(expr)
            elif isinstance(expr, Late):
                self._signals[key] = delayed(self, expr)
            elif isinstance(expr, Fixed):
                raise HardspikeError("forward takes a constant for a signal, which NIR cannot hold (or what torch.jit, "
                                     "torch.vmap or NumPy made out of sight); add it to a signal, as a bias")
            else:
                self._signals[key] = self._applied(expr)
        return self._signals[key]

    def soft(self, expr: Expr) -> bool:
        """Whether an operation has no node of its own and is taken into the weights of what comes after it."""
        if not isinstance(expr, Apply) or id(expr) in self.cuts or id(expr) in self._signals:
            return False
        if isinstance(expr.function, nn.Module):
            children = list(expr.children())
            if isinstance(expr.function, nn.BatchNorm1d | nn.BatchNorm2d):
                return len(children) == 1 and self.soft(children[0])
            return isinstance(expr.function, LINEAR_MODULES) and len(children) == 1 and not isinstance(
                expr.function, tuple(CONVERTERS))
        form = forms.FORMS.get(label(expr.function))
        if form is forms.reshape and len(expr.shape()) > 2 and not expr.free() and any(
                child.shape() != expr.shape() for child in expr.children()):
            return True  # NIR cannot make a picture again: maybe a later operation does
        signals = [child for child in expr.children() if not isinstance(child, Fixed)]
        if form in (forms.same, forms.reshape, forms.multiply):
            return len(signals) == 1 and self.soft(signals[0])
        return form is None

    def known(self, expr: Expr) -> bool:
        """Whether an expression has its signal already."""
        return id(expr) in self._signals

    def apart(self, expr: Expr) -> bool:
        """Whether an operation is not taken into a function of what it is made of: the host's, or kept for later."""
        return id(expr) in self.cuts or id(expr) in self.under_way

    def layer(self, name: str, module: nn.Module, source: Expr) -> Signal | None:
        """A layer of the network on `source`; None where only weights found by trying do it."""
        kind = next((kind for kind in type(module).__mro__ if kind in CONVERTERS), None)
        if (kind is None and isinstance(module, LINEAR_MODULES)) or getattr(module, "padding_mode", "zeros") != "zeros":
            return None
        if self.soft(source) and not isinstance(module, MAXIMUM):
            weighs = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
            parts = forms.apart(self, name, module, source) if weighs else None
            if parts is not None or isinstance(module, nn.Linear) or not self._picture(source):
                return parts  # None: one matrix for both
        signal = self.signal(source)
        if isinstance(module, MAXIMUM) and not signal.values:
            return levels.pooled(self, name, module, signal)  # which says why not
        if signal.flat() or (isinstance(module, nn.Linear) and len(signal.shape) != 1):
            return signal if isinstance(module, nn.Identity | nn.Dropout) else None
        if uneven(module, signal.shape):
            return None
        if isinstance(module, MAXIMUM):
            return levels.pooled(self, name, module, signal)
        piece = convert(Layer(name, module, signal.shape, self.lossy_reset))
        sources = self.assembly.add(name, piece, signal.sources)
        keeps = not piece.nodes or isinstance(module, nn.Flatten)
        return Signal(sources, piece.shape, piece.shape, signal.values if keeps else ())

    def _picture(self, expr: Apply) -> bool:
        """Whether an operation that has no node makes a picture of pictures, by convolutions of one tap."""
        sources = source_of(expr, self.soft)
        return as_taps(self, expr, sources, [self.signal(source) for source in sources]) is not None

    def called(self, expr: Apply) -> str:
        """The name of an operation's node: the module's, or the function's."""
        if id(expr) not in self._names:
            name = label(expr.function).strip("_")
            if isinstance(expr.function, nn.Module):
                name = self.run.recorder.names.get(id(expr.function), "layer")
                if name not in self._names.values():
                    self._names[id(expr)] = name
                    return name
                name = name.replace(".", "_")
            self._names[id(expr)] = self.assembly.free(name)
        return self._names[id(expr)]

    def neuron(self, population: Population) -> None:
        """The nodes of a layer of neurons and all that leads into it, once."""
        if id(population) in self.pieces:
            return
        piece = self.pieces[id(population)] = convert(Layer(
            population.name, population.module, population.shape(), self.lossy_reset, False, population.forgets))
        expr = self.sequence(tuple(call.input for call in population.calls))
        self.inputs[id(population)] = expr
        if "mem" in population.forgets and self._pooled_currents(population, expr):
            return
        if (signal := self.signal(expr)).flat():
            if id(population) in self._looped:
                raise HardspikeError(f"layer '{population.name}': hears itself, and its input had to be flattened; use "
                                     "layers that NIR has for pictures (Conv2d) in its loop")
            states.flatten(piece, population)
            self._flat.add(id(population))
        self.assembly.place(population.name, piece)
        self.assembly.feed(population.name, signal.sources)

    def _pooled_currents(self, population: Population, expr: Expr) -> bool:
        """A neuron without memory fires where any current of a window is above its threshold: Threshold, then OR."""
        source, module = forms.as_module(expr) if isinstance(expr, Apply) else (None, None)
        piece = self.pieces[id(population)]
        if not isinstance(module, nn.MaxPool1d | nn.MaxPool2d) or len(piece.nodes) > 1:
            return False
        before, theta = self.signal(source), np.asarray(piece.nodes[population.name].threshold)
        if before.values or before.flat() or np.ptp(theta.reshape(len(theta), -1), 1).any():
            return False
        channel = theta.reshape(len(theta), -1)[:, 0].reshape(-1, *[1] * (len(before.shape) - 1))
        name = self.assembly.free(f"{population.name}_before")
        fires = nir.Threshold(np.broadcast_to(channel, before.shape).copy())
        fired = self.assembly.add(name, Piece({name: fires}, before.shape), before.sources)
        pooled = convert(Layer(population.name, module, before.shape, binary=True))
        self.assembly.add(population.name, pooled, fired)
        self.pieces[id(population)] = pooled
        self._pooled.add(id(population))
        return True

    def _fired(self, expr: Fired) -> Signal:
        population, role = expr.population, expr.role
        under_way = id(population) in self.pieces and population.name not in self.assembly.made
        if under_way:
            self._looped.add(id(population))
        self.neuron(population)
        piece, shape = self.pieces[id(population)], population.shape()
        taken = (int(np.prod(shape)),) if id(population) in self._flat else shape
        if role == "spk":
            graded = piece.exit.endswith("_grade")
            return Signal((piece.exit,), taken, shape, self._graded(population)) if graded else Signal(
                (population.name,), taken, shape, BINARY)
        if nodes := states.nodes_of(self.assembly, population, piece, role):
            return Signal(nodes, taken, shape)
        kind = type(population.module).__name__
        raise Inside(population.name, f"layer '{population.name}' ({kind}): forward reads the state of "
                     f"'{population.name}', '{role}', which is inside a NIR neuron; read its spikes, or use "
                     "reset_mechanism 'none' or 'subtract' to read its membrane")

    def _graded(self, population: Population) -> tuple[float, ...]:
        """What spikes that are multiplied with a factor may be."""
        return few_values(np.append(factor(population.module).detach().double().cpu().numpy(), 0.0))

    def _input(self, expr: Expr) -> Signal:
        return Signal((self.cuts.inlet(self, expr),), *self.cuts.shapes(self, expr, expr.shape()[1:]))

    def _applied(self, expr: Apply) -> Signal:
        self.under_way.add(id(expr))
        try:
            signal = self._formed(expr)
        except HardspikeError as error:
            if expr.free() and not isinstance(error, Cut):
                raise Cut(expr, str(error)) from error
            raise
        finally:
            self.under_way.discard(id(expr))
        close_loops(self, expr, signal)
        return signal

    def _formed(self, expr: Apply) -> Signal:
        if any(value.random for value in expr.values) and not expr.free():  # else: of frames that the host draws
            raise HardspikeError(f"{self.folder.head(expr.values[0])}: is drawn at random in every run, and a graph "
                                 "does the same every time; draw only while self.training (of a dropout: "
                                 "training=self.training, or nn.Dropout), or draw before you call")
        found = traces.trace(self, expr) or levels.pointwise(self, expr)
        if found is not None:
            return found
        for child in expr.children():  # in the order of forward, so that names are too
            if not isinstance(child, Fixed) and not self.soft(child):
                self.signal(child)
        name = self.called(expr)
        if isinstance(expr.function, nn.Module):
            signal = self._module(name, expr)
            if signal is None and not isinstance(expr.function, (*CONVERTERS, *LINEAR_MODULES)):
                raise HardspikeError(why(self, expr, ""))
        else:
            form = forms.FORMS.get(label(expr.function))
            try:
                signal = form(self, expr) if form else None
            except HardspikeError as error:
                named = str(error).startswith(("layer", "forward", "the steps")) and "'" in str(error)
                if named or isinstance(error, Cut):
                    raise
                raise HardspikeError(f"forward, operation '{name}': {error}") from error
        return signal if signal is not None else linear(self, name, expr)

    def _module(self, name: str, expr: Apply) -> Signal | None:
        """A leaf module on what it gets; None where it has no form of its own."""
        children = list(expr.children())
        if isinstance(expr.function, levels.LAYERS) or is_fake_quantizer(expr.function):
            return levels.pointwise(self, expr)
        if isinstance(expr.function, MAXIMUM) and expr.index not in ((), (0,)):
            raise HardspikeError(f"layer '{name}' ({type(expr.function).__name__}): {levels.WHICH}")
        signal = self.layer(name, expr.function, children[0]) if len(children) == 1 else None
        return levels.largest(self, expr) if signal is None and isinstance(expr.function, MAXIMUM) else signal

    def streams(self) -> list[Expr]:
        """What goes in, in the order of use."""
        return self.cuts.used(self)

    def finish(self, streams: list[Expr], readout: Readout, output: Signal, metadata: dict | None) -> Watched:
        """The graph, and what it stands for."""
        shape = self.cuts.input_shape(streams)
        kept = {node for piece in self.pieces.values() for node in piece.nodes}
        graph = self.assembly.graph(shape, output, metadata, kept)
        built = {p.name: p for p in self.neurons if id(p) in self.pieces}
        compared = {name: self.pieces[id(p)].compared or name for name, p in built.items()
                    if id(p) not in self._pooled}
        left = [p.name for p in self.neurons if p.name not in built]
        notes = [f"left out, no output depends on it: {', '.join(left)}"] if left else []
        notes += states.forgotten(list(built.values()))
        if self.run.handed and self.run.handed.went:
            notes.append(f"what forward returns goes back to it as {', '.join(self.run.handed.went)}")
        if not self.run.usage.outside and any(p.calls[0].inherited for p in built.values() if not states.forgets(p)):
            notes.append("forward does not reset its hidden states: this holds for states at zero before every call "
                         "(utils.reset)")
        if moved := [e for e in streams if not self.folder.before(e.values[0])
                     and not in_order(self.run.usage, e.values)]:
            notes.append("forward does not take the steps of what goes in one after the other: feed the file with the "
                         f"{'frames' if len(moved) == 1 else 'streams of frames'} in forward's own order")
        if len(streams) > 1:
            notes.append(f"Input takes {len(streams)} things in a row, in the order of their use (before.onnx does so)")
        host = list(dict.fromkeys(word for e in streams for word in self.folder.before(e.values[0])))
        reasons = [self.cuts.reasons[id(e)] for e in streams if id(e) in self.cuts.reasons]
        return Watched(graph, self.folder.steps, built, compared, streams, readout, host,
                       self.part.results, notes, reasons, bool(moved))
