"""One recording on its way through the network: its events, the spikes of every layer, the classes' scores."""

from dataclasses import asdict, dataclass

import torch

from eval.cache import cached
from eval.mode import Mode
from eval.subject import Subject, modes, runs
from trainer.data.samples import in_bins

ROWS = 240
"""Neurons of a layer that the raster shows at most."""


@dataclass(frozen=True)
class Raster:
    """Spikes of one layer: how many `neurons` it has and how many are `shown`, `total` spikes, and [step, row] of each
    spike of those shown."""

    layer: str
    neurons: int
    shown: int
    total: int
    spikes: list[list[int]]


@dataclass(frozen=True)
class Example:
    """One recording.

    Args:
        id: its name.
        label: its class.
        prediction: what it was taken for.
        mode: in which the model ran.
        off, on: events of each pixel, (H, W); None where the recording is no picture of OFF and ON events.
        scores: one a class.
        steps: T.
        layers: the events and every spiking layer.
    """

    id: str
    label: int
    prediction: int
    mode: Mode
    off: list[list[int]] | None
    on: list[list[int]] | None
    scores: list[float]
    steps: int
    layers: list[Raster]


def example(subject: Subject, index: int = 0) -> Example:
    """Recording number `index` of those that the report looks at, in the model's last mode."""
    stored = cached({"command": "report example", **subject.key, "index": index}, lambda: asdict(_look(subject, index)))
    return Example(**{**stored, "mode": Mode(**stored["mode"]), "layers": [Raster(**one) for one in stored["layers"]]})


def _look(subject: Subject, index: int) -> Example:
    mode = modes(subject.model)[-1]
    frames = subject.frames[:, index:index + 1]
    logits, spikes = runs(subject.model, mode)(frames)
    counts = (frames[:, 0] * subject.data.scale).round().long()
    parts = in_bins(counts[None], subject.data.bins)[0]
    off, on = parts.sum(0).tolist() if parts.ndim == 4 and parts.shape[1] == 2 else (None, None)
    layers = [_raster("events", counts), *(_raster(layer, values[:, 0]) for layer, values in spikes.items())]
    return Example(subject.part.ids[index], int(subject.labels[index]), int(logits[0].argmax()), mode, off, on,
                   logits[0].tolist(), len(frames), layers)


def _raster(layer: str, values: torch.Tensor) -> Raster:
    """Spikes of (T, ...) values; of a large layer those of neurons evenly spread."""
    flat = values.flatten(1)
    rows = torch.linspace(0, flat.shape[1] - 1, min(ROWS, flat.shape[1])).round().long()
    return Raster(layer, flat.shape[1], len(rows), int((flat != 0).sum()), (flat[:, rows] != 0).nonzero().tolist())
