"""What a run of a graph gives: the spikes of every layer and the output."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, printable, read_npz, write_bytes

Transmit = Callable[[str, Tensor, slice], Tensor]
"""What becomes of a layer's spikes on their way: (layer, spikes (T, B, *shape), which samples of the run) -> spikes.

Neurons have fired and reset by then; inside a loop they hear each other undisturbed.
"""



@dataclass
class Recording:
    """Spikes of every spiking node in graph order, (T, B, *shape) uint8; `output` at the graph's Output.

    `output` is (T, B, *shape), float64. `membrane`, where asked for, is the value that each spiking node
    compared with its threshold, before the reset, in the target's own units. `counts`, where a run was told whose
    spikes to record: how many every spiking node had, (B,) int64.
    """

    spikes: dict[str, Tensor]
    output: Tensor
    membrane: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def predictions(self) -> Tensor:
        """The class of each sample (B,): argmax of the output summed over time; of a tie, the lowest."""
        return self.output.sum(0).flatten(1).argmax(1)

    def save(self, path: str | Path) -> None:
        """Write an `.npz` with `output`, `spikes/NAME` and `membrane/NAME`."""
        arrays = {"output": self.output.numpy()}
        for kind in ("spikes", "membrane"):
            arrays |= {f"{kind}/{name}": values.numpy() for name, values in getattr(self, kind).items()}
        made = io.BytesIO()
        # numpy's stubs take any name for `allow_pickle`
        np.savez_compressed(made, **arrays)  # type: ignore[arg-type]
        write_bytes(path, made.getbuffer())


def spikes_of_samples(spikes: dict[str, Tensor]) -> dict[str, Tensor]:
    """How many spikes (T, B, *shape) each sample has, (B,) int64, layer by layer."""
    # step by step: torch makes a copy in the type of the sum
    return {name: sum((step.flatten(1).sum(1, dtype=torch.int64) for step in fired), torch.zeros(1, dtype=torch.int64))
            for name, fired in spikes.items()}


def load(path: str | Path) -> Recording:
    """Read what `Recording.save` wrote.

    Raises:
        HardspikeError: the file is missing or holds no recording.
    """
    arrays = read_npz(path)
    if "output" not in arrays:
        raise HardspikeError(f"{path}: holds no recording (no array 'output')")
    odd = [key for key, value in arrays.items() if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8]
    if odd:
        raise HardspikeError(f"{path}: '{printable(odd[0])[:80]}' holds {arrays[odd[0]].dtype}; numbers are needed")
    numbers = {key: torch.from_numpy(value.astype(value.dtype.newbyteorder("="))) for key, value in arrays.items()}
    parts = {kind: {key.removeprefix(f"{kind}/"): value for key, value in numbers.items() if key.startswith(f"{kind}/")}
             for kind in ("spikes", "membrane")}
    return Recording(parts["spikes"], numbers["output"], parts["membrane"])
