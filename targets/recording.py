"""What a run of a graph gives: the spikes of every layer and the output."""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, file_size, printable, require_memory, write_bytes

Transmit = Callable[[str, Tensor, slice], Tensor]
"""What becomes of a layer's spikes on their way: (layer, spikes (T, B, *shape), which samples of the run) -> spikes.

Neurons have fired and reset by then; inside a loop they hear each other undisturbed.
"""

LARGEST = 1 << 35
"""Bytes of an .npz file."""
DENSEST, FEW = 1040, 1 << 20
"""Deflate packs 1032 equal bytes into one; bytes that any file may declare."""


@dataclass
class Recording:
    """Spikes of every spiking node in graph order, (T, B, *shape) uint8; `output` at the graph's Output.

    `output` is (T, B, *shape), float64. `membrane`, where asked for, is the value that each spiking node
    compared with its threshold, before the reset, in the target's own units.
    """

    spikes: dict[str, Tensor]
    output: Tensor
    membrane: dict[str, Tensor] = field(default_factory=dict)

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


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file: numbers and text, nothing pickled. What it declares is looked at before it is read.

    Raises:
        HardspikeError: it is missing, or no such file, holds pickled objects, or declares more than it or memory holds.
    """
    size = file_size(path, LARGEST, ".npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(_declared(path, archive, member) for member in archive.infolist())
        if declared > DENSEST * size + FEW:
            raise HardspikeError(f"{path}: its arrays declare {declared / 1e6:.4g} MB, more than its "
                                 f"{size / 1e6:.3g} MB can hold; it is damaged or made to fill memory")
        require_memory(declared, f"{path}: what it holds", "take fewer samples")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except HardspikeError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and OS errors alike: the file is not what it should be
        raise HardspikeError(f"{path}: not a readable .npz file ({type(error).__name__})") from error


def _declared(path: str | Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes that a member says it has once it is read."""
    name = printable(member.filename)[:80]
    with archive.open(member) as file:
        if file.read(6) != b"\x93NUMPY":
            raise HardspikeError(f"{path}: '{name}' is no array; write the file with numpy.savez")
        version = file.read(1)[0], file.read(1)[0]
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise HardspikeError(f"{path}: '{name}' has a header of numpy's version {version}; write it anew")
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise HardspikeError(f"{path}: '{name}' holds pickled Python objects, which would execute code when loaded; "
                             "store numbers")
    if min(shape, default=0) < 0:
        raise HardspikeError(f"{path}: '{name}' has shape {shape}; the file is damaged")
    return math.prod(shape) * dtype.itemsize
