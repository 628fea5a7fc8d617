"""The recordings that models run on: the data of the training run, another source, or a file of spikes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hardspike import HardspikeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from export.model import Model
    from trainer.data import Data, DataConfig, Split


@dataclass(frozen=True)
class Recordings:
    """Where recordings come from: what the model was trained on, unless something else is said here.

    Args:
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        size: side of the frames in pixels, for a graph that does not say
        steps: time steps of a recording, for a graph that does not say
        encoding: binary or count, for a graph that does not say
        input: .npz file with `spikes` (T, B, ...) and, for accuracies, `labels` (B,), instead of a source
        dt: seconds a step, for a graph that does not say
    """

    name: str | None = None
    path: Path | None = None
    size: int | None = None
    steps: int | None = None
    encoding: str | None = None
    input: Path | None = None
    dt: float | None = None

    def config(self, *models: Model) -> DataConfig:
        """The data of the first model that says what it was trained on, with what is said here.

        Raises:
            UsageError: no model says it and there is no `name`.
        """
        from trainer.data import DataConfig
        found = next((model.data for model in models if model.data), None)
        if found is None and self.name is None:
            where = f"{models[0].path} does" if len(models) == 1 else "no model does"
            raise UsageError(f"{where} not say what data it is for; give --name (and --path), or --input FILE.npz with "
                             "spikes (T, B, ...)")
        if found is None or (self.name and self.name != found.name):
            # another source: the old one's place and window mean nothing there
            found = replace(found or DataConfig(), name=self.name, path=None, window_ms=None)
        said = {key: getattr(self, key) for key in ("path", "size", "steps", "encoding")}
        return replace(found, **{key: value for key, value in said.items() if value is not None})

    def data(self, *models: Model) -> Data:
        """All splits of those recordings; of `input`, each split is the whole file.

        Raises:
            UsageError: as `config`.
            HardspikeError: no recordings are to be had.
        """
        from trainer.data import load
        if self.input:
            return _from_file(self.input)
        config = self.config(*models)
        said = next((f"; data as {model.path} has them" for model in models if model.data), "")
        try:
            return load(config)
        except UsageError as error:
            raise UsageError(f"{error}{said}") from error
        except HardspikeError as error:
            raise HardspikeError(f"no recordings to run on ({error}{said}); give --path or --input") from error

    def part(self, split: str, samples: int, *models: Model) -> tuple[Tensor, Tensor | None]:
        """Frames (T, B, ...) float32 of a split, evenly spread, and labels (B,), where there are any.

        Args:
            split: train to choose anything on, test to check.
            samples: how many; 0 for all.

        Raises:
            UsageError: as `config`; `samples` below 0.
            HardspikeError: no recordings are to be had.
        """
        data = self.data(*models)
        if self.input:
            check_input(self.input, data.shape, models[0])
        part: Split = getattr(data, split).spread(check_samples(samples))
        return data.to_input(part.frames), part.labels if part.labelled else None


def check_samples(samples: int, key: str = "samples") -> int:
    """`samples`, if it is a number of recordings.

    Raises:
        UsageError: it is below 0.
    """
    if samples < 0:
        raise UsageError(f"{key} {samples}: must be 0 (all) or more")
    return samples


def check_input(path: Path, shape: tuple[int, ...], model: Model) -> None:
    """Refuse a file of spikes that a model does not take.

    Raises:
        HardspikeError: its spikes have another shape; names both.
    """
    if shape != model.shape:
        raise HardspikeError(f"{model.path}: takes frames {model.shape}, {path} holds {shape}; give --input FILE.npz "
                             "with spikes (T, B, ...) of that shape")


def _from_file(path: Path) -> Data:
    import torch

    from targets.inputs import load_spikes
    from trainer.data.samples import UNKNOWN, Data, Split
    spikes, labels = load_spikes(path)
    count = spikes.shape[1]
    if labels is None:
        labels = torch.full((count,), UNKNOWN)
    whole = Split(spikes.transpose(0, 1), labels, [f"{path.name}:{i}" for i in range(count)])
    return Data(whole, whole, whole, classes=int(labels.max()) + 1, shape=tuple(spikes.shape[2:]), steps=len(spikes),
                scale=1.0)
