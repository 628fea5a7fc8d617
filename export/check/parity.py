"""The check that ends every export: the written file, run on its target, against what it came from, spike for spike."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import nir
import torch
from torch import Tensor

from export.check.rounding import FirstDifferences, first_differences
from export.freeze.levels import level_names
from hardspike import HardspikeError
from targets import reference
from targets.target import CHUNK, Target
from trainer.networks import Network
from trainer.networks.integers import IntegerNetwork
from trainer.neurons.levels import LevelLeaky


@dataclass
class LayerParity:
    """One layer's spikes in two runs: how many each run has in all, how many places were compared and differ."""

    layer: str
    compared: int
    spikes: int
    spikes_other: int
    mismatches: int


@dataclass
class HostPart:
    """What a file of the host's part made, against the network's own run.

    Args:
        file: before.onnx or behind.onnx.
        values: compared.
        difference: the largest, of the largest value; of samples in which no spike of the file's own neurons differs.
        spikes: of the graph that differ where it gets the file's frames; of the file's own neurons, where every first
            difference lies within rounding.
    """

    file: str
    values: int
    difference: float
    spikes: int


@dataclass
class Parity:
    """What a check saw.

    Args:
        source, target: what was compared.
        samples: recordings run.
        layers: one row a spiking layer.
        float32: where the network in float32 parts from float64, or None where that does not apply.
        notes: what a reader of the verdict has to know besides.
        host: the host's part in files of its own.
    """

    source: str
    target: str
    samples: int
    layers: list[LayerParity]
    float32: FirstDifferences | None = None
    notes: list[str] = field(default_factory=list)
    host: list[HostPart] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        """Spikes that differ, over all layers."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def compared(self) -> int:
        """Places (neuron, step, sample) compared."""
        return sum(layer.compared for layer in self.layers)

    @property
    def silent(self) -> list[str]:
        """Layers in which nothing fired, on either side: their comparison says nothing."""
        return [layer.layer for layer in self.layers if not layer.spikes and not layer.spikes_other]

    def verdict(self) -> str:
        """One line in words."""
        spiking = sum(layer.spikes for layer in self.layers)
        text = (f"{self.target} against {self.source}: {self.mismatches} mismatching spikes of "
                f"{spiking} ({self.samples} samples, {len(self.layers)} layers, "
                f"{self.compared} places compared)")
        if self.silent:
            text += f"; silent, so that nothing is known of them: {', '.join(self.silent)}"
        if self.float32:
            f = self.float32
            seen = "" if f.samples == self.samples else f" of {f.samples} that could be compared"
            text += (f"; float32 parts from float64 in {f.differing} samples{seen} ({f.spikes} spikes), "
                     + ("every first difference within rounding of the threshold"
                        f" (bound <= {f.largest_bound:.2g}, worst {f.worst:.2g} of it)" if f.differing and not f.beyond
                        else f"{f.beyond} first differences beyond rounding" if f.differing else "nothing to explain"))
            if f.outputs_beyond:
                text += f"; {f.outputs_beyond} values of the output are off by more than rounding"
        parts = [f"the host's part {part.file} (float32) is off by {part.difference:.2g} of the largest value at most"
                 + (f", which changes {part.spikes} spikes" if part.file.startswith("before") else
                    f"; {part.spikes} of its spikes differ from float64's, every first one within rounding of the "
                    "threshold" if part.spikes else "")
                 for part in self.host]
        return "; ".join([text, *self.notes, *parts])


def merge(parts: list[Parity]) -> Parity:
    """Sum of the chunks of one check."""
    return functools.reduce(_merged, parts)


def _merged(one: Any, other: Any) -> Any:
    """Field by field: counts add up, measures (float) keep the larger, lists go row by row, words stay.

    Of lists of words each word stays once. A row is found by its name, the first field: a chunk may lack some (a file
    of the host's that takes another number of samples). What one side alone has (None on the other) is what there is.
    """
    def both(mine: Any, theirs: Any) -> Any:
        if mine is None or theirs is None:
            return theirs if mine is None else mine
        if isinstance(mine, list) and not any(map(is_dataclass, (*mine, *theirs))):
            return list(dict.fromkeys([*mine, *theirs]))
        if isinstance(mine, list):
            mine, theirs = ({getattr(row, fields(row)[0].name): row for row in rows} for rows in (mine, theirs))
            return [_merged(mine[name], theirs[name]) if name in mine and name in theirs else row
                    for name, row in ({**theirs, **mine}).items()]
        if isinstance(mine, float):
            return max(mine, theirs)
        if isinstance(mine, int):
            return mine + theirs
        return _merged(mine, theirs) if is_dataclass(mine) else mine

    return replace(one, **{f.name: both(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)})


def compare(source: str, target: str, spikes: dict[str, Tensor], other: dict[str, Tensor]) -> Parity:
    """Spikes (T, B, ...) of two runs, layer by layer; `spikes` says which layers.

    Raises:
        HardspikeError: a layer is missing on the other side or has another shape there.
    """
    layers, samples = [], 0
    for name, mine in spikes.items():
        if name not in other or other[name].numel() != mine.numel():
            found = tuple(other[name].shape) if name in other else f"absent (it has {', '.join(other)})"
            raise HardspikeError(f"layer '{name}': {source} has spikes {tuple(mine.shape)}, in {target} it is {found}")
        theirs = other[name].reshape(mine.shape)
        layers.append(LayerParity(name, mine.numel(), int(mine.sum(dtype=torch.int64)),
                                  int(theirs.sum(dtype=torch.int64)), int((mine != theirs).sum())))
        samples = mine.shape[1]
    return Parity(source, target, samples, layers)


@torch.inference_mode()
def network_spikes(network: Network, frames: Tensor, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """Hard spikes of every layer, (T, B, ...) uint8, and logits (B, classes) of the PyTorch network run in `dtype` on
    `frames` (T, B, ...). A layer that counts to D is D layers of zeros and ones, as its graph has them."""
    record: dict[str, Tensor] = {}
    network = copy.deepcopy(network).to(dtype).eval()
    with network.mode(hard=True):
        logits = network(frames.to(dtype), record)
    spikes = {}
    for name, found in record.items():
        neuron = network.neurons()[name]
        if isinstance(neuron, LevelLeaky):
            spikes |= {each: (found >= i).to(torch.uint8) for i, each in enumerate(level_names(name, neuron), 1)}
        else:
            spikes[name] = found.to(torch.uint8)
    return spikes, logits


def check_network(network: Network, graph: nir.NIRGraph, unfolded: nir.NIRGraph, frames: Tensor,
                  out: Path = Path("graph")) -> Parity:
    """The hard PyTorch network against `graph` on `reference`, both in float64, and what float32 changes.

    The graph gives its readout step by step: where all spikes agree, its sum over time has to be the network's logits
    (times T for a readout of time-averaged spikes, SAST eq. 6).

    Args:
        network: the trained network.
        graph: as read back from the file.
        unfolded: `graph` before the passes: the operations that float32 rounds.
        frames: (T, B, C, H, W).
        out: named in errors.

    Raises:
        HardspikeError: the spikes agree and the output does not.
    """
    def chunk(part: Tensor) -> Parity:
        recording = reference.run(graph, part, membrane=True)
        spikes, logits = network_spikes(network, part, torch.float64)
        parity = compare("hard network (float64)", "reference", spikes, recording.spikes)
        if not parity.mismatches:
            steps = len(part) if network.readout == "linear" else 1
            require_same_output(out, logits * steps, recording.output.sum(0), 1e-9)
        parity.float32 = first_differences(unfolded, part, recording,
                                           network_spikes(network, part, torch.float32)[0])
        return parity

    return in_chunks(frames, chunk)


def check_integers(network: IntegerNetwork, graph: nir.NIRGraph, chip: Target, frames: Tensor,
                   out: Path = Path("graph")) -> Parity:
    """A network as it was trained, in integers, against `graph` on its chip: spikes and the readout.

    Args:
        graph: as read back from the file.
        frames: (T, B, C, H, W).
        out: named in errors.

    Raises:
        HardspikeError: the spikes agree and the output does not.
    """
    def chunk(part: Tensor) -> Parity:
        recording = chip.run(graph, part)
        spikes, logits = network_spikes(network, part, torch.float32)
        parity = compare("trained network (integers)", chip.name, spikes, recording.spikes)
        if not parity.mismatches:
            units = len(part) * network.integers.readout if network.readout == "linear" else 1
            require_same_output(out, logits.double() * units, recording.output.sum(0), 1e-9)
        return parity

    return in_chunks(frames, chunk)


def in_chunks(frames: Tensor, check: Callable[[Tensor], Parity]) -> Parity:
    """`check` on a few samples at a time, summed."""
    return merge([check(part) for part in frames.split(CHUNK, 1)])


def refuse_silence(out: Path, parity: Parity, fit: bool = True) -> None:
    """A check in which nothing fired is none.

    Args:
        fit: the network was trained by `hardspike fit`.

    Raises:
        HardspikeError: there are spiking layers, and no spike in any.
    """
    if parity.layers and not any(layer.spikes for layer in parity.layers):
        raise HardspikeError(f"{out}: not written: the network gives no spike at all on {parity.samples} samples, so "
                             "the check says nothing; train longer, or " + (
                                 "raise --network.gain" if fit else "scale its weights up"))


def require_equal(out: Path, parity: Parity) -> None:
    """Two runs that have to be one.

    Raises:
        HardspikeError: a spike differs.
    """
    if parity.mismatches:
        raise HardspikeError(f"{out}: not written: {parity.verdict()}; please report this network")


def require_same_output(out: Path, one: Tensor, other: Tensor, tolerance: float) -> None:
    """What two runs give at the Output, (T, B, ...) or (B, ...), as far as `tolerance` times its largest value.

    Raises:
        HardspikeError: they differ by more.
    """
    difference = (one.double() - other.double().reshape(one.shape)).abs().max().item()
    if not difference <= tolerance * max(1.0, one.abs().max().item()):
        raise HardspikeError(f"{out}: not written: all spikes agree or not, the output differs by {difference:.3g}; "
                             "please report this network")
