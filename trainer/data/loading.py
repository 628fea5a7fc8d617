"""Recordings of a source -> the frames of three splits, checked and cached."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hardspike import HardspikeError, UsageError, logger, progress
from trainer.data.cache import cached
from trainer.data.config import DataConfig
from trainer.data.events import Sensor, encode, inside, square, to_counts
from trainer.data.options import option
from trainer.data.packing import Packed, bits_for, pack, packed_size
from trainer.data.reach import UNITS
from trainer.data.samples import Data, MissingSplit, Sample, Source, Split, fold_split, stratified_split
from trainer.data.sources import SOURCES, check_source

__all__ = ["load"]

_log = logger(__name__)

MANY, SPAN = 1000, 0.01
"""So many events within this part of a window are no recording of that length."""


def load(config: DataConfig) -> Data:
    """Frames of the three splits, out of the cache where they were made before.

    A part that the folder does not hold is missed when it is asked for: `Test/` alone is enough to test on.

    Raises:
        UsageError: an unknown name or an impossible value.
        HardspikeError: recordings are missing or damaged, the parts do not fit each other, or the cache cannot be
            written.
    """
    check_source(config)
    if config.path is not None and not Path(config.path).is_dir():
        raise HardspikeError(f"{config.path}: no such folder of recordings; say with {option('path')} where they "
                             "are now")
    source = SOURCES[config.name.partition(":")[0]](config)
    channels, *size = _sensor(source).frame(config.size)
    shape = (channels * config.bins, *size)
    parts = _parts(config, source)
    samples = [sample for part in parts.values() for sample in part]
    bits = bits_for(1 if config.encoding == "binary" else config.count_max)
    name = f"{config.name.replace(':', '-')}-{_fingerprint(config, source, samples)}-{bits}bit"
    content = cached(name, (len(samples), packed_size((config.steps, *shape), bits)), (
        pack(frames, bits) for frames in _frames(config, source, samples)))
    truth = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    if source.mask:
        masks = (source.mask(sample) for sample in progress(samples, f"{config.name}: masks"))
        truth = torch.from_numpy(cached(f"{name}-masks", (len(samples), *shape[1:]), masks))
    splits, begin = {}, 0
    for name, part in parts.items():
        labels = truth[begin : begin + len(part)]
        packed = Packed(content[begin : begin + len(part)], bits, (config.steps, *shape))
        missing = None if config.folds else source.missing.get("train" if name == "validation" else name)
        if missing and name == "test":
            missing += "; or train with --data.folds 5, which holds a fifth of the others out as the test part"
        splits[name] = MissingSplit(missing) if missing else Split(packed, labels, [sample.id for sample in part])
        begin += len(part)
    scale = 1.0 if config.encoding == "binary" else float(config.count_max)
    return Data(**splits, classes=source.classes, shape=shape, steps=config.steps, scale=scale,
                still=source.still, masked=source.mask is not None, bins=config.bins)


def _parts_of_time(config: DataConfig) -> int:
    """Into how many parts a sample is cut; one after the other they lie as (T, C * bins, H, W)."""
    return config.steps * config.bins


def _parts_word(config: DataConfig) -> str:
    return "steps" if config.bins == 1 else "bins"


def _sensor(source: Source) -> Sensor:
    return square(source.sensor) if isinstance(source.sensor, int) else source.sensor


def _parts(config: DataConfig, source: Source) -> dict[str, list[Sample]]:
    """The samples of each split, which share none and of which each class can be learned."""
    train, validation, test = source.train, source.validation, source.test
    if not train and not test:
        raise HardspikeError("; ".join(dict.fromkeys(source.missing.values())) or f"{config.name}: no recordings")
    if config.folds:
        train, test = fold_split([*train, *test], config.folds, config.fold, config.split_seed)
    if validation is None:
        train, validation = stratified_split(train, config.validation, config.split_seed)
    samples = [*train, *validation, *test]
    seen = {sample.id: sample for sample in samples}
    if len(seen) < len(samples):
        twice = next(sample for sample in samples if seen[sample.id] is not sample)
        raise HardspikeError(f"{twice.file}: {twice.id} is listed twice; the splits must share no sample")
    known = {sample.label for sample in train}
    for sample in [*validation, *test] if train else ():
        if sample.label not in known:
            raise HardspikeError(f"{sample.file or sample.id}: class {sample.label}, of which there is no training "
                                 "recording, so that no network can know it; add some, or remove the class here")
    return {"train": train, "validation": validation, "test": test}


def _frames(config: DataConfig, source: Source, samples: list[Sample]) -> Iterator[np.ndarray]:
    if source.binned:
        if config.size is not None and not source.sized:
            raise UsageError(f"size {config.size}: {config.name} has frames already; leave it out")
        for sample in progress(samples, f"{config.name}: frames"):
            yield encode(source.read(sample), config.encoding, config.count_max)
        return
    windows: dict[str, int] = {}
    empty: dict[str, int] = {}
    latest = 0
    for sample in progress(samples, f"{config.name}: frames"):
        events = source.read(sample)
        _check_window(config, source, sample, events)
        latest = max(latest, _latest(source, sample, events))
        windows[sample.recording] = windows.get(sample.recording, 0) + 1
        empty[sample.recording] = empty.get(sample.recording, 0) + (len(events) == 0)
        counts = to_counts(events, _parts_of_time(config), _sensor(source), sample.start, source.duration, config.size)
        yield encode(counts, config.encoding, config.count_max)
    for sample in samples:
        if 2 * (none := empty[sample.recording]) > (count := windows[sample.recording]):
            raise HardspikeError(f"{sample.file or sample.id}: {none} of {count} windows of "
                                 f"{source.duration / 1000:g} ms hold no event; {_asked(config, source)}")
    if config.window_ms is not None:
        _check_steps(config, source, len(samples), latest)


def _asked(config: DataConfig, source: Source, wrong: str = "") -> str:
    """The question about the unit of times, and what else may be the cause where the window is an option."""
    other = f"; or {option('window_ms')} is too {wrong}" if wrong and config.window_ms is not None else ""
    return f"are the times {source.unit}? ({UNITS[source.unit]}){other}"


def _latest(source: Source, sample: Sample, events: np.ndarray) -> int:
    """Us from the beginning of a sample to its last event; 0 where it has none."""
    kept = events["t"][inside(events, sample.start, source.duration)]
    return int(kept[-1]) - sample.start if len(kept) else 0


def _check_window(config: DataConfig, source: Source, sample: Sample, events: np.ndarray) -> None:
    """Refuse a recording whose events lie outside of the window that is looked at, or all at one place in it: then the
    times are of another unit, and frames would be empty without a word."""
    name, window = sample.file or sample.id, f"{source.duration / 1000:g} ms"
    count = int(inside(events, sample.start, source.duration).sum())
    if 2 * count < len(events):
        raise HardspikeError(f"{name}: {count} of {len(events)} events ({100 * count / len(events):.2g} %) lie in the "
                             f"{window} from {sample.start} us that are looked at; {_asked(config, source, 'short')}")
    span = int(events["t"][-1] - events["t"][0]) + 1 if len(events) else 0
    if len(events) >= MANY and span < SPAN * source.duration:
        raise HardspikeError(f"{name}: all {len(events)} events lie within {span} us, where a recording takes "
                             f"{window}; {_asked(config, source, 'long')}")


def _check_steps(config: DataConfig, source: Source, count: int, latest: int) -> None:
    """Refuse a window of which no recording reaches the second step, and say so where none reaches its second half.

    One short recording in a long window is as it should be; where all are short, the window is of another unit.
    """
    parts = _parts_of_time(config)
    used = latest * parts // source.duration + 1
    fitting = 1 + latest // 1000
    said = f"{config.path or config.name}: the last event of {count} recordings comes at {latest / 1000:g} ms of a " \
           f"window of {source.duration / 1000:g} ms"
    if used == 1 < parts:
        wrong = "long" if latest < 1000 else f"long: {fitting} uses all {_parts_word(config)}"
        raise HardspikeError(f"{said}, all in the first of {parts} {_parts_word(config)}; "
                             f"{_asked(config, source, wrong)}")
    if 2 * latest < source.duration and config.window_ms > fitting:
        _log.warning(f"{said}: {_parts_word(config)} from {used + 1} to {parts} are empty in all of them; "
                     f"{option('window_ms')} {fitting} uses all {_parts_word(config)}")


def _fingerprint(config: DataConfig, source: Source, samples: list[Sample]) -> str:
    """Hash of all that decides about the frames and their order; recordings by name, size and time of change."""
    digest = hashlib.sha256()
    limit = 1 if config.encoding == "binary" else config.count_max
    decisive = source.version, source.sensor, source.duration, _parts_of_time(config), limit, config.size
    digest.update(repr(decisive).encode())
    for sample in samples:
        try:
            stat = sample.file.stat() if sample.file else None
        except OSError as error:  # a link to nowhere
            raise HardspikeError(f"{sample.file}: cannot be read ({error.strerror})") from error
        where = (str(sample.file), stat.st_size, stat.st_mtime_ns) if stat else None
        digest.update(repr((sample.id, sample.start, where)).encode())
    return digest.hexdigest()[:16]
