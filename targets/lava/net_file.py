"""`.net` files, whoever wrote them: what they say, and a copy of what was looked at for Lava's interpreter."""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from hardspike import HardspikeError, one_line, printable, shown
from targets import hdf5
from targets.graph.shapes import LARGEST

KIND = "network of lava-dl's netx"


@dataclass(frozen=True)
class NetFile:
    """What a `.net` file says beside its weights: shapes without time and batch, layer name -> shape in order.

    `readout` is the float weight (out, in) and bias (out,) that the host applies to the last layer's spikes.
    """

    input_shape: tuple[int, ...]
    layers: dict[str, tuple[int, ...]]
    readout: tuple[np.ndarray, np.ndarray] | None


def read_net(path: Path) -> NetFile:
    """Shapes and names of a `.net` file; layers without a name are called by their number.

    Raises:
        HardspikeError: it is missing, no HDF5 within the limits of `targets.hdf5`, or no network description with an
            input layer.
    """
    return described(path, hdf5.read(path, KIND))


def described(path: Path, content: dict) -> NetFile:
    """What the groups and datasets of a `.net` file say; errors as `read_net`."""
    try:
        entries = [content["layer"][str(i)] for i in range(len(content["layer"]))]
        kinds = [str(entry["type"]) for entry in entries]
        shapes = [_shape(path, i, entry["shape"]) if "shape" in entry else () for i, entry in enumerate(entries)]
        names = [str(entry.get("name", i)) for i, entry in enumerate(entries)]
        readout = None
        if "readout" in content:
            weight, bias = (np.asarray(content["readout"][key], np.float64) for key in ("weight", "bias"))
            readout = weight, bias
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise HardspikeError(f"{path}: not a network of lava-dl's netx: {printable(one_line(error))[:100]} is wrong or "
                             "missing; write one with `hardspike export lava`") from error
    if kinds[:1] != ["input"] or not shapes[0]:
        raise HardspikeError(f"{path}: its first layer is {shown(kinds[0]) if kinds else 'missing'}; a layer of type "
                             "input, with its shape, has to come first")
    layers = {name: shape for name, kind, shape in zip(names, kinds, shapes, strict=True) if kind in ("conv", "dense")}
    if len(layers) < sum(kind in ("conv", "dense") for kind in kinds) or not layers:
        raise HardspikeError(f"{path}: two layers have one name, or there is none; write it anew with `hardspike "
                             "export lava`")
    last = math.prod(layers[list(layers)[-1]])
    if readout and (readout[0].ndim != 2 or readout[0].shape[1] != last or readout[1].shape != readout[0].shape[:1]):
        raise HardspikeError(f"{path}: readout of weight {readout[0].shape} and bias {readout[1].shape} behind {last} "
                             "neurons; (out, in) and (out,) are needed")
    return NetFile(shapes[0], layers, readout)


def _shape(path: Path, layer: int, value) -> tuple[int, ...]:
    sizes = np.atleast_1d(value)
    if sizes.dtype.kind not in "iu" or sizes.ndim != 1 or not 0 < len(sizes) <= 3 or (sizes < 1).any() \
            or math.prod(map(int, sizes)) > LARGEST:
        raise HardspikeError(f"{path}: layer {layer} has shape {shown(sizes.tolist())}; one to three whole numbers "
                             f"above 0, of at most {LARGEST} neurons together, are needed")
    return tuple(map(int, sizes))


def copied(content: dict, made: BytesIO) -> None:
    """The file anew, of what was read of it."""
    def fill(group: h5py.Group, values: dict) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                fill(group.create_group(name), value)
            elif isinstance(value, str):
                group[name] = np.bytes_(value.encode())
            elif value.dtype == object:  # texts
                group.create_dataset(name, data=value, dtype=h5py.string_dtype())
            else:
                group[name] = value

    with h5py.File(made, "w") as file:
        fill(file, content)
