"""DVS128 Gesture (Amir et al. 2017): arm movements before a 128 x 128 event camera, cut into windows of equal length.

Three layouts are known by what lies in the folder (or in its `DvsGesture` or `DVSGesture`):

- `trials_to_train.txt` or `trials_to_test.txt`, the original release: `*.aedat` and `*_labels.csv`, split by person;
- `ibmGestureTrain` or `ibmGestureTest`, what tonic downloads: the same trials, already cut, as `.npy`;
- `labels.csv`, a few short recordings as `.bs2`, at least one a class. They are split by time: the last fifth of every
  recording's windows is for test, those before it for validation, the first for training.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from hardspike import HardspikeError, UsageError, load_npy, logger, one_line
from trainer.data.cache import cache_folder
from trainer.data.config import DataConfig
from trainer.data.events import LATEST, check_events
from trainer.data.readers.aedat import read_aedat
from trainer.data.readers.five_bytes import last_time, read_five_bytes
from trainer.data.readers.tonic_files import download
from trainer.data.samples import Sample, Source

__all__ = ["SENSOR", "source"]

_log = logger(__name__)

SENSOR = 128
CLASSES = 11
WINDOW_MS = 1450  # SLAYER's; the shortest gesture of the release is little longer
SHORT_WINDOW_MS = 145
SHORT_TEST = 0.2
LONGEST_MS = 600_000  # no gesture of the release lasts ten minutes
_PLACES = ("", "DvsGesture", "DVSGesture")


Reader = Callable[[Path, int], np.ndarray]
"""(file, side of the sensor) -> its events."""


@dataclass(frozen=True)
class _Trial:
    """One gesture, `begin` to `end` (us) of a file."""

    file: Path
    name: str
    label: int
    begin: int
    end: int


def source(config: DataConfig) -> Source:
    """Windows of `config.window_ms` of the recordings under `config.path`, or of those that tonic downloads.

    Raises:
        UsageError: the window leaves a recording too few parts.
        HardspikeError: recordings are missing or damaged, or the layout is none of the three.
    """
    folder = Path(config.path or download("DVSGesture", cache_folder() / "downloads"))
    layouts = (("trials_to_train.txt", _original), ("trials_to_test.txt", _original), ("ibmGestureTrain", _cut),
               ("ibmGestureTest", _cut), ("labels.csv", _short))
    for place in (folder / name for name in _PLACES):
        for mark, layout in layouts:
            if (place / mark).exists():
                return layout(place, config)
    raise HardspikeError(f"{folder}: no DVS128 Gesture here: neither trials_to_train.txt (original release), nor "
                         "ibmGestureTrain (tonic's), nor labels.csv (short recordings); check --path")


def _original(folder: Path, config: DataConfig) -> Source:
    def trials(part: Path) -> list[_Trial]:
        return [trial for name in _lines(part) for trial in _labelled(_beside(part, name))]

    return _two_parts(config, read_aedat, trials, folder / "trials_to_train.txt", folder / "trials_to_test.txt")


def _cut(folder: Path, config: DataConfig) -> Source:
    return _two_parts(config, _read_numpy, _numpy_trials, folder / "ibmGestureTrain", folder / "ibmGestureTest")


def _two_parts(config: DataConfig, reader: Reader, trials: Callable[[Path], list[_Trial]], train: Path,
               test: Path) -> Source:
    """A release with a training and a test part, one of which may be missing."""
    window = (config.window_ms or WINDOW_MS) * 1000
    parts = {"train": train, "test": test}
    missing = {name: f"{part}: missing; it lists the recordings of this part of DVS128 Gesture"
               for name, part in parts.items() if not part.exists()}
    samples = {name: [] if name in missing else _windows(trials(part), window) for name, part in parts.items()}
    return _source(reader, window, **samples, missing=missing)


def _short(folder: Path, config: DataConfig) -> Source:
    window = (config.window_ms or SHORT_WINDOW_MS) * 1000
    train, validation, test = [], [], []
    for row in _rows(folder / "labels.csv", ("file", "tonic_target_0based")):
        name = _beside(folder / "labels.csv", row["file"]).name
        file = next((file for file in sorted(folder.rglob("[!.]*")) if file.name == name), folder / name)
        name, label = file.stem, _integer(row["tonic_target_0based"], folder / "labels.csv")
        samples = _windows([_Trial(file, name, label, 0, last_time(file) // 1000 * 1000 + 1000)], window)
        if len(samples) < 3:
            raise UsageError(f"window_ms {window // 1000}: {file} gives {len(samples)} windows; training, validation "
                             "and test take one each; choose a shorter window")
        last = len(samples) - max(round(SHORT_TEST * len(samples)), 1)
        middle = max(last - max(round(config.validation * len(samples)), 1), 1)
        train += samples[:middle]
        validation += samples[middle:last]
        test += samples[last:]
    return _source(read_five_bytes, window, train, test, validation)


def _source(reader: Reader, window: int, train: list[Sample], test: list[Sample],
            validation: list[Sample] | None = None, missing: dict[str, str] | None = None) -> Source:
    kept = lru_cache(maxsize=1)(lambda file: reader(file, SENSOR))  # windows of one file follow one another

    def read(sample: Sample) -> np.ndarray:
        events = kept(sample.file)
        if sample.start > events["t"][-1]:
            raise HardspikeError(f"{sample.file}: ends at {events['t'][-1]} us, before {sample.id} begins at "
                                 f"{sample.start} us; cut short, copy it again")
        begin, end = np.searchsorted(events["t"], (sample.start, sample.start + window))
        return events[begin:end]

    for sample in [*train, *test]:
        if not 0 <= sample.label < CLASSES:
            raise HardspikeError(f"{sample.file}: gesture {sample.label} (from 0); there are {CLASSES}; correct its "
                                 "label")
    classes = 1 + max((sample.label for sample in train or test), default=0)
    return Source(read, classes, SENSOR, window, train, test, validation, missing=missing or {})


def _windows(trials: list[_Trial], window: int) -> list[Sample]:
    """The whole windows of every trial, one after the other, without overlap."""
    samples, short = [], 0
    for trial in trials:
        if trial.end - trial.begin > LONGEST_MS * 1000:
            raise HardspikeError(f"{trial.file}: {trial.name} lasts {(trial.end - trial.begin) / 1e6:.4g} s, where a "
                                 f"gesture lasts less than {LONGEST_MS / 1000:g}; are its times microseconds?")
        starts = range(trial.begin, trial.end - window + 1, window)
        short += not starts
        for start in starts:
            name = f"{trial.name}@{(start - trial.begin) // 1000}ms"
            samples.append(Sample(name, trial.label, trial.name, trial.file, start))
    if not samples:
        raise UsageError(f"window_ms {window // 1000}: longer than every recording; choose a shorter one")
    if short:
        _log.warning(f"{short} of {len(trials)} gestures are shorter than {window // 1000} ms and left out")
    return samples


def _labelled(file: Path) -> list[_Trial]:
    """The gestures of one original recording, by its `_labels.csv` (class from 1, begin and end in us)."""
    labels = file.with_name(f"{file.stem}_labels.csv")
    trials = []
    for number, row in enumerate(_rows(labels, ("class", "startTime_usec", "endTime_usec"))):
        label, begin, end = (_integer(row[key], labels) for key in ("class", "startTime_usec", "endTime_usec"))
        trials.append(_Trial(file, f"{file.stem}#{number}", label - 1, begin, end))
    return trials


def _numpy_trials(part: Path) -> list[_Trial]:
    files = sorted(part.glob("[!.]*/[!.]*.npy"))
    if not files:
        raise HardspikeError(f"{part}: no <person>/<gesture>.npy in it; download the release again")
    trials = []
    for file in files:
        first, last = (float(time) for time in _array(file, mmap_mode="r")[[0, -1], 3])
        if not 0 <= last - first < LONGEST_MS:
            raise HardspikeError(f"{file}: {last - first:g} ms from the first to the last event, where a gesture lasts "
                                 f"less than {LONGEST_MS:g}; are the times milliseconds?")
        duration = (int(last) - int(first) + 1) * 1000
        name = "/".join((part.name, file.parent.name, file.stem))
        trials.append(_Trial(file, name, _integer(file.stem, file), 0, duration))
    return trials


def _read_numpy(file: Path, sensor: int) -> np.ndarray:
    """Events of tonic's cut trials, rows of x, y, p and milliseconds; time is made to begin at 0."""
    x, y, p, t = _array(file).T
    events = check_events(file, {"x": x, "y": y, "p": p, "t": t}, sensor)
    events["t"] = (events["t"] - events["t"][0]) * 1000
    return events


