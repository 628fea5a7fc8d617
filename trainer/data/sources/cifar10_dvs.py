"""CIFAR10-DVS (Li et al. 2017): 10,000 CIFAR-10 pictures moved on a screen, 1,000 a class, seen by a DVS128 camera.

Three kinds of file are known, in folders called after the classes:

- `.aedat`, the original release (AEDAT 2.0; ten zips on figshare);
- `.npz`, what spikingjelly makes of these: arrays t (us), x, y and p;
- `.aedat4`, what tonic downloads: the same recordings converted to AEDAT 4.0 by iniVation's software.

The release has no split. Here the first 900 recordings of every class, by file number, are for training and the last
100 for test, as in TET (Deng et al. 2022) and many after it; TEBN tests on the first 100 instead, others draw at
random, so that accuracies compare only where the split is the same.

The recordings lie on their side. `.aedat` files are turned upright as spikingjelly does, so that they and its `.npz`
give the same frames: column = 127 - address y, row = 127 - address x. (`dat2mat.m`, which the release names as its
reader, has column = 127 - address x, row = address y: this picture before the quarter turn.) Polarity is ON where bit 0
is 0, as in both. `.aedat4` files are taken as they are and may lie otherwise: train and test on one kind of file.

Time begins at a recording's first event, as in `dat2mat.m`.
"""

import filecmp
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, logger, read_npz
from trainer.data.cache import cache_folder
from trainer.data.config import DataConfig
from trainer.data.events import check_events
from trainer.data.readers.aedat import read_aedat2
from trainer.data.readers.aedat4 import read_aedat4
from trainer.data.readers.tonic_files import download
from trainer.data.samples import Sample, Source

__all__ = ["CLASSES", "DURATION", "SENSOR", "source"]

_log = logger(__name__)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SENSOR = 128
DURATION = 1_300_000  # us: about the length of a recording; what little comes after is left out
TEST_FROM = 900  # number of the first test recording of every class
# Beside the folder itself: where tonic and spikingjelly put the recordings under the folder that they are given.
_PLACES = ("", "CIFAR10DVS", "extract", "events_np")


def source(config: DataConfig) -> Source:
    """Recordings `<class>/cifar10_<class>_<number>` under `config.path`, or those that tonic downloads.

    Raises:
        HardspikeError: recordings are missing, or the layout is none of the three.
    """
    folder = Path(config.path or download("CIFAR10DVS", cache_folder() / "downloads", split=False))
    place, suffix = _layout(folder)
    reader = _READERS[suffix]

    def read(sample: Sample) -> np.ndarray:
        events = reader(sample.file)
        events["t"] -= events["t"][0]
        return events

    train, test, twins = [], [], []
    for label, name in enumerate(CLASSES):
        files = _files(place, name, suffix)
        numbered = _numbered(files)
        twins += [file for file in files if numbered[_number(file)] is not file]
        for wanted, part, numbers in (("training", train, range(TEST_FROM)), ("test", test, range(TEST_FROM, 1000))):
            found = [numbered[number] for number in numbers if number in numbered]
            if not found:
                raise HardspikeError(f"{place / name}: no {wanted} recordings *{suffix}, which are numbered "
                                     f"{numbers[0]} to {numbers[-1]}; copy the class again")
            part += [Sample(f"{name}/{file.stem}", label, f"{name}/{file.stem}", file) for file in found]
    if twins:
        _log.warning(f"{place}: {len(twins)} recordings lie there twice, such as {twins[0]}; each is taken once")
    return Source(read, len(CLASSES), SENSOR, DURATION, train, test)


def _layout(folder: Path) -> tuple[Path, str]:
    """The folder of the class folders, and the kind of file in them."""
    for place in (folder / part for part in _PLACES):
        kinds = [suffix for suffix in _READERS if any(_files(place, name, suffix) for name in CLASSES)]
        if kinds[1:]:
            _log.warning(f"{place}: holds recordings *{', *'.join(kinds)}; those *{kinds[0]} are taken")
        if kinds:
            return place, kinds[0]
    raise HardspikeError(f"{folder}: no CIFAR10-DVS here: <class>/cifar10_<class>_<number> with the ending "
                         f"{', '.join(_READERS)} is expected, the ten zips extracted; check --path")


def _files(place: Path, name: str, suffix: str) -> list[Path]:
    """Recordings of one class; a zip extracted into a folder of its own name gives two such folders in one another."""
    return [file for folder in (place / name, place / name / name) for file in sorted(folder.glob(f"[!.]*{suffix}"))]


def _numbered(files: list[Path]) -> dict[int, Path]:
    """The recordings of a class by their number; the first of two where a zip was extracted twice.

    Raises:
        HardspikeError: a name without a number, or two files of one number that are not the same recording.
    """
    found: dict[int, Path] = {}
    for file in files:
        first = found.setdefault(_number(file), file)
        if first is not file and not _same(first, file):
            raise HardspikeError(f"{file}: has the number of {first}, and another content; remove the wrong one")
    return found


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError as error:
        raise HardspikeError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _number(file: Path) -> int:
    number = re.search(r"\d+$", file.stem)
    if not number or int(number[0]) >= 1000:
        raise HardspikeError(f"{file}: its name does not end in the recording's number, 0 to 999, which decides about "
                             "the split; rename or remove it")
    return int(number[0])


def _read_aedat(file: Path) -> np.ndarray:
    events = read_aedat2(file)
    events["x"], events["y"] = SENSOR - 1 - events["y"], SENSOR - 1 - events["x"]
    return events


def _read_npz(file: Path) -> np.ndarray:
    try:
        content = read_npz(file)
        columns = {key: content[key] for key in "txyp"}
    except KeyError as error:
        raise HardspikeError(f"{file}: has no array {error}; t, x, y and p are expected; copy it again") from error
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or len(shapes.pop()) != 1 or any(column.dtype.kind not in "uib" for column in columns.values()):
        kinds = ", ".join(f"{key} {column.dtype} {column.shape}" for key, column in columns.items())
        raise HardspikeError(f"{file}: {kinds} where whole numbers of one length are expected; convert it again")
    return check_events(file, columns, SENSOR)


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".aedat": _read_aedat,
    ".aedat4": lambda file: read_aedat4(file, SENSOR),
    ".npz": _read_npz,
}
