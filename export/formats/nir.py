"""`python -m export nir`: a checkpoint, or from Python any snnTorch network, as a NIR file checked spike for spike."""

import json as jsonlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nir as nirlib
from torch import nn

from export.check import parity as parities
from export.check.own import check_own, require_same_graph
from export.check.parity import Parity
from export.formats.readers import readers
from export.formats.source import Source, source_of
from export.freeze.freeze import freeze
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.neutral import neutral
from export.samples import real_samples
from export.watch.called import Called
from export.watch.graph import build
from export.watch.owner import require_chain
from export.watch.parts import chunk_of, few, others
from export.watch.usage import chosen, recorded
from hardspike import HardspikeError, UsageError, atomic_path, versions
from targets.graph import read, write
from targets.inputs import load_spikes
from trainer.checkpoint import Checkpoint, load
from trainer.config import to_dict


def frozen(checkpoint: Checkpoint, lossy_reset: bool = False, fold: bool = True) -> nirlib.NIRGraph:
    """The hard network of a checkpoint as a NIR graph, BatchNorm folded.

    Metadata: `dt`, `hardspike` (version), `data` (the frames it was trained on, as JSON), `readout`, and for a
    calibrated network `calibration` (its kind). A linear
    readout (SAST eq. 6) acts on time-averaged spikes; since it is linear it stands in the graph step by step, and the
    class is the argmax of the output summed over time, as it is for a spiking readout.
    """
    metadata = {"hardspike": versions("hardspike")["hardspike"], "readout": checkpoint.config.network.readout,
                "data": jsonlib.dumps(to_dict(checkpoint.config)["data"])}
    if checkpoint.calibration:
        metadata["calibration"] = checkpoint.calibration["kind"]
    graph = freeze(checkpoint.network, checkpoint.shape, metadata, lossy_reset)
    return fold_batchnorm(graph) if fold else graph


def open_graph(model: Path) -> nirlib.NIRGraph:
    """The graph of a checkpoint (.pt), frozen, or of a NIR file (.nir).

    Raises:
        UsageError: another kind of file.
        HardspikeError: it cannot be read, or NIR cannot hold the network.
    """
    if model.suffix == ".nir":
        return read(model)
    if model.suffix == ".pt":
        return frozen(load(model))
    raise UsageError(f"{model}: neither a checkpoint (.pt) nor a NIR graph (.nir)")


def output_path(model: Path, out: Path, suffix: str) -> Path:
    """`out`, if it has the format's suffix and is not the model itself.

    Raises:
        UsageError: it has not, or it is.
    """
    if out.suffix != suffix:
        raise UsageError(f"{out}: is written as {suffix}; name it {out.with_suffix(suffix).name}")
    if out.resolve() == model.resolve():
        raise UsageError(f"{out}: is the model itself; give --out another name")
    return out


def nir(model: Path, out: Path | None = None, samples: int = 256, path: Path | None = None, input: Path | None = None,
        lossy_reset: bool = False, no_check: bool = False, json: Path | None = None) -> Parity | None:
    """Write a checkpoint, or a snnTorch network of your own, as a NIR graph and check it spike for spike.

    The file is read back, run by the target `reference` on real samples and compared, layer by layer, with the hard
    PyTorch network, both in float64; a single mismatch is an error and leaves no file. MODEL.parity.json says what
    was compared.

    Args:
        model: checkpoint (.pt) of `python -m trainer fit`; or FILE.py:NAME, a network of your own or a function that
            makes it: your file is run, and --input is what the network is called with
        out: the .nir file; default: the model's name with .nir
        samples: recordings to check on, spread over the test part; 0 for all
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) to check on instead
        lossy_reset: write a subtracting reset as NIR's LIF, which resets to zero; prints how many spikes that changes
        no_check: write without checking, and mark the file so
        json: file for the table of the check

    Returns:
        what the check saw; None without a check.
    """
    if model.suffix == ".nir":
        raise UsageError(f"{model}: is a NIR graph already")
    if (source := source_of(model)) is not None:
        return _own(source, out, samples, input, lossy_reset, json)
    checkpoint = load(model)
    graph = frozen(checkpoint, lossy_reset)
    out = output_path(model, out or model.with_suffix(".nir"), ".nir")

    def check(written: nirlib.NIRGraph) -> Parity:
        frames, unfolded = real_samples(graph, samples, path, input), frozen(checkpoint, fold=False)
        return parities.check_network(checkpoint.network, written, unfolded, frames, out)

    checked, report = write_graph(out, graph, None if no_check else check, lossy_reset)
    parities.announce(out, report, checked, json)
    print(readers(read(out)))
    return checked


