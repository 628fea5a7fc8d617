"""ADE20K for scene parsing (Zhou et al. 2017) from files that you have: pictures and the class of every pixel.

Under `config.path` lie `images/training/*.jpg`, `images/validation/*.jpg`, and under `annotations` PNG files of the
same names, one byte a pixel: 0 is no class and becomes the ignored one, 1 to 150 become the classes 0 to 149. The set's
validation part, the one whose annotations are public, is the test part here; validation recordings are drawn out of the
training part.

Pictures differ in size: each is scaled so that its longer side has `size` pixels (masks by nearest neighbour) and lies
in the upper left corner of a square, whose rest is ignored. So no pixel is cropped, but figures are those of pictures
of that size and not those of whole ones that papers give.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, one_line
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.options import option
from trainer.data.readers.pictures import at_steps, read_picture, scaled
from trainer.data.samples import IGNORED, Sample, Source

__all__ = ["source"]

CLASSES = 150
FOLDERS = {"train": "training", "test": "validation"}
_LAYOUT = "images/training/*.jpg and annotations/training/*.png of the same names, and validation likewise"


def source(config: DataConfig) -> Source:
    """The pictures under `config.path`.

    Raises:
        UsageError: no path or no size is given.
        HardspikeError: there are none, or a picture has no annotation.
    """
    if config.path is None:
        raise UsageError(f"source ade20k reads files that you have: give {option('path')}, the folder that holds "
                         "images and annotations")
    if config.size is None:
        raise UsageError(f"source ade20k: its pictures differ in size; give {option('size')}, the longer side that "
                         "they are scaled to, such as 128")
    folder, side = Path(config.path), config.size
    parts = {part: _listed(folder, name) for part, name in FOLDERS.items()}
    missing = {part: f"{folder}: no pictures to {part}; {_LAYOUT} are expected"
               for part, found in parts.items() if not found}
    masks = {sample.id: folder / "annotations" / FOLDERS[part] / f"{sample.file.stem}.png"
             for part, found in parts.items() for sample in found if sample.file}

    def frames(sample: Sample) -> np.ndarray:
        assert sample.file
        picture = read_picture(sample.file, side)
        whole = np.zeros((3, side, side), np.uint8)
        whole[:, :picture.shape[0], :picture.shape[1]] = picture.transpose(2, 0, 1)  # a grey one fills all three
        return at_steps(whole, sample.id, config)

    def mask(sample: Sample) -> np.ndarray:
        assert sample.file
        return _mask(masks[sample.id], sample.file, side)

    stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in masks.values()]
    version = sha256(repr([side, config.encoding, *stamps]).encode()).hexdigest()
    return Source(frames, classes=CLASSES, sensor=Sensor(side, side, 3), duration=0, train=parts["train"],
                  test=parts["test"], version=version, binned=True, sized=True, still=config.encoding == "count",
                  missing=missing, mask=mask)


def _listed(folder: Path, name: str) -> list[Sample]:
    """The pictures of a part, each of which has its annotation."""
    found = sorted((folder / "images" / name).glob("[!.]*.jpg"))
    for file in found:
        annotation = folder / "annotations" / name / f"{file.stem}.png"
        if not annotation.is_file():
            raise HardspikeError(f"{annotation}: no such annotation of {file}; {_LAYOUT} are expected")
    return [Sample(f"{name}/{file.stem}", 0, f"{name}/{file.stem}", file) for file in found]


def _mask(file: Path, picture: Path, side: int) -> np.ndarray:
    """(side, side) uint8, the class of each pixel or IGNORED."""
    from PIL import Image

    try:
        with Image.open(picture) as shown, Image.open(file, formats=("PNG",)) as found:
            size, other, mode = found.size, shown.size, found.mode
            classes = np.asarray(found.resize(scaled(size, side), Image.Resampling.NEAREST))
    except Exception as error:  # Pillow's decoders raise whatever they please
        raise HardspikeError(f"{file}: cannot be read as an annotation ({one_line(error)}); remove it with its "
                             "picture, or take it out of the archive again") from error
    if mode not in ("L", "P") or size != other:
        raise HardspikeError(f"{file}: {mode}, {size[0]} x {size[1]} pixels, its picture has {other[0]} x {other[1]}; "
                             "one byte a pixel (mode L) and the picture's size are expected")
    if int(classes.max()) > CLASSES:
        raise HardspikeError(f"{file}: class {int(classes.max())}; 0 (none) to {CLASSES} are expected, as the scene "
                             "parsing annotations have them")
    whole = np.full((side, side), IGNORED, np.uint8)
    whole[:classes.shape[0], :classes.shape[1]] = np.where(classes == 0, IGNORED, classes - 1)
    return whole
