"""Frames that somebody else has binned: `train.npz` and `test.npz`, each as `hardspike data` writes them, or
`train.h5` and `test.h5` with datasets of the same names.

`spikes` (T, N, ...), {0,1} or counts up to 255, and `labels` (N,) from 0; of cameras, cochleas, accelerometers;
pictures of any shape and number of channels, or rows of channels.
"""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, read_npz
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.options import option
from trainer.data.readers.hdf5_files import opened, values
from trainer.data.samples import Sample, Source

__all__ = ["source"]

_WANTED = "spikes (T, N, ...) of whole numbers 0 to 255 and labels (N,) of whole numbers from 0"


def source(config: DataConfig) -> Source:
    """Frames under `config.path`. Their time steps are the network's; a divisor of them sums neighbours.

    Raises:
        UsageError: no path is given, or `steps` is no divisor of the frames' number.
        HardspikeError: a file is missing or holds something else, or the two do not fit each other.
    """
    if config.path is None:
        raise UsageError(f"source frames reads your own files: give {option('path')}, a folder with train.npz and "
                         "test.npz")
    files = {part: _file(Path(config.path), part) for part in ("train", "test")}
    missing = {part: f"{file}: no such file; {_WANTED} are expected" for part, file in files.items()
               if not file.exists()}
    content = {part: _read(file) for part, file in files.items() if part not in missing}
    if not content:
        raise HardspikeError("; ".join(missing.values()))
    shapes = {part: (len(spikes), *spikes.shape[2:]) for part, (spikes, _) in content.items()}
    if len(set(shapes.values())) > 1:
        raise HardspikeError(f"{config.path}: the training part holds (T, ...) {shapes['train']}, the test part "
                             f"{shapes['test']}; bin them alike")
    steps, *shape = next(iter(shapes.values()))
    if steps % config.steps:
        raise UsageError(f"steps {config.steps}: {config.path} has {steps} frames a recording; give {option('steps')} "
                         f"{steps}, or a divisor of it")
    channels, height, width = ([1] * (3 - len(shape)) + shape)[-3:] if len(shape) < 3 else shape

    def frames(sample: Sample) -> np.ndarray:
        part, _, index = sample.id.partition("/")
        one = content[part][0][:, int(index)].astype(np.int64)
        return one.reshape(config.steps, steps // config.steps, channels, height, width).sum(axis=1)

    samples = {part: [Sample(f"{part}/{i}", int(label), f"{part}/{i}", files[part]) for i, label in enumerate(labels)]
               for part, (_, labels) in content.items()}
    classes = 1 + max(int(labels.max()) for _, labels in content.values())
    return Source(frames, classes=classes, sensor=Sensor(height, width, channels), duration=0, binned=True,
                  train=samples.get("train", []), test=samples.get("test", []), missing=missing)


def _file(folder: Path, part: str) -> Path:
    """`part.npz`, or `part.h5` where that lies there instead."""
    return next((file for ending in ("npz", "h5") if (file := folder / f"{part}.{ending}").exists()),
                folder / f"{part}.npz")


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    if file.suffix == ".h5":
        with opened(file) as content:
            found = {name: values(file, content, name) for name in ("spikes", "labels")}
        arrays = {name: value for name, value in found.items() if value is not None}
    else:
        arrays = read_npz(file)
    spikes, labels = arrays.get("spikes"), arrays.get("labels")
    if spikes is None or labels is None or not 3 <= spikes.ndim <= 5 or labels.shape != spikes.shape[1:2] \
            or not spikes.size or any(array.dtype.kind not in "uib" for array in (spikes, labels)):
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise HardspikeError(f"{file}: {_WANTED} are expected; it holds {held or 'nothing'}")
    if spikes.min() < 0 or spikes.max() > 255 or labels.min() < 0:
        raise HardspikeError(f"{file}: spikes {spikes.min()} to {spikes.max()}, labels from {labels.min()}; {_WANTED} "
                             "are expected")
    return spikes, labels
