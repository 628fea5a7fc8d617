"""The commands of `hardspike`. What they need of torch is imported when one is called."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from hardspike import OutFile, UsageError
from trainer.config import FitConfig
from trainer.data.config import DataConfig
from trainer.data.options import option_names
from trainer.data.sources import check_source
from trainer.track import require

__all__ = ["data", "fit"]


def fit(config: FitConfig, resume: bool = False, track: str | None = None,
        given: Collection[str] | None = None) -> None:
    """Train a network and keep the weights of its best epoch.

    The folder `out` gets config.yaml, best.pt (of the epoch that `keep` says: by default the latest within one standard
    error of the best hard validation accuracy), last.pt (to resume from), metrics.csv and TensorBoard events. The test
    split is never looked at.

    `torchrun --nproc-per-node N -m trainer fit` trains in N processes, to the weights of one process to rounding; each
    takes its shard of every minibatch.

    Args:
        config: the run
        resume: go on with the run in `out` after its last whole epoch, to the same weights, bit for bit, that an
            uninterrupted run reaches
        track: also note configuration and epochs in mlflow or wandb, through its own library (pip install
            'hardspike[mlflow]', 'hardspike[wandb]') and where its own variables say
        given: as in `trainer.fit.fit`
    """
    check_source(config.data)
    if track is not None:
        require(track)  # before anything is read
    from trainer.fit import fit as train

    with option_names("data."):
        train(config, resume, given, track)


def data(source: str, config: DataConfig, split: str = "test", out: OutFile = Path("spikes.npz"),
         samples: int = 0) -> None:
    """Write the frames of one split to a `.npz` file, from which `hardspike targets run` takes its input.

    It holds `spikes` (T, N, C, H, W), uint8 {0,1} for encoding binary and float32 in [0,1] for count; `labels` (N,)
    int64; `ids` (N,), the samples' names.

    Args:
        source: digits, nmnist, dvs_gesture, cifar10_dvs, events, hdf5, frames, images, canvas, ade20k or tonic:NAME, as
            --name describes them
        config: the recordings and their frames; `source` is their name
        split: train, validation or test
        out: file to write, *.npz
        samples: write only so many, spread evenly over the split and so over its classes; 0 for all
    """
    if config.name not in (source, DataConfig.name):
        raise UsageError(f"--name {config.name}: the source is {source} already; leave --name out")
    config = replace(config, name=source)
    check_source(config)
    from trainer.data.spikes_file import write_spikes

    with option_names(""):
        write_spikes(config, split, out, samples)
