"""Frames of one split as a file, for those who run a graph and know nothing of data sets."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError, atomic_path, check_suffix, choice, logger
from trainer.data.config import SPLITS, DataConfig
from trainer.data.loading import load

__all__ = ["SPLITS", "write_spikes"]

_log = logger(__name__)


def write_spikes(config: DataConfig, split: str = "test", out: Path = Path("spikes.npz"), samples: int = 0) -> Path:
    """Write the frames of one split to a `.npz` file, from which `hardspike targets run` takes its input.

    It holds `spikes` (T, N, C, H, W), uint8 {0,1} for encoding binary and float32 in [0,1] for count; `labels` (N,)
    int64, or `masks` (N, H, W) uint8 where every pixel has a class; `ids` (N,), the samples' names.

    Args:
        config: recordings and their frames
        split: train, validation or test
        out: file to write, *.npz
        samples: how many, spread over the split as `Split.spread` does, the way every command draws them; 0 for all,
            and all where there are fewer

    Returns:
        `out`.

    Raises:
        UsageError: an unknown split, not a .npz, fewer than 0 samples.
        HardspikeError: recordings are missing or damaged, or the file cannot be written.
    """
    out = Path(out)
    choice("split", split, SPLITS)
    check_suffix(out, ".npz")
    if samples < 0:
        raise UsageError(f"samples {samples}: must be 0 (all) or more")
    data = load(config)
    part = getattr(data, split).spread(samples)
    spikes = part.frames.transpose(0, 1) if config.encoding == "binary" else data.to_input(part.frames)
    try:
        with atomic_path(out) as temporary:
            np.savez_compressed(temporary, spikes=spikes.numpy(), ids=np.array(part.ids),
                                **{"masks" if part.masked else "labels": part.labels.numpy()})
    except OSError as error:
        raise HardspikeError(f"{out}: cannot be written ({error.strerror})") from error
    _log.info(f"{out}: {config.name}, {split}: spikes {tuple(spikes.shape)} as (T, N, C, H, W), labels, ids")
    return out
