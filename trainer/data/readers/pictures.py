"""Pictures from files, and what a network is shown of one."""

import hashlib
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, one_line
from trainer.data.config import DataConfig

__all__ = ["ENDINGS", "at_steps", "read_picture"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm")


def read_picture(file: Path, side: int | None = None) -> np.ndarray:
    """(H, W, C) uint8, grey ones with C = 1.

    Args:
        side: scale the picture so that its longer side has so many pixels (bilinear); None leaves it.

    Raises:
        HardspikeError: no picture.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "JPEG", "BMP", "PPM")) as found:
            picture = found.convert("L" if found.mode in ("1", "L", "I;16") else "RGB")
            if side is not None:
                picture = picture.resize(scaled(picture.size, side), Image.Resampling.BILINEAR)
            return np.atleast_3d(np.asarray(picture))
    except Exception as error:  # Pillow's decoders raise whatever they please
        raise HardspikeError(f"{file}: cannot be read as a picture ({one_line(error)}); remove it or save it "
                             "again") from error


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height, the longer one of which becomes `side`."""
    longer = max(size)
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))


def at_steps(picture: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
    """(T, C, H, W) of a picture (C, H, W) uint8, by the encoding; draws depend on its name alone."""
    if config.encoding == "binary":
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        drawn = np.random.default_rng(seed).integers(0, 255, (config.steps, *picture.shape))
        return (drawn < picture).astype(np.int64)  # 255 of 255 draws lie below the brightest, none below black
    levels = (picture.astype(np.int64) * config.count_max * 2 + 255) // 510  # rounded
    return np.repeat(levels[None], config.steps, axis=0)
