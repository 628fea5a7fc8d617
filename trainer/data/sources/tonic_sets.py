"""`tonic:NAME`: any of tonic's data sets that has classes and two parts, of cameras and cochleas alike."""

from pathlib import Path
from typing import Any

import numpy as np

from hardspike import HardspikeError, UsageError, progress
from trainer.data.cache import cache_folder
from trainer.data.config import DataConfig
from trainer.data.events import EVENT, Sensor, check_events
from trainer.data.options import proposal
from trainer.data.readers.tonic_files import dataset
from trainer.data.samples import Sample, Source

__all__ = ["source"]


def source(config: DataConfig) -> Source:
    """The data set in `config.path`, or downloaded by tonic. Time begins at a recording's first event.

    Raises:
        UsageError: no such data set, or no window is given.
        HardspikeError: it cannot be had, or its recordings have no classes.
    """
    name = config.name.partition(":")[2]
    folder = Path(config.path or cache_folder() / "downloads")
    parts = {"train": dataset(name, folder, train=True), "test": dataset(name, folder, train=False)}
    width, height, polarities = parts["train"].sensor_size
    if not all(isinstance(side, int) for side in (width, height, polarities)):
        raise HardspikeError(f"tonic:{name}: its recordings differ in size; cut them and give them as source events")
    sensor = Sensor(height, width, polarities)
    if config.window_ms is None:
        longest = max(int(parts["train"][i][0]["t"].max()) for i in range(min(20, len(parts["train"]))))
        raise UsageError(f"tonic:{name}: window_ms not given; its first recordings reach {longest / 1000:g} ms, so "
                         f"perhaps {proposal(config, window_ms=1 + longest // 1000)}")
    labels = {part: _labels(name, content) for part, content in parts.items()}
    classes = sorted(set(labels["train"]) | set(labels["test"]))
    samples = {part: [Sample(f"{part}/{i}", classes.index(label), f"{part}/{i}") for i, label in enumerate(found)]
               for part, found in labels.items()}

    def read(sample: Sample) -> np.ndarray:
        part, _, index = sample.id.partition("/")
        return _events(f"tonic:{name} {sample.id}", parts[part][int(index)][0], sensor)

    return Source(read, classes=len(classes), sensor=sensor, duration=config.window_ms * 1000, version=str(folder),
                  train=samples["train"], test=samples["test"])


def _labels(name: str, content: Any) -> list[int | str]:
    """The class of every recording; the recordings are read for it only where the data set keeps no list."""
    listed = getattr(content, "targets", None)
    found = listed if listed is not None and len(listed) == len(content) else [
        content[i][1] for i in progress(range(len(content)), f"tonic:{name}: classes")]
    labels = [str(label) if isinstance(label, str | bytes) else int(label) if np.ndim(label) == 0 else None
              for label in found]
    if not labels or None in labels:
        raise HardspikeError(f"tonic:{name}: its recordings have no classes, which training needs")
    return labels  # type: ignore[return-value]  # None was refused


def _events(where: str, raw: np.ndarray, sensor: Sensor) -> np.ndarray:
    events = np.zeros(len(raw), EVENT)
    for field in raw.dtype.names or ():
        if field in ("x", "y", "t") or (field == "p" and sensor.polarities > 1):  # of one polarity p says nothing
            events[field] = raw[field]
    events = check_events(Path(where), events[np.argsort(events["t"], kind="stable")], sensor)
    events["t"] -= events["t"][0]
    return events
