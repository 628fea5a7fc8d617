"""RandAugment (Cubuk et al. 2020): some of fourteen operations, drawn for each picture, all of one strength.

The operations are Pillow's. Strengths go from 0 to 10, where the largest are the paper's: 30 degrees, shear .3, 45 % of
a side, 4 bits, all of the picture solarised, factors of .1 and 1.9.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from hardspike import UsageError
from trainer.data.config import RandAugmentConfig

__all__ = ["MODES", "OPERATIONS", "randaugment"]

MODES = {1: "L", 3: "RGB"}
"""Channels of a picture -> what Pillow calls it."""
STRONGEST = 10.0
Picture = Image.Image


def _moved(picture: Picture, x: float, y: float) -> Picture:
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, x * picture.width, 0, 1, y * picture.height))


def _sheared(picture: Picture, x: float, y: float) -> Picture:
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, x, 0, y, 1, 0))


def _enhanced(kind: Callable[[Picture], ImageEnhance._Enhance]) -> Callable[[Picture, float], Picture]:
    return lambda picture, strength: kind(picture).enhance(1 + 0.9 * strength)


OPERATIONS: dict[str, Callable[[Picture, float], Picture]] = {
    "identity": lambda picture, strength: picture,
    "autocontrast": lambda picture, strength: ImageOps.autocontrast(picture),
    "equalize": lambda picture, strength: ImageOps.equalize(picture),
    "rotate": lambda picture, strength: picture.rotate(30 * strength),
    "solarize": lambda picture, strength: ImageOps.solarize(picture, round(256 * (1 - abs(strength)))),
    "posterize": lambda picture, strength: ImageOps.posterize(picture, 8 - round(4 * abs(strength))),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear x": lambda picture, strength: _sheared(picture, 0.3 * strength, 0),
    "shear y": lambda picture, strength: _sheared(picture, 0, 0.3 * strength),
    "translate x": lambda picture, strength: _moved(picture, 0.45 * strength, 0),
    "translate y": lambda picture, strength: _moved(picture, 0, 0.45 * strength),
}
"""Name -> (picture, strength in [-1, 1]) -> picture; where only the size counts, the sign does not."""


def randaugment(pictures: Tensor, generator: torch.Generator, config: RandAugmentConfig, part: slice = slice(None),
                joint: int | None = None) -> Tensor:
    """Pictures (B, C, H, W) of 0 to 255, changed each by its own draws; `part` and `joint` as in `augment`.

    Raises:
        UsageError: pictures of neither 1 nor 3 channels.
    """
    if (mode := MODES.get(pictures.shape[1])) is None:
        raise UsageError(f"augment.randaugment.operations {config.operations}: takes pictures of 1 or 3 channels, "
                         f"these have {pictures.shape[1]}; leave it out")
    joint = len(pictures) if joint is None else joint
    shape = joint, config.operations
    chosen, taken, sign = (torch.rand(shape, generator=generator, device=generator.device)[part] for _ in range(3))
    noise = torch.randn(shape, generator=generator, device=generator.device)[part]
    strengths = (config.magnitude + config.deviation * noise).clamp(0, STRONGEST) / STRONGEST
    operations = list(OPERATIONS.values())
    arrays = pictures.to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    made = []
    for i, array in enumerate(arrays):
        picture = Image.fromarray(np.ascontiguousarray(array if mode == "RGB" else array[..., 0]))
        for k in range(config.operations):
            if taken[i, k] < config.rate:
                strength = strengths[i, k].item() * (1 if sign[i, k] < 0.5 else -1)
                picture = operations[int(chosen[i, k] * len(operations))](picture, strength)
        made.append(np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(made)).to(pictures)
