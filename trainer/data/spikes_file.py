"""Frames of one split as a file, for those who run a graph and know nothing of data sets."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, atomic_path, nearest

from . import load
from .config import DataConfig

__all__ = ["write_spikes"]

SPLITS = ("train", "validation", "test")


def write_spikes(config: DataConfig, out: Path, split: str = "test", samples: int | None = None) -> Path:
    """Write the frames of one split to a `.npz` file, from which `python -m targets run` takes its input.

    `spikes` (T, N, C, H, W): uint8 {0,1} for encoding binary, float32 in [0,1] for count; `labels` (N,) int64; `ids`
    (N,) names of the recordings.

    Args:
        config: the data
        out: file to write, *.npz
        split: train, validation or test
        samples: write only this many, spread evenly over the split and so over its classes; without it all

    Raises:
        UsageError: an unknown split, a suffix other than .npz, or more samples than there are.
        HardspikeError: recordings are missing or damaged, or the file cannot be written.
    """
    out = Path(out)
    if split not in SPLITS:
        raise UsageError(f"split {split!r}: unknown; known: {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if out.suffix != ".npz":
        raise UsageError(f"{out}: spikes are written as .npz; name the file {out.with_suffix('.npz').name}")
    data = load(config)
    part = getattr(data, split)
    if samples is not None:
        if not 1 <= samples <= len(part):
            raise UsageError(f"samples {samples}: {split} has {len(part)}; take 1 to {len(part)}")
        chosen = np.arange(samples) * len(part) // samples
        part = replace(part, frames=part.frames[chosen], labels=part.labels[chosen], ids=[part.ids[i] for i in chosen])
    spikes = part.frames.transpose(0, 1) if config.encoding == "binary" else data.to_input(part.frames)
    try:
        with atomic_path(out) as temporary:
            np.savez_compressed(temporary, spikes=spikes.numpy(), labels=part.labels.numpy(), ids=np.array(part.ids))
    except OSError as error:
        raise HardspikeError(f"{out}: cannot be written ({error.strerror})") from error
    return out
