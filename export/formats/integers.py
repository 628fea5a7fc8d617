"""A model as an integer NIR graph for a chip: `hardspike export quantise`."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import nir
import numpy as np
from torch import Tensor

from export.check import parity as parities
from export.check.parity import Parity
from export.check.report import withdraw, write_report
from export.formats.nir import write_model
from export.model import Model, output_path
from export.options import Output, Quantisation
from export.passes.lower import fold, lower
from export.passes.quantise import QuantisedLayer
from export.recordings import Recordings, check_samples
from hardspike import HardspikeError, UsageError, about, atomic_path, logger, print_table
from targets import metadata, reference
from targets.chips import chip, limits_of
from targets.graph import ends, is_row, plan, read, write
from targets.graph.shapes import array
from targets.limits import Limits
from targets.loihi import rules
from targets.loihi.layers import Network, split
from targets.metadata import Quantised
from targets.target import Target
from trainer.networks.integers import Integers

_log = logger(__name__)


def quantised(model: Model, chosen: Quantisation,
              recordings: Recordings) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """The graph of a model in integers and what changed; a graph of integers is returned as it is.

    Scales are chosen on `chosen.train_samples` training recordings.

    Raises:
        UsageError: an unknown target, bits or kind of scale.
        HardspikeError: a graph quantised for another target that this one cannot hold, or one that cannot be lowered.
    """
    recordings.announce(model)
    with about(model.path):
        return to_integers(model.graph, chosen, lambda: recordings.part("train", chosen.train_samples, model)[0],
                           recordings.dt)


def to_integers(graph: nir.NIRGraph, chosen: Quantisation, frames: Callable[[], Tensor],
                dt: float | None = None) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """`quantised`, of a graph.

    Args:
        frames: gives the training recordings (T, B, ...) to choose scales on, where they are needed.
    """
    machine = chip(chosen.target)
    limits = limits_of(machine)
    network = split(plan(graph, dt))
    try:
        rules.require(network, limits)
        return _marked(graph, network, limits), []
    except HardspikeError:
        if metadata.quantised(graph):
            raise
    rules.require_trained_for(network, limits)
    return lower(graph, frames(), machine, chosen.width, chosen.scale, dt)


def _marked(graph: nir.NIRGraph, network: Network, limits: Limits) -> nir.NIRGraph:
    """An integer graph with `quantised` in its metadata, so that everybody runs it in integers."""
    if metadata.quantised(graph):
        return graph
    weights = [array(graph.nodes[c.linear].weight) for layer in network.layers.values() for c in layer.connections
               if c.linear in graph.nodes]
    bits = 1 + max((int(np.abs(weight).max()).bit_length() for weight in weights), default=7)
    return metadata.mark_quantised(graph, Quantised(limits.chip, bits))


def write_integers(model: Model, output: Output, chosen: Quantisation, samples: int,
                   recordings: Recordings) -> Parity | None:
    """Quantise a model, write it, read it back and compare; see `export.commands.quantise`.

    Raises:
        UsageError: it is quantised already.
        HardspikeError: it cannot be lowered, or a spike differs; there is no file then.
    """
    check_samples(samples)
    if model.integers:
        return _write_trained(model, model.integers, output, chosen, samples, recordings)
    graph, dt = model.float_graph(), recordings.dt
    out = output_path(model, output, ".nir", f".{chosen.target}-int{chosen.width}.nir")  # refused before the search
    integer, rows = quantised(model, chosen, recordings)
    if not rows:
        raise UsageError(f"{model.path}: is made of integers already, which {chosen.target} holds; export it as it is")
    checked = None
    with atomic_path(out) as temporary:
        write(integer, temporary)
        written = read(temporary)
        if not output.no_check:
            frames, _ = recordings.part("test", samples, model)
            checked = _check(out, fold(graph, dt), integer, written, chip(chosen.target), frames)
        withdraw(out)
    report = write_report(out, written, checked)
    print_table([asdict(row) for row in rows],
                f"{out}: {chosen.width}-bit weights for {chosen.target}, scales {chosen.scale}", output.json,
                json.loads(report.read_text()))
    if checked:
        share = checked.mismatches / max(1, sum(layer.spikes for layer in checked.layers))
        cost = "`hardspike eval accuracy` says what it costs" if is_row(ends(written)[1]) else \
            "its Output counts as the float graph's does"
        _log.info(f"{out} spikes as the quantised graph does; against the float graph {checked.mismatches} spikes "
                  f"differ ({100 * share:.1f} % of its spikes, {checked.samples} samples): {cost}")
    else:
        _log.warning(f"{out}: written, NOT checked ({report} says so)")
    return checked


def _write_trained(model: Model, integers: Integers, output: Output, chosen: Quantisation, check_samples: int,
                   recordings: Recordings) -> Parity | None:
    """A network that was trained in integers: nothing is chosen any more.

    Raises:
        UsageError: other bits are asked for.
        HardspikeError: the chip that is asked for cannot hold it, or a spike differs.
    """
    if chosen.bits not in (None, integers.bits):
        raise UsageError(f"bits {chosen.bits}: {model.path} was trained in integers of {integers.bits} bits; leave it "
                         "out, or train with other --quantise.bits")
    rules.require(split(plan(model.graph)), limits_of(chip(chosen.target)))
    default = model.path.with_name(f"{model.path.stem}.{integers.target}-int{integers.bits}.nir")
    return write_model(model, replace(output, out=output.out or default), check_samples, recordings)


def _check(out: Path, graph: nir.NIRGraph, integer: nir.NIRGraph, written: nir.NIRGraph, target: Target,
           frames: Tensor) -> Parity:
    """The file against the quantised graph (must be equal), then against the float graph (counted)."""
    def same(part: Tensor) -> Parity:
        one, other = target.run(integer, part), target.run(written, part)
        parities.require_same_output(out, one.output, other.output, 0.0)
        return parities.compare("the quantised graph", target.name, one.spikes, other.spikes)

    def changed(part: Tensor) -> Parity:
        return parities.compare("the float graph (reference)", target.name, reference.run(graph, part).spikes,
                                target.run(written, part).spikes)

    parities.require_equal(out, parities.in_chunks(frames, same))
    result = parities.in_chunks(frames, changed)
    parities.refuse_silence(out, result, metadata.data(graph) is not None)
    return result
