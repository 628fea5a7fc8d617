"""Spike trains of channels in a row, as the Heidelberg data sets have them (SHD and SSC: Cramer et al. 2022).

A file a part, whose name ends with `train` or `test`, with a row of `spikes/times` and of `spikes/units` for each
recording, and `labels`.

Times are seconds where they have fractions, else microseconds; units are channels from 0.
"""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.options import option
from trainer.data.reach import SECONDS, Reach, question, spread
from trainer.data.readers.hdf5_files import opened, sequences, spike_trains, values
from trainer.data.samples import Sample, Source

__all__ = ["source"]

ENDINGS = (".h5", ".hdf5")
_WANTED = "*train.h5 and *test.h5 with spikes/times, spikes/units (a row for each recording) and labels"


def source(config: DataConfig) -> Source:
    """Recordings of the files in `config.path`; time begins where the file has it begin.

    Raises:
        UsageError: no path, sensor or window is given.
        HardspikeError: a file is missing or holds something else.
    """
    if config.path is None:
        raise UsageError(f"source hdf5 reads your own files: give {option('path')}, a folder of {_WANTED}")
    folder = Path(config.path)
    files = {part: _file(folder, part) for part in ("train", "test")}
    missing = {part: f"{folder}: no file *{part}.h5; {_WANTED} are expected" for part in files if files[part] is None}
    if len(missing) == len(files):
        raise HardspikeError(missing["train"])
    labels = {part: _labels(file) for part, file in files.items() if file}
    sensor, duration = _geometry(config, [file for file in files.values() if file])

    def read(sample: Sample) -> np.ndarray:
        assert sample.file
        with opened(sample.file) as content:
            times, units = (_row(sample, sequences(sample.file, content, name)) for name in ("spikes/times",
                                                                                             "spikes/units"))
        return spike_trains(Path(f"{sample.file} {sample.id}"), times, units, sensor)

    samples = {part: [Sample(f"{part}/{i}", int(label), f"{part}/{i}", files[part]) for i, label in enumerate(found)]
               for part, found in labels.items()}
    classes = 1 + max(int(found.max()) for found in labels.values())
    return Source(read, classes=classes, sensor=sensor, duration=duration, train=samples.get("train", []),
                  test=samples.get("test", []), missing=missing, unit="seconds")


def _file(folder: Path, part: str) -> Path | None:
    found = [file for file in sorted(folder.glob("[!.]*")) if file.suffix.lower() in ENDINGS
             and file.stem.lower().endswith(part)]
    if len(found) > 1:
        raise HardspikeError(f"{folder}: {found[0].name} and {found[1].name} both end with {part}; keep one")
    return found[0] if found else None


def _row(sample: Sample, found) -> np.ndarray:
    return np.asarray(found[int(sample.id.partition("/")[2])])


def _labels(file: Path) -> np.ndarray:
    with opened(file) as content:
        labels = values(file, content, "labels")
        trains = [sequences(file, content, f"spikes/{name}") for name in ("times", "units")]
        if labels is None or any(train is None or len(train) != len(labels) for train in trains):
            raise HardspikeError(f"{file}: {_WANTED} are expected, as many of each")
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise HardspikeError(f"{file}: labels {labels.dtype} {labels.shape}; whole numbers from 0, one a recording, "
                             "are expected")
    return labels


def _geometry(config: DataConfig, files: list[Path]) -> tuple[Sensor, int]:
    """Channels, and length of a recording in us; raises the question about them where they are not given."""
    if config.sensor is not None and config.window_ms is not None:
        # spike trains have no ON and OFF
        return Sensor(*(*config.sensor, 1)[:3], given=config.sensor), config.window_ms * 1000
    reach = Reach(0)
    for file in files:
        _look(file, reach, SECONDS / len(files))
    if not reach.columns:
        raise HardspikeError(f"{files[0].parent}: no spike in {reach.looked} of {reach.count} recordings; write the "
                             "files again")
    raise question(config, reach, "seconds")


def _look(file: Path, reach: Reach, seconds: float) -> None:
    """Add recordings of a file to `reach`, as many as `seconds` are enough for."""
    with opened(file) as content:
        times, units = (sequences(file, content, f"spikes/{name}") for name in ("times", "units"))
        assert times is not None and units is not None
        reach.count += len(times)
        for index in spread(len(times), seconds):
            if len(times[index]):
                events = spike_trains(file, np.asarray(times[index]), np.asarray(units[index]), Sensor(1, 1 << 20, 1))
                reach.add(1, 1 + int(events["x"].max()), int(events["t"][-1]))
            else:
                reach.add(0, 0, 0)
