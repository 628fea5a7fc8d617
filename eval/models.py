"""Models that the eval commands take: opened, put on the same data, run in each of their modes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from export.formats.integers import chip_of
from export.formats.nir import open_graph
from export.passes.rewrite import flatten
from export.samples import data_config
from hardspike import UsageError, progress
from targets.commands import load_target
from targets.graph.shapes import array
from targets.loihi.layers import LINEAR
from trainer.checkpoint import Checkpoint, load
from trainer.config import FitConfig
from trainer.data import Data, DataConfig, Split
from trainer.data import load as load_data

CHUNK = 64
"""Samples that a graph runs at once."""


@dataclass(frozen=True)
class Mode:
    """One model in one of the ways it can run.

    Args:
        model: where it is from.
        mode: surrogate, hard, or the target that runs the graph.
        run: frames (T, B, C, H, W) -> logits (B, classes) and spikes (T, B, ...) of each layer. Surrogate spikes lie
            between 0 and 1.
    """

    model: str
    mode: str
    run: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]

    def accuracy(self, frames: Tensor, labels: Tensor) -> float:
        """Share of right answers in [0, 1] on frames (T, N, ...), some at a time."""
        right = sum(int((self.run(part)[0].argmax(1) == truth).sum())
                    for part, truth in zip(frames.split(CHUNK, 1), labels.split(CHUNK), strict=True))
        return right / len(labels)


def modes(model: Path, content: Checkpoint | nir.NIRGraph, targets: tuple[str, ...] = ("reference",)) -> list[Mode]:
    """A checkpoint in surrogate and hard mode; a graph on each of `targets`, a quantised one on its own chip.

    A calibrated checkpoint has its hard mode alone: with its smooth spikes it is no network that was ever trained.
    """
    if isinstance(content, Checkpoint) and content.calibration:
        return [Mode(str(model), f"hard{calibrated(content)}", _network(content, True))]
    if isinstance(content, Checkpoint):
        return [Mode(str(model), "hard" if hard else "surrogate", _network(content, hard)) for hard in (False, True)]
    chip = chip_of(content)
    return [Mode(str(model), target, _graph(content, target)) for target in ((chip,) if chip else targets)]


def calibrated(content: Checkpoint | nir.NIRGraph) -> str:
    """`, calibrated (KIND)` to put behind a mode; nothing for a network as it was trained."""
    if isinstance(content, Checkpoint):
        kind = content.calibration and content.calibration["kind"]
    else:
        kind = content.metadata.get("calibration")
        kind = kind.decode() if isinstance(kind, bytes) else kind
    return f", calibrated ({kind})" if kind else ""


def _network(stored: Checkpoint, hard: bool) -> Callable:
    @torch.inference_mode()
    def run(frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        record: dict[str, Tensor] = {}
        stored.network.eval()
        with stored.network.mode(hard):
            logits = stored.network(frames.to(next(stored.network.parameters())), record)
        return logits, record
    return run


def _graph(graph: nir.NIRGraph, target: str) -> Callable:
    module = load_target(target)

    def run(frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        recording = module.run(graph, frames)
        return recording.output.sum(0).flatten(1), recording.spikes
    return run


def integer_grid(weights: list[np.ndarray]) -> tuple[int, int]:
    """The unit of integer weights, their greatest common divisor, and the bits (two's complement) of its multiples."""
    flat = np.concatenate([weight.ravel() for weight in weights] or [np.zeros(1)]).astype(np.int64)
    step = max(int(np.gcd.reduce(flat)), 1)
    levels = flat // step
    return step, 1 + int(np.where(levels < 0, -levels - 1, levels).max()).bit_length()


def weight_bits(content: Checkpoint | nir.NIRGraph) -> int | None:
    """Bits of the widest weight of a quantised graph; None where weights are floats."""
    if isinstance(content, Checkpoint) or not chip_of(content):
        return None
    weights = [array(node.weight) for node in flatten(content).nodes.values() if isinstance(node, LINEAR)]
    if any(not np.array_equal(weight, weight.round()) for weight in weights):
        return None
    return max((integer_grid([weight])[1] for weight in weights), default=None)


def open_model(model: Path) -> Checkpoint | nir.NIRGraph:
    """A checkpoint or a NIR graph, by the file's ending."""
    return load(model) if model.suffix == ".pt" else open_graph(model)


def open_on_same_data(models: tuple[Path, ...], name: str | None,
                      path: Path | None) -> tuple[list[Checkpoint | nir.NIRGraph], DataConfig, Data]:
    """All models and the data that they run on side by side: that of the first model which says what it is for.

    Args:
        name: data source, where no model says it or another one is wanted for all.
        path: folder of the recordings, where it is not the one of the training run.

    Raises:
        UsageError: no model says it and `name` is None; a model was made for other frames or another split.
        HardspikeError: a model or the recordings cannot be read.
    """
    opened = [open_model(model) for model in models]
    config = data_of(models, opened, name, path)
    if name is None:
        _same_data(models, opened, config)
    return opened, config, load_data(config)


def data_of(models: tuple[Path, ...], opened: list, name: str | None, path: Path | None) -> DataConfig:
    """What the first model that says so was trained on; `name` and `path` override it."""
    found = None
    for model, content in zip(models, opened, strict=True):
        found = _own_data(model, content)
        if found:
            break
    if found is None and name is None:
        raise UsageError(f"{models[0]} does not say what data it is for; give --name (and --path)")
    found = found or FitConfig().data
    if name and name != found.name:  # another source: the old one's place and window mean nothing there
        found = replace(found, name=name, path=None, window_ms=None)
    return replace(found, path=path or found.path)


def _same_data(models: tuple[Path, ...], opened: list, config: DataConfig) -> None:
    """Refuse models that were trained on other frames or another split than `config`'s.

    Raises:
        UsageError: names the model and what differs.
    """
    for model, content in zip(models, opened, strict=True):
        own = _own_data(model, content)
        different = [f"{key} {value} instead of {getattr(config, key)}" for key, value in vars(own).items()
                     if key != "path" and value != getattr(config, key)] if own else []
        if different:
            raise UsageError(f"{model}: was made for other data ({'; '.join(different)}); evaluate it on its own, or "
                             "give --name to run all on one source as the first model has it")


def _own_data(model: Path, content: Checkpoint | nir.NIRGraph) -> DataConfig | None:
    return content.config.data if isinstance(content, Checkpoint) else data_config(content, str(model))


def run_graph(graph: nir.NIRGraph, target: str, data: Data, part: Split) -> tuple[Tensor, dict[str, float]]:
    """Logits (N, classes) of a graph on a target, summed over time, and spikes per sample by layer."""
    run = _graph(graph, target)
    logits, counts = [], {}
    for frames in progress(part.frames.split(CHUNK), target):
        found, spikes = run(data.to_input(frames))
        logits.append(found)
        for layer, values in spikes.items():
            counts[layer] = counts.get(layer, 0) + int(values.sum(dtype=torch.int64))
    return torch.cat(logits), {layer: count / len(part.labels) for layer, count in counts.items()}
