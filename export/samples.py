"""Real recordings to check an export on, or to choose scales on."""

import json
from dataclasses import replace
from pathlib import Path

import nir
from torch import Tensor

from hardspike import HardspikeError, UsageError
from targets.inputs import load_spikes
from trainer.config import from_dict
from trainer.data import DataConfig, load


def data_config(graph: nir.NIRGraph, origin: str) -> DataConfig | None:
    """What a graph of ours was trained on, None where its metadata does not say; `origin` names it in errors.

    Raises:
        UsageError: it was written by another version and has keys that this one does not know.
    """
    stored = graph.metadata.get("data")
    if stored is None:
        return None
    try:
        values = json.loads(stored.decode() if isinstance(stored, bytes) else str(stored))
    except ValueError as error:
        raise HardspikeError(f"{origin}: metadata 'data' is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise HardspikeError(f"{origin}: metadata 'data' holds no options of a data source")
    return from_dict({"data": values}, origin).data


def real_recordings(graph: nir.NIRGraph, samples: int, path: Path | None = None, input: Path | None = None,
                    split: str = "test") -> tuple[Tensor, Tensor | None]:
    """Frames (T, B, ...) to run `graph` on and their labels (B,), where there are any: from the file `input`, else
    recordings of a split, evenly spread.

    Args:
        samples: how many; 0 for all.
        path: folder of the recordings, where it is not the one of the training run.
        split: train to choose anything on, test to check.

    Raises:
        UsageError: neither `input` nor metadata that says what the graph was trained on; `samples` below 0.
        HardspikeError: no recordings are to be had.
    """
    if samples < 0:
        raise UsageError(f"samples {samples}: must be 0 (all) or more")
    if input:
        frames, labels = load_spikes(input)
        return frames[:, :samples or None].float(), None if labels is None else labels[:samples or None]
    config = data_config(graph, "graph")
    if config is None:
        raise UsageError("the graph does not say what it was trained on; give --input FILE.npz with spikes (T, B, ...) "
                         "to run it on")
    try:
        data = load(replace(config, path=path or config.path))
    except HardspikeError as error:
        raise HardspikeError(f"no recordings to run on ({error}); give --path or --input") from error
    part = getattr(data, split).spread(samples)
    return data.to_input(part.frames), part.labels


def real_samples(graph: nir.NIRGraph, samples: int, path: Path | None = None, input: Path | None = None,
                 split: str = "test") -> Tensor:
    """The frames of `real_recordings`."""
    return real_recordings(graph, samples, path, input, split)[0]
