"""Recordings of any event camera, in a folder for each class.

`train/<class>/*` and `test/<class>/*`, or `<class>/*` alone, of which a fifth of each class is kept to test, by a draw
that no option changes. Classes are numbered by their names' order. What a file holds is told by its ending.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.options import option
from trainer.data.reach import Reach, question, spread
from trainer.data.readers.aedat import read_aedat
from trainer.data.readers.aedat4 import read_aedat4
from trainer.data.readers.five_bytes import read_five_bytes
from trainer.data.readers.hdf5_files import read_h5
from trainer.data.readers.numpy_files import read_npy, read_npz_events
from trainer.data.readers.prophesee import read_dat, read_raw
from trainer.data.samples import Sample, Source, stratified_split

__all__ = ["READERS", "source"]

READERS: dict[str, Callable[[Path, Sensor], np.ndarray]] = {
    ".npz": read_npz_events, ".npy": read_npy, ".bin": read_five_bytes, ".aedat": read_aedat, ".aedat4": read_aedat4,
    ".dat": read_dat, ".raw": read_raw, ".h5": read_h5, ".hdf5": read_h5}
"""Ending -> reader."""
TEST = 0.2
_LAYOUT = f"train/<class>/* and test/<class>/*, or <class>/*, of {', '.join(READERS)}"


def source(config: DataConfig) -> Source:
    """Recordings under `config.path`; time begins at a recording's first event.

    Raises:
        UsageError: no path, sensor or window is given.
        HardspikeError: the folder holds no such layout.
    """
    if config.path is None:
        raise UsageError(f"source events reads your own recordings: give {option('path')}, a folder of {_LAYOUT}")
    folder, parts = Path(config.path), {}
    if (folder / "train").is_dir() or (folder / "test").is_dir():
        names = sorted({found.name for part in ("train", "test") for found in _folders(folder / part)})
        parts = {part: _samples(folder / part, names) for part in ("train", "test")}
        missing = {part: f"{folder / part}: no recordings; {_LAYOUT} are expected" for part in parts if not parts[part]}
    else:
        names, missing = [found.name for found in _folders(folder)], {}
        samples = _samples(folder, names)
        if samples:
            parts = dict(zip(("train", "test"), stratified_split(samples, TEST, seed=0), strict=True))
    found = [sample for part in parts.values() for sample in part]
    if not found:
        raise HardspikeError(f"{folder}: no recordings; {_LAYOUT} are expected")
    sensor, duration = _geometry(config, found)

    def read(sample: Sample) -> np.ndarray:
        events = _read(sample.file, sensor)
        events["t"] -= events["t"][0]
        return events

    return Source(read, classes=len(names), sensor=sensor, duration=duration, missing=missing, **parts)


def _folders(folder: Path) -> list[Path]:
    return sorted(found for found in folder.glob("[!.]*") if found.is_dir()) if folder.is_dir() else []


def _samples(folder: Path, names: list[str]) -> list[Sample]:
    samples = []
    for label, name in enumerate(names):
        for file in sorted((folder / name).glob("[!.]*")):
            if file.suffix.lower() in READERS and file.is_file():
                place = f"{folder.name}/{name}/{file.name}"
                samples.append(Sample(id=place, label=label, recording=place, file=file))
    return samples


def _read(file: Path | None, sensor: Sensor) -> np.ndarray:
    assert file  # every sample of this source is a file
    return READERS[file.suffix.lower()](file, sensor).copy()


def _geometry(config: DataConfig, samples: list[Sample]) -> tuple[Sensor, int]:
    """Sensor, and length of a sample in us; raises the question about them where they are not given."""
    if config.sensor is not None and config.window_ms is not None:
        return Sensor(*config.sensor, given=config.sensor), config.window_ms * 1000
    widest, reach = Sensor(1 << 16, 1 << 16, *(config.sensor or ())[2:]), Reach(len(samples))
    for index in spread(len(samples)):
        events = _read(samples[index].file, widest)
        reach.add(1 + int(events["y"].max()), 1 + int(events["x"].max()), int(events["t"][-1] - events["t"][0]))
    raise question(config, reach, "microseconds")
