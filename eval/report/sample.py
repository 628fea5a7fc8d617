"""One recording on its way through the network: its events, the spikes of every layer, the classes' scores."""

import torch

from eval.cache import cached
from eval.models import modes
from eval.report.subject import Subject

ROWS = 240
"""Neurons of a layer that the raster shows at most."""


def sample(subject: Subject, index: int = 0) -> dict:
    """Recording number `index` of those that the report looks at.

    Returns:
        id, label, prediction, mode; `events`: off and on, events of each pixel, (H, W) lists; `scores`, one a class;
        `layers`: name, neurons, how many are shown, and [step, row] of every spike of those.
    """
    return cached({"command": "report sample", **subject.key, "index": index}, lambda: _look(subject, index))


def _look(subject: Subject, index: int) -> dict:
    mode = modes(subject.path, subject.content)[-1]
    frames = subject.frames[:, index:index + 1]
    logits, spikes = mode.run(frames)
    counts = (frames[:, 0] * subject.data.scale).round().long()
    off, on = counts.sum(0)
    layers = [_raster("events", counts), *(_raster(layer, values[:, 0]) for layer, values in spikes.items())]
    return {"id": subject.part.ids[index], "label": int(subject.part.labels[index]),
            "prediction": int(logits[0].argmax()), "mode": mode.mode,
            "events": {"off": off.tolist(), "on": on.tolist()}, "scores": logits[0].tolist(),
            "steps": len(frames), "layers": layers}


def _raster(layer: str, values: torch.Tensor) -> dict:
    """Spikes of (T, ...) values; of a large layer those of neurons evenly spread."""
    flat = values.flatten(1)
    rows = torch.linspace(0, flat.shape[1] - 1, min(ROWS, flat.shape[1])).round().long()
    return {"layer": layer, "neurons": flat.shape[1], "shown": len(rows), "total": int((flat != 0).sum()),
            "spikes": (flat[:, rows] != 0).nonzero().tolist()}
