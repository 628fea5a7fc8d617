"""A few small runs on canvases, for tests of segmentation."""

from pathlib import Path

import pytest

from trainer.config import FitConfig
from trainer.data.config import AugmentConfig, DataConfig
from trainer.data.sources import canvas
from trainer.networks.config import NetworkConfig

FEW = {"train": 24, "validation": 8, "test": 10}
DATA = DataConfig("canvas", encoding="count", count_max=255, steps=2)


def few(patch: pytest.MonkeyPatch) -> None:
    """Few canvases instead of many."""
    patch.setattr(canvas, "COUNTS", FEW)


def config(out: Path, **options) -> FitConfig:
    """A short run of few layers under a pyramid."""
    network = NetworkConfig(layers="4c3s2-6c3s2", beta=0.5, reset="subtract_leaky", pyramid=4)
    return FitConfig(**{"out": out, "method": "a2sg", "epochs": 2, "batch_size": 8, "data": DATA, "network": network,
                        "augment": AugmentConfig(drop=0.1, shift=2), "threads": 1, **options})