def _own(source: Source, out: Path | None, samples: int, input: Path | None, lossy_reset: bool,
         json: Path | None) -> Parity:
    """A network of the user's own code."""
    if input is None:
        raise UsageError(f"{source.file}:{source.name}: --input FILE.npz with what the network is called with, "
                         "`spikes` (T, B, ...), is needed")
    out = output_path(source.file, out or source.file.with_name(f"{source.name}.nir"), ".nir")
    frames, _ = load_spikes(input)
    checked = write_checked(source.network(), frames[:, :samples or None].float(), out, lossy_reset, source.steps)
    parities.announce(out, out.with_suffix(".parity.json"), checked, json)
    print(readers(read(out)))
    return checked


def write_checked(network: nn.Module | Mapping[str, nn.Module] | Called, inputs: Any = None,
                  path: str | Path = "network.nir", lossy_reset: bool = False, steps: str | None = None) -> Parity:
    """Write your own snnTorch network as a NIR graph and check it spike for spike; PATH.parity.json says what was seen.

        net = Net()                            # your class, its loop over time in forward or outside of it
        ...                                    # train it as you do
        parity = write_checked(net, x, "net.nir")   # x: what you call net with
        print(parity.verdict())                # 0 mismatching spikes, or HardspikeError and no file

    The network is run as you run it, in evaluation mode and float64, and watched: your object, your forward. The file
    is read back, run by the target `reference`, and compared with that run layer by layer and step by step; afterwards
    the network is as it was.

    Args:
        network: any module; compiled and parallel wrappers are looked through. Layers in order, name -> module. Or what
            `with export.watch.record() as run` saw being called, which needs no inputs.
        inputs: what forward takes: a tensor, a tuple of arguments, a dict of named ones; real ones where there are any.
            For a module whose forward does one time step, all steps: (T, B, ...), and the states that forward returns
            after its output are handed back to it.
        path: the .nir file.
        lossy_reset: write every reset as NIR's LIF, which resets to zero; prints how many spikes that changes.
        steps: where forward could be meant either way: `forward`, it is called once; `outside`, once a step.

    Raises:
        HardspikeError: a layer that NIR cannot hold, a network that does not run, a spike that differs.
    """
    usage = network.usage() if isinstance(network, Called) else chosen(network, inputs, steps)
    if usage.chain:
        require_chain(usage, inputs)
    metadata = {"hardspike": versions("hardspike")["hardspike"]}
    first = few(usage)
    with recorded(first) as run:
        watched, room = build(run, metadata, lossy_reset), chunk_of(run)
    with recorded(others(first)) as run:
        require_same_graph(watched.graph, build(run, metadata, lossy_reset).graph,
                           "other samples give another graph, so what forward does depends on them")
    exact = fold_batchnorm(watched.graph)

    def written(graph: nirlib.NIRGraph) -> Parity:
        return write_graph(Path(path), graph,
                           lambda file: check_own(usage, watched, file, graph, lossy_reset, room), lossy_reset)[0]

    plain = neutral(exact)
    if plain.nodes == exact.nodes:
        return written(exact)
    try:
        return written(plain)
    except HardspikeError:  # a factor in the weights rounds otherwise, which decides where a membrane meets a threshold
        return written(exact)


def write_graph(out: Path, graph: nirlib.NIRGraph, check: Callable[[nirlib.NIRGraph], Parity] | None,
                lossy_reset: bool = False) -> tuple[Parity | None, Path]:
    """Write, read back and check; the file stays only if the check says so. What it saw, and the report's path.

    Args:
        check: the graph as read back -> what a comparison saw; None for no check.
        lossy_reset: spikes may differ, and are counted.

    Raises:
        HardspikeError: a spike differs, or the network gives none.
    """
    with atomic_path(out) as temporary:
        write(graph, temporary)
        written = read(temporary)
        checked = check(written) if check else None
        if checked:
            _judge(out, checked, lossy_reset)
    return checked, parities.write_report(out, written, checked)


def _judge(out: Path, checked: Parity, lossy_reset: bool) -> None:
    """Refuse a file that spikes differently, unless it was asked for."""
    parities.refuse_silence(out, checked)
    if lossy_reset:
        share = checked.mismatches / max(1, sum(layer.spikes for layer in checked.layers))
        print(f"lossy reset: {checked.mismatches} spikes differ ({100 * share:.1f} % of those of the network)")
        return
    parities.require_equal(out, checked)
    if checked.float32 and checked.float32.beyond:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}")
