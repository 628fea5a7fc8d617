"""`hardspike export nir`: a checkpoint, or from Python any snnTorch network, as a NIR file checked spike for spike."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
from torch import nn

from export.check import parity as parities
from export.check.own import check_own
from export.check.parity import Parity
from export.check.report import announce, withdraw, write_report
from export.formats.behind import behind
from export.formats.host import Host, host, place, places
from export.formats.readers import readers
from export.formats.source import Source
from export.model import Model, frozen, output_path, report_path, require_places
from export.options import Output
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.neutral import neutral
from export.recordings import Recordings, check_samples
from export.watch.called import Called
from export.watch.choice import chosen
from export.watch.graph import Watched, build
from export.watch.owner import require_chain
from export.watch.parts import chunk_of, extremes, few, others
from export.watch.same import require_same_graph
from export.watch.usage import Usage, recorded
from hardspike import HardspikeError, UsageError, about, atomic_path, check_suffix, logger, require_writable, versions
from targets import metadata
from targets.graph import read, write
from targets.inputs import load_spikes, spread
from targets.reference import REFERENCE
from trainer.networks.espikeformer import conv_stages

_log = logger(__name__)


def write_model(model: Model, output: Output, samples: int, recordings: Recordings,
                lossy_reset: bool = False, convolutions: bool = False) -> Parity | None:
    """Write a checkpoint as a NIR graph and compare the file with its network; see `export.commands.nir`.

    Raises:
        UsageError: the model is a graph already.
        HardspikeError: NIR cannot hold the network, or a spike differs; there is no file then.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise UsageError(f"{model.path}: is a NIR graph already")
    if convolutions:
        with about(model.path):
            checkpoint = replace(checkpoint, network=conv_stages(checkpoint.network))
    check_samples(samples)
    recordings.announce(model)
    with about(model.path):
        graph = frozen(checkpoint, lossy_reset)
    part = ".conv" if convolutions else ""
    if convolutions and model.integers:
        part += f".{model.integers.target}-int{model.integers.bits}"
    out = output_path(model, output, ".nir", f"{part}.nir")
    rest = behind(model.trained) if convolutions else None
    files = Host({"behind": rest.content} if rest else {})
    require_places(output, out, *(place(out, kind) for kind in files.content))

    def check(written: nir.NIRGraph) -> Parity:
        frames, _ = recordings.part("test", samples, model)
        seen = parities.check_integers(checkpoint.network, written, model.chip, frames, out) if model.chip else \
            parities.check_network(checkpoint.network, written, frozen(checkpoint, fold=False), frames, out)
        if rest:
            seen.host.append(rest.check(written, model.chip or REFERENCE, frames))
        return seen

    with files.beside(out):
        checked, report = write_graph(out, graph, None if output.no_check else check, lossy_reset)
    announce(out, report, checked, output.json)
    if not model.integers:
        _log.info(readers(read(out)))
    return checked


def write_own(source: Source, output: Output, samples: int, recordings: Recordings,
              lossy_reset: bool = False, result: str = "") -> Parity:
    """Write a network of the user's own code, run on a file of spikes; see `export.commands.nir`.

    Raises:
        UsageError: no such file is given.
        HardspikeError: the code fails, NIR cannot hold the network, or a spike differs.
    """
    if recordings.input is None:
        raise UsageError(f"{source.file}:{source.name}: --input FILE.npz with what the network is called with, "
                         "`spikes` (T, B, ...), is needed")
    if output.no_check:
        raise UsageError("--no-check is for checkpoints; a network of your own is compared with its own run")
    out = output.out or source.file.with_name(f"{source.name}.nir")
    check_suffix(out, ".nir")
    require_places(output, out, report_path(out), *places(out))
    frames, _ = load_spikes(recordings.input)
    frames = spread(frames, check_samples(samples)).float()
    checked = write_checked(source.network(), frames, out, lossy_reset, source.steps, result)
    announce(out, report_path(out), checked, output.json)
    _log.info(readers(read(out)))
    return checked