def _array(file: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    try:
        rows = load_npy(file, mmap_mode)
    except Exception as error:
        raise HardspikeError(f"{file}: cannot be read ({one_line(error)}); download the release again") from error
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows) or rows.dtype.kind not in "uif":
        raise HardspikeError(f"{file}: {rows.dtype} {rows.shape} where rows of x, y, p, t are expected")
    return rows


def _beside(table: Path, name: str) -> Path:
    """The file that a table in its folder names."""
    if Path(name).name != name or name.startswith(".") or not name.isprintable() or not name:
        raise HardspikeError(f"{table}: {name!r} is no file's name; correct it")
    return table.with_name(name)


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a zero byte in the name
        raise HardspikeError(f"{file}: cannot be read ({error})") from error


def _rows(file: Path, keys: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(_lines(file)))
    except csv.Error as error:
        raise HardspikeError(f"{file}: cannot be read as a table ({error})") from error
    if not rows or any(row.get(key) is None for row in rows for key in keys):
        raise HardspikeError(f"{file}: a table with the columns {', '.join(keys)} is expected")
    return rows


def _integer(text: str, file: Path) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise HardspikeError(f"{file}: {text!r} is not a whole number") from error
    if not -LATEST < number < LATEST:
        raise HardspikeError(f"{file}: {text!r} is beyond 62 bits; correct it")
    return number
