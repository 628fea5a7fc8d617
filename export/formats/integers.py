"""`python -m export quantise`: a checkpoint or a NIR graph as an integer NIR graph for a chip."""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import nir
import numpy as np
from torch import Tensor

from export.check import parity as parities
from export.check.parity import Parity
from export.formats.nir import open_graph, output_path
from export.passes.lower import fold, lower
from export.passes.quantise import QuantisedLayer
from export.samples import real_samples
from hardspike import HardspikeError, UsageError, atomic_path, nearest, print_table
from targets import loihi1, loihi2, reference
from targets.graph import plan, read, write
from targets.graph.shapes import array
from targets.loihi import rules
from targets.loihi.layers import Network, split
from targets.loihi.limits import Limits
from targets.onnx.model import quantised_for

CHIPS: dict[str, ModuleType] = {"loihi1": loihi1, "loihi2": loihi2}


def chip(target: str) -> ModuleType:
    """The integer target of that name.

    Raises:
        UsageError: there is none.
    """
    if target not in CHIPS:
        raise UsageError(f"target '{target}' takes no integers{nearest(target, CHIPS)}; known: {', '.join(CHIPS)}")
    return CHIPS[target]


def chip_of(graph: nir.NIRGraph) -> str | None:
    """Name of the integer target that a quantised graph was made for; None for a float graph."""
    made_for = quantised_for(graph)
    return next((name for name, module in CHIPS.items() if module.LIMITS.chip == made_for), None)


def open_float(model: Path) -> nir.NIRGraph:
    """The float graph of a checkpoint or NIR file.

    Raises:
        UsageError: it is quantised already.
    """
    graph = open_graph(model)
    if "quantised" in graph.metadata:
        raise UsageError(f"{model}: is quantised already; start from the float graph")
    return graph


def quantised(graph: nir.NIRGraph, target: str = "loihi2", bits: int = 8, scale: str = "searched",
              samples: int = 128, path: Path | None = None, input: Path | None = None,
              dt: float | None = None) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """`graph` in integers for `target` and what changed; a graph of integers is returned as it is.

    Scales are chosen on `samples` training recordings, or on the file `input`.

    Raises:
        HardspikeError: a graph quantised for another target that this one cannot hold, or one that cannot be lowered.
    """
    limits = chip(target).LIMITS
    network = split(plan(graph, dt))
    try:
        rules.require(network, limits)
        return _marked(graph, network, limits), []
    except HardspikeError:
        if "quantised" in graph.metadata:
            raise
    return lower(graph, real_samples(graph, samples, path, input, split="train"), limits, bits, scale, dt)


def _marked(graph: nir.NIRGraph, network: Network, limits: Limits) -> nir.NIRGraph:
    """An integer graph with `quantised` in its metadata, so that everybody runs it in integers."""
    if "quantised" in graph.metadata:
        return graph
    weights = [array(graph.nodes[c.linear].weight) for layer in network.layers.values() for c in layer.connections
               if c.linear in graph.nodes]
    bits = 1 + max((int(np.abs(weight).max()).bit_length() for weight in weights), default=7)
    mark = jsonlib.dumps({"target": limits.chip, "bits": bits, "scale": "given", "scales": {}})
    return nir.NIRGraph(graph.nodes, graph.edges, metadata={**graph.metadata, "quantised": mark}, type_check=False)


def quantise(model: Path, out: Path | None = None, target: str = "loihi2", bits: int = 8, scale: str = "searched",
             samples: int = 128, check_samples: int = 256, path: Path | None = None, input: Path | None = None,
             dt: float | None = None, no_check: bool = False, json: Path | None = None) -> Parity | None:
    """Quantise a checkpoint or NIR graph for a chip: a NIR graph in integer units, and what that changed.

    BatchNorm, gains and pooling are folded, weights get `bits` bits, thresholds and biases the same integer units,
    leaks 4096ths. The file is read back and run in the chip's arithmetic: it must spike as the quantised graph does;
    against the float graph the spikes that differ are counted.

    Args:
        model: checkpoint (.pt) or graph (.nir)
        out: the .nir file; default: MODEL.TARGET-intBITS.nir
        target: loihi1 or loihi2
        bits: of a weight, 2 to 8
        scale: searched (on training recordings, by the spikes that differ) or max_abs (the largest weight fills the
            range)
        samples: training recordings to choose scales on
        check_samples: test recordings to check on
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) for both, where the graph does not say what it was trained on
        dt: seconds a step, where the graph does not say
        no_check: write without checking, and mark the file so
        json: file for the tables

    Returns:
        what the check saw, float graph against file; None without a check.
    """
    graph = open_float(model)
    integer, rows = quantised(graph, target, bits, scale, samples, path, input, dt)
    if not rows:
        raise UsageError(f"{model}: is made of integers already, which {target} holds; export it as it is")
    out = output_path(model, out or model.with_name(f"{model.stem}.{target}-int{bits}.nir"), ".nir")
    checked = None
    with atomic_path(out) as temporary:
        write(integer, temporary)
        written = read(temporary)
        if not no_check:
            frames = real_samples(graph, check_samples, path, input)
            checked = _check(out, fold(graph, dt), integer, written, chip(target), frames)
    report = parities.write_report(out, written, checked)
    print_table([asdict(row) for row in rows], f"{out}: {bits}-bit weights for {target}, scales {scale}", json,
                jsonlib.loads(report.read_text()))
    if checked:
        share = checked.mismatches / max(1, sum(layer.spikes for layer in checked.layers))
        print(f"{out} spikes as the quantised graph does; against the float graph {checked.mismatches} spikes differ "
              f"({100 * share:.1f} % of its spikes, {checked.samples} samples): `python -m eval accuracy` says what "
              "it costs")
    else:
        print(f"{out}: written, NOT checked ({report} says so)")
    return checked


def _check(out: Path, graph: nir.NIRGraph, integer: nir.NIRGraph, written: nir.NIRGraph, target: ModuleType,
           frames: Tensor) -> Parity:
    """The file against the quantised graph (must be equal), then against the float graph (counted)."""
    def same(part: Tensor) -> Parity:
        one, other = target.run(integer, part), target.run(written, part)
        parities.require_same_output(out, one.output, other.output, 0.0)
        return parities.compare("the quantised graph", target.NAME, one.spikes, other.spikes)

    def changed(part: Tensor) -> Parity:
        return parities.compare("the float graph (reference)", target.NAME, reference.run(graph, part).spikes,
                                target.run(written, part).spikes)

    parities.require_equal(out, parities.in_chunks(frames, same))
    result = parities.in_chunks(frames, changed)
    parities.refuse_silence(out, result)
    return result
