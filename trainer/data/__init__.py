"""Event data: recordings, frames, splits; one file a source."""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from hardspike import HardspikeError, UsageError, progress
from trainer.data.cache import cached
from trainer.data.config import DataConfig, check
from trainer.data.events import encode, to_counts
from trainer.data.packing import Packed, bits_for, pack, packed_size
from trainer.data.samples import Data, Sample, Source, Split, fold_split, stratified_split
from trainer.data.sources import cifar10_dvs, digits, dvs_gesture, nmnist

__all__ = ["SOURCES", "Data", "DataConfig", "Source", "Split", "load"]

SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "digits": digits.source,
    "nmnist": nmnist.source,
    "dvs_gesture": dvs_gesture.source,
    "cifar10_dvs": cifar10_dvs.source,
}


def load(config: DataConfig) -> Data:
    """Frames of the three splits, out of the cache where they were made before.

    Raises:
        UsageError: an unknown name or an impossible value.
        HardspikeError: recordings are missing or damaged, or the cache cannot be written.
    """
    check(config, SOURCES)
    source = SOURCES[config.name](config)
    size = config.size or source.sensor
    if size > source.sensor:
        raise UsageError(f"size {size}: must be at most the sensor's {source.sensor} pixels")
    train, validation, test = source.train, source.validation, source.test
    if config.folds:
        train, test = fold_split([*train, *test], config.folds, config.fold, config.split_seed)
    if validation is None:
        train, validation = stratified_split(train, config.validation, config.split_seed)
    samples = [*train, *validation, *test]
    if len(seen := {sample.id: sample for sample in samples}) < len(samples):
        twice = next(sample for sample in samples if seen[sample.id] is not sample)
        raise HardspikeError(f"{twice.file}: {twice.id} is listed twice; the splits must share no sample")
    shape = (2, size, size)
    bits = bits_for(1 if config.encoding == "binary" else config.count_max)
    name = f"{config.name}-{_fingerprint(config, source, samples)}-{bits}bit"
    size = packed_size((config.steps, *shape), bits)
    content = cached(name, (len(samples), size), (pack(frames, bits) for frames in _frames(config, source, samples)))
    splits, begin = [], 0
    for part in (train, validation, test):
        labels = torch.tensor([sample.label for sample in part], dtype=torch.int64)
        packed = Packed(content[begin : begin + len(part)], bits, (config.steps, *shape))
        splits.append(Split(packed, labels, [sample.id for sample in part]))
        begin += len(part)
    scale = 1.0 if config.encoding == "binary" else float(config.count_max)
    return Data(*splits, classes=source.classes, shape=shape, steps=config.steps, scale=scale)


def _frames(config: DataConfig, source: Source, samples: list[Sample]) -> Iterator[np.ndarray]:
    for sample in progress(samples, f"{config.name}: frames"):
        counts = to_counts(source.read(sample), config.steps, source.sensor, sample.start, source.duration, config.size)
        yield encode(counts, config.encoding, config.count_max)


def _fingerprint(config: DataConfig, source: Source, samples: list[Sample]) -> str:
    """Hash of all that decides about the frames and their order; recordings by name, size and time of change."""
    digest = hashlib.sha256()
    limit = 1 if config.encoding == "binary" else config.count_max
    digest.update(repr((source.version, source.duration, config.steps, limit, config.size)).encode())
    for sample in samples:
        try:
            stat = sample.file.stat() if sample.file else None
        except OSError as error:  # a link to nowhere
            raise HardspikeError(f"{sample.file}: cannot be read ({error.strerror})") from error
        where = (str(sample.file), stat.st_size, stat.st_mtime_ns) if stat else None
        digest.update(repr((sample.id, sample.start, where)).encode())
    return digest.hexdigest()[:16]
