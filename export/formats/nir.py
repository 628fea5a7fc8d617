"""`python -m export nir`: a checkpoint, or from Python any snnTorch network, as a NIR file checked spike for spike."""

from collections.abc import Callable, Mapping
from pathlib import Path

import nir
import torch
from torch import nn

from export.check import parity as parities
from export.check.parity import Parity
from export.check.report import announce, write_report
from export.check.stepwise import check_stepwise
from export.freeze.freeze import freeze
from export.model import Model, frozen, output_path
from export.options import Output
from export.passes.fold_batchnorm import fold_batchnorm
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, atomic_path, versions
from targets.graph import read, write


def write_model(model: Model, output: Output, samples: int, recordings: Recordings,
                lossy_reset: bool = False) -> Parity | None:
    """Write a checkpoint as a NIR graph and compare the file with its network; see `export.commands.nir`.

    Raises:
        UsageError: the model is a graph already.
        HardspikeError: NIR cannot hold the network, or a spike differs; there is no file then.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise UsageError(f"{model.path}: is a NIR graph already")
    graph = frozen(checkpoint, lossy_reset)
    out = output_path(model, output, ".nir")

    def check(written: nir.NIRGraph) -> Parity:
        frames, _ = recordings.part("test", samples, model)
        return parities.check_network(checkpoint.network, written, frozen(checkpoint, fold=False), frames, out)

    checked, report = write_graph(out, graph, None if output.no_check else check, lossy_reset)
    announce(out, report, checked, output.json)
    return checked


def write_checked(network: nn.Module | Mapping[str, nn.Module], samples: torch.Tensor, path: str | Path,
                  lossy_reset: bool = False) -> Parity:
    """Write your own snnTorch network as a NIR graph and check it spike for spike; PATH.parity.json says what was seen.

        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), snn.Leaky(beta=0.9, init_hidden=True),
                            nn.Linear(500, 10), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        ...                                    # train it as you do
        samples = (torch.rand(25, 64, 1, 28, 28) < 0.2).float()  # (T, B, ...): better, real ones
        parity = write_checked(net, samples, "net.nir")
        print(parity.verdict())                # 0 mismatching spikes, or HardspikeError and no file

    Stock snnTorch runs `network` step by step in float64; the file is read back and run by the target `reference`.

    Args:
        network: what `export.freeze.freeze` takes, with a forward for one time step (see `export.check.stepwise`).
        samples: (T, B, ...), real ones where there are any.
        path: the .nir file.
        lossy_reset: write every reset as NIR's LIF, which resets to zero; prints how many spikes that changes.

    Raises:
        HardspikeError: a layer that NIR cannot hold, a network that does not run, a spike that differs.
    """
    if samples.ndim < 2:
        raise UsageError(f"samples of shape {tuple(samples.shape)}: (T, B, ...) is needed")
    metadata = {"hardspike": versions("hardspike")["hardspike"]}
    graph = fold_batchnorm(freeze(network, samples.shape[2:], metadata, lossy_reset))
    return write_graph(Path(path), graph,
                       lambda written: check_stepwise(network, written, samples.cpu(), not lossy_reset), lossy_reset)[0]


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
            _judge(out, checked, lossy_reset)
    return checked, write_report(out, written, checked)


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
