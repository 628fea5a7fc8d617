"""Frames of one split as a file, for those who run a graph and know nothing of data sets."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, atomic_path, nearest
from trainer.data import load
from trainer.data.config import DataConfig

__all__ = ["write_spikes"]

SPLITS = ("train", "validation", "test")


def write_spikes(name: str, split: str = "test", out: Path = Path("spikes.npz"), samples: int | None = None,
                 path: Path | None = None, steps: int = DataConfig.steps, encoding: str = DataConfig.encoding,
                 count_max: int = DataConfig.count_max, size: int | None = None, window_ms: int | None = None) -> Path:
    """Write the frames of one split to a `.npz` file, from which `python -m targets run` takes its input.

    It holds `spikes` (T, N, C, H, W), uint8 {0,1} for encoding binary and float32 in [0,1] for count; `labels` (N,)
    int64; `ids` (N,), the samples' names.

    Args:
        name: data source: digits, nmnist, dvs_gesture or cifar10_dvs
        split: train, validation or test
        out: file to write, *.npz
        samples: write only so many, spread evenly over the split and so over its classes; without it all
        path: folder of recordings that you already have
        steps: time steps T
        encoding: binary or count
        count_max: most events of a pixel in a bin that encoding count tells apart
        size: side of the frames in pixels; without it the sensor's own
        window_ms: length of a dvs_gesture sample in ms

    Returns:
        `out`.

    Raises:
        UsageError: an unknown name or split, an impossible value, not a .npz, more samples than there are.
        HardspikeError: recordings are missing or damaged, or the file cannot be written.
    """
    out = Path(out)
    if split not in SPLITS:
        raise UsageError(f"split {split!r}: unknown; known: {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if out.suffix != ".npz":
        raise UsageError(f"{out}: spikes are written as .npz; name it {out.with_suffix('.npz')}")
    data = load(DataConfig(name=name, path=path, steps=steps, encoding=encoding, count_max=count_max, size=size,
                           window_ms=window_ms))
    part = getattr(data, split)
    count = len(part) if samples is None else samples
    if not 1 <= count <= len(part):
        raise UsageError(f"samples {count}: {split} has {len(part)}; take 1 to {len(part)}")
    chosen = np.arange(count) * len(part) // count
    frames = part.at(chosen)
    spikes = frames.transpose(0, 1) if encoding == "binary" else data.to_input(frames)
    try:
        with atomic_path(out) as temporary:
            np.savez_compressed(temporary, spikes=spikes.numpy(), labels=part.labels[chosen].numpy(),
                                ids=np.array(part.ids)[chosen])
    except OSError as error:
        raise HardspikeError(f"{out}: cannot be written ({error.strerror})") from error
    print(f"{out}: {name}, {split}: spikes {tuple(spikes.shape)} as (T, N, C, H, W), labels, ids")
    return out