def write_checked(network: nn.Module | Mapping[str, nn.Module] | Called, inputs: Any = None,
                  path: str | Path = "network.nir", lossy_reset: bool = False, steps: str | None = None,
                  result: str = "") -> Parity:
    """Write your own snnTorch network as a NIR graph and check it spike for spike; NAME.nir.parity.json says what was
    seen.

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
        result: which of what forward returns is the graph's Output: its place (`1`, `1.0`) or key (`spikes`), or
            several, which then lie in a row (`0,1`). Without it, the first that the last layer of neurons gives.

    Raises:
        HardspikeError: a layer that NIR cannot hold, a network that does not run, a spike that differs.
    """
    for file in (Path(path), report_path(Path(path)), *places(Path(path))):
        require_writable(file)
    usage = network.usage() if isinstance(network, Called) else chosen(network, inputs, steps)
    usage = replace(usage, result=str(result))
    if usage.chain:
        require_chain(usage, inputs)
    said = {"hardspike": versions("hardspike")["hardspike"]}
    watched, files, room = _watched(few(usage), said, lossy_reset)
    exact = fold_batchnorm(watched.graph)

    def written(graph: nir.NIRGraph) -> Parity:
        with files.beside(Path(path)):
            checked, _ = write_graph(Path(path), graph, lambda file: check_own(
                usage, watched, file, graph, lossy_reset, room, files.check), lossy_reset)
        return checked

    plain = neutral(exact)
    if plain.nodes == exact.nodes:
        return written(exact)
    try:
        return written(plain)
    except HardspikeError:  # a factor in the weights rounds otherwise, which decides where a membrane meets a threshold
        return written(exact)


def _watched(first: Usage, said: dict, lossy_reset: bool) -> tuple[Watched, Host, int]:
    """The graph of a run on a few samples, the files of the host's part, and how many samples to check at a time.

    Raises:
        HardspikeError: NIR cannot hold it, or other samples give another graph.
    """
    with recorded(first) as seen:
        watched, room = build(seen, said, lossy_reset), chunk_of(seen)
        reads = list(dict.fromkeys(seen.recorder.reads))
    if seen.draws:
        watched.notes.append(f"forward draws of {' and '.join(seen.draws)}, which no file holds: this is as the "
                             "numbers fell here; draw of torch, so that it can be seen where they go")
    with recorded(others(first)) as run:
        other = build(run, said, lossy_reset).graph
    try:
        require_same_graph(watched.graph, other, "other samples give another graph, so what forward does depends on "
                                                 "them")
    except HardspikeError:
        _require_repeatable(first, watched, lossy_reset)
        raise
    if reads:
        watched.notes.append(_unmoved_by_reads(first, watched, reads, lossy_reset))
    files = Host() if lossy_reset else host(first, seen, watched, lossy_reset)
    watched.notes += files.notes
    return watched, files, files.at_once(room)


def _require_repeatable(usage: Usage, watched: Watched, lossy_reset: bool) -> None:
    """The same samples give the same graph: a forward that draws its weights does not.

    Raises:
        HardspikeError: they give another one.
    """
    with recorded(usage) as run:
        again = build(run, dict(watched.graph.metadata), lossy_reset).graph
    require_same_graph(watched.graph, again, "a second run on the same samples gives another graph, so forward draws "
                       "at random where torch does not (random, NumPy), or counts its calls",
                       "a graph does the same every time: draw only while self.training")


def _unmoved_by_reads(usage: Usage, watched: Watched, reads: list[str], lossy_reset: bool) -> str:
    """Where forward reads values of what goes in into Python: samples far from the given ones give the same graph.

    Returns:
        what to know all the same.

    Raises:
        HardspikeError: they give another one.
    """
    said = (f"forward reads values of what goes in into Python ({', '.join(reads)}), and silent, dense or larger "
            "samples give another graph")
    for changed in extremes(usage):
        try:
            with recorded(changed) as run:
                other = build(run, dict(watched.graph.metadata), lossy_reset)
        except HardspikeError as error:
            if error.__cause__ is not None:  # forward itself refuses such samples
                continue
            raise HardspikeError(f"{said} or none ({error}); take branches on values out of forward") from error
        if other.steps != watched.steps:
            raise HardspikeError(f"{said}, of {other.steps} steps for {watched.steps}; let forward run every layer in "
                                 "every step, also in one without input")
        if other.host != watched.host:
            raise HardspikeError(f"{said} or other steps of the host before it ({', '.join(other.host) or 'none'} for "
                                 f"{', '.join(watched.host) or 'none'}); take branches on values out of forward")
        require_same_graph(watched.graph, other.graph, said)
    return (f"forward reads values of what goes in into Python ({', '.join(reads)}); silent, dense and larger samples "
            "gave the same graph")


def write_graph(out: Path, graph: nir.NIRGraph, check: Callable[[nir.NIRGraph], Parity] | None,
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
            _judge(out, checked, lossy_reset, metadata.data(written) is not None)
        withdraw(out, *places(out))
    return checked, write_report(out, written, checked)


def _judge(out: Path, checked: Parity, lossy_reset: bool, fit: bool) -> None:
    """Refuse a file that spikes differently, unless it was asked for."""
    parities.refuse_silence(out, checked, fit)
    if lossy_reset:
        share = checked.mismatches / max(1, sum(layer.spikes for layer in checked.layers))
        _log.warning(f"lossy reset: {checked.mismatches} spikes differ ({100 * share:.1f} % of those of the network)")
        return
    parities.require_equal(out, checked)
    if checked.float32 and checked.float32.beyond:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}")
