"""Checkpoints: plain tensors and values, read without running code, written whole or not at all."""

import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hardspike import HardspikeError, UsageError, atomic_path
from trainer.config import FitConfig, from_dict, to_dict
from trainer.networks import Network, build

FORMAT = 1


@dataclass
class Checkpoint:
    """A trained network and where it came from.

    Args:
        config: the run's configuration.
        network: in evaluation mode, hard or smooth as it was trained, with the slope it had.
        shape: (C, H, W) of a frame.
        classes: number of classes.
        epoch: epochs trained.
        history: one dict an epoch (losses, accuracies).
        diagnostics: `trainer.analysis.theory.report` and what else the run measured.
        training: optimizer, method and schedule state, in `last.pt` only.
        calibration: what `python -m eval calibrate` changed after training (its `kind` and the values), None for a
            network as it was trained.
    """

    config: FitConfig
    network: Network
    shape: tuple[int, int, int]
    classes: int
    epoch: int
    history: list[dict]
    diagnostics: dict
    training: dict | None = None
    calibration: dict | None = None


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write atomically: a crash leaves the previous file."""
    neuron = next(iter(checkpoint.network.neurons().values()))
    content = {
        "format": FORMAT,
        "config": to_dict(checkpoint.config),
        "network": checkpoint.network.state_dict(),
        "slope": neuron.surrogate.slope,
        "hard": neuron.hard,
        **{key: getattr(checkpoint, key) for key in
           ("shape", "classes", "epoch", "history", "diagnostics", "training", "calibration")},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote.

    Raises:
        HardspikeError: missing, empty, truncated or foreign file, or one that would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise HardspikeError(f"{path}: no such checkpoint; `python -m trainer fit` writes best.pt and last.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise HardspikeError(f"{path}: refused: it holds Python objects that would execute code when loaded; "
                                 "only checkpoints of plain tensors are read") from error
        raise HardspikeError(f"{path}: not a checkpoint (truncated, or another kind of file)") from error
    except (EOFError, RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise HardspikeError(f"{path}: not a checkpoint (empty, truncated, or another kind of file)") from error
    if not isinstance(content, dict) or "config" not in content or "network" not in content:
        raise HardspikeError(f"{path}: a PyTorch file, but not a checkpoint of `python -m trainer fit`")
    if content.get("format") != FORMAT:
        raise HardspikeError(f"{path}: checkpoint format {content.get('format')}; this version reads {FORMAT}")
    try:
        config = from_dict(content["config"], str(path))
        shape = tuple(content["shape"])
        with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and replaced
            network = build(config.network, shape, content["classes"])
        network.load_state_dict(content["network"])
        network.set_mode(content["hard"], replace(config.network.surrogate, slope=content["slope"]))
        rest = {key: content[key] for key in ("classes", "epoch", "history", "diagnostics", "training")}
        rest["calibration"] = content.get("calibration")  # older files have none
    except (KeyError, TypeError, RuntimeError, UsageError) as error:
        raise HardspikeError(f"{path}: damaged checkpoint: {' '.join(str(error).split())[:200]}") from error
    bad = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        raise HardspikeError(f"{path}: {bad[0]} holds NaN or infinity; the run diverged, train again with a lower lr")
    return Checkpoint(config=config, network=network.eval(), shape=shape, **rest)
