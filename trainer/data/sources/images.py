"""Pictures, shown at every time step.

With encoding `count` a step holds the picture itself, its intensities in `count_max` levels (direct encoding; 255 keeps
all of 8 bits); with `binary` a pixel spikes at each step with its intensity as probability (rate encoding), by draws
that depend on the picture's name alone.

Under `config.path` lie CIFAR-10 or CIFAR-100 as they come (`cifar-10-batches-bin`, `-py`, `cifar-100-binary`,
`-python`), or `train.npz` and `test.npz` with `images` (N, H, W) or (N, H, W, C) uint8 and `labels` (N,), or
`train/<class>/*` and `test/<class>/*` of PNG, JPEG, BMP or PPM pictures of one size, or `<class>/*` alone, of which a
fifth of each class is kept to test, by a draw that no option changes. Without a path: scikit-learn's handwritten
digits, 8 x 8.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, read_npz
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.readers.cifar import CIFAR, read_cifar
from trainer.data.readers.pictures import ENDINGS, at_steps, read_picture
from trainer.data.samples import Sample, Source, stratified_split

__all__ = ["source"]

TEST = 0.2
"""Part of each class that is kept to test where the pictures have no parts, drawn by a fixed seed."""
_LAYOUT = (f"{', '.join(CIFAR)}, train.npz and test.npz, train/<class>/* and test/<class>/*, or <class>/*, of "
           f"{', '.join(ENDINGS)}")


@dataclass(frozen=True)
class _Pictures:
    """Pictures of one part: `picture(i)` gives (H, W, C) uint8."""

    labels: list[int]
    names: list[str]
    picture: Callable[[int], np.ndarray]
    files: list[Path] | None = None


def source(config: DataConfig) -> Source:
    """The pictures under `config.path`, or the digits.

    Raises:
        UsageError: `size` is given; pictures are not scaled.
        HardspikeError: there are none, or they differ in size.
    """
    if config.size is not None:
        raise UsageError(f"size {config.size}: pictures are taken as they are; leave it out, or scale them before")
    parts, missing = (_digits(), {}) if config.path is None else _found(Path(config.path))
    shapes = {name: part.picture(0).shape for name, part in parts.items()}
    shape = next(iter(shapes.values()))
    if set(shapes.values()) != {shape}:
        raise HardspikeError(f"{config.path}: pictures (H, W, C) {shapes['train']} to train and {shapes['test']} to "
                             "test; make them alike")

    def frames(sample: Sample) -> np.ndarray:
        name, _, index = sample.recording.partition("/")
        picture = parts[name].picture(int(index))
        if picture.shape != shape:
            raise HardspikeError(f"{sample.file or sample.id}: a picture (H, W, C) {picture.shape}, the first one is "
                                 f"{shape}; make them alike")
        return at_steps(picture.transpose(2, 0, 1), sample.id, config)

    samples = {name: [Sample(f"{name}/{each}", label, f"{name}/{i}", part.files[i] if part.files else None)
                      for i, (label, each) in enumerate(zip(part.labels, part.names, strict=True))]
               for name, part in parts.items()}
    version = hashlib.sha256(repr([config.path, config.encoding, *_stamps(config.path)]).encode()).hexdigest()
    return Source(frames, classes=1 + max(label for part in parts.values() for label in part.labels),
                  sensor=Sensor(shape[0], shape[1], shape[2]), duration=0, binned=True, version=version,
                  still=config.encoding == "count",
                  train=samples.get("train", []), test=samples.get("test", []), missing=missing)


def _digits() -> dict[str, _Pictures]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * 255 / 16).round().astype(np.uint8)[..., None]
    whole = [Sample(f"{i:04d}", int(label), f"{i:04d}") for i, label in enumerate(found.target)]
    return {part: _Pictures([sample.label for sample in samples], [sample.id for sample in samples],
                            lambda i, samples=samples: images[int(samples[i].id)])  # type: ignore[misc]
            for part, samples in zip(("train", "test"), stratified_split(whole, TEST, seed=0), strict=True)}


def _found(folder: Path) -> tuple[dict[str, _Pictures], dict[str, str]]:
    for reader in (_cifar, _arrays, _parted):
        parts = {part: found for part in ("train", "test") if (found := reader(folder, part)) is not None}
        if parts:
            return parts, {part: f"{folder}: no pictures to {part}; {_LAYOUT} are expected"
                           for part in ("train", "test") if part not in parts}
    files = [] if any((folder / part).is_dir() for part in ("train", "test")) else _files(folder, _classes(folder))
    if not files:
        raise HardspikeError(f"{folder}: no pictures; {_LAYOUT} are expected")
    whole = [Sample(str(i), label, f"{file.parent.name}/{file.name}", file) for i, (label, file) in enumerate(files)]
    return {part: _of_files([files[int(sample.id)] for sample in samples])
            for part, samples in zip(("train", "test"), stratified_split(whole, TEST, seed=0), strict=True)}, {}


def _cifar(folder: Path, part: str) -> _Pictures | None:
    found = read_cifar(folder, part)
    return found and _of_arrays(*found)


def _of_arrays(images: np.ndarray, labels: np.ndarray) -> _Pictures:
    return _Pictures([int(label) for label in labels], [f"{i:06d}" for i in range(len(labels))],
                     lambda i: images[i])


def _arrays(folder: Path, part: str) -> _Pictures | None:
    file = folder / f"{part}.npz"
    if not file.exists():
        return None
    arrays = read_npz(file)
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or labels is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images) \
            or labels.shape != images.shape[:1] or labels.dtype.kind not in "ui" or labels.min() < 0:
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise HardspikeError(f"{file}: images (N, H, W) or (N, H, W, C) uint8 and labels (N,) from 0 are expected; it "
                             f"holds {held or 'nothing'}")
    return _of_arrays(images if images.ndim == 4 else images[..., None], labels)


def _parted(folder: Path, part: str) -> _Pictures | None:
    files = _files(folder / part, _classes(folder / "train", folder / "test"))
    return _of_files(files) if files else None


def _classes(*folders: Path) -> list[str]:
    return sorted({each.name for folder in folders for each in folder.glob("[!.]*") if each.is_dir()})


def _files(folder: Path, classes: list[str]) -> list[tuple[int, Path]]:
    """Class and file of each picture."""
    return [(label, file) for label, name in enumerate(classes)
            for file in sorted((folder / name).glob("[!.]*")) if file.suffix.lower() in ENDINGS]


def _of_files(files: list[tuple[int, Path]]) -> _Pictures:
    return _Pictures([label for label, _ in files], [f"{file.parent.name}/{file.name}" for _, file in files],
                     lambda i: read_picture(files[i][1]), [file for _, file in files])


def _stamps(path: Path | None) -> list[tuple]:
    """Names, sizes and times of the files that hold many pictures, which no sample stands for."""
    found = [] if path is None else sorted(file for pattern in ("*.npz", *(f"{name}/*" for name in CIFAR), "*batch*",
                                                                "*.bin", "train", "test")
                                           for file in Path(path).glob(pattern) if file.is_file())
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in found]
