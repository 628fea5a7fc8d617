"""The recordings that models run on: the data of the training run, another source, or a file of spikes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardspike import HardspikeError, UsageError, logger, shown

if TYPE_CHECKING:
    from torch import Tensor

    from export.model import Model
    from trainer.data import Data, DataConfig, Split

_log = logger(__name__)


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

    def __post_init__(self):
        if self.input is not None and (of_a_source := self._said()):
            raise UsageError(f"--{next(iter(of_a_source))}: is of a data source; leave it out beside --input, whose "
                             "file has its own")

    def announce(self, *models: Model) -> None:
        """Say on standard error what is not as the models have it: a step that has to be assumed, and data options
        that stand for what the first model that says its data has.

        Raises:
            UsageError: `dt` for checkpoints alone.
            HardspikeError: a graph does not run with that step.
        """
        from export.model import say_step
        if self.dt is not None and all(model.checkpoint for model in models):
            raise UsageError(f"dt {self.dt:g}: is for graphs (.nir), whose neurons count seconds; a checkpoint counts "
                             "steps, so leave it out")
        for model in models:
            if model.given is not None:
                say_step(model, self.dt)
        model = next((model for model in models if model.data), None)
        if model is not None and self.input is None:
            own = vars(model.data)
            other = [f"{key} {shown(value)} ({shown(own[key])})" for key, value in self._said().items()
                     if key != "path" and value != own[key]]  # where the recordings lie is no difference
            if other:
                _log.warning(f"{model.path}: run on other data than it says (in brackets): {', '.join(other)}")

    def _said(self) -> dict[str, Any]:
        """The options of a data source that are given."""
        return {key: value for key in ("name", "path", "size", "steps", "encoding")
                if (value := getattr(self, key)) is not None}

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
            found = replace(found or DataConfig(), name=self.name, path=None, window_ms=None, sensor=None)
        return replace(found, **self._said())

    def data(self, *models: Model) -> Data:
        """All splits of those recordings; of `input`, each split is the whole file.

        Raises:
            UsageError: as `config`.
            HardspikeError: no recordings are to be had, or a model takes frames of another shape.
        """
        data = self._loaded(*models)
        for model in models:
            if model.shape != tuple(data.shape):
                source = str(self.input or self.config(*models).name)
                raise HardspikeError(self._other_shape(model, data, source))
        known = next((model.data for model in models if model.data), None)
        return replace(data, bins=known.bins) if self.input and known else data

    def _loaded(self, *models: Model) -> Data:
        from trainer.data import load
        from trainer.data.sources import downloads
        if self.input:
            return _from_file(self.input)
        config = self.config(*models)
        origin = next((model.path for model in models if model.data), None)
        if self.name is None and self.path is None and downloads(config):
            raise UsageError(f"{origin}: its recordings, {config.name}, may have to be downloaded, which no file "
                             f"decides: --name {config.name} downloads them, --path FOLDER says where they are")
        said = f"; data as {origin} has them" if origin else ""
        try:
            return load(config)
        except UsageError as error:
            raise UsageError(f"{error}{said}") from error
        except HardspikeError as error:
            raise HardspikeError(f"no recordings to run on ({error}{said}); give --path or --input") from error

    def _other_shape(self, model: Model, data: Data, source: str) -> str:
        """What is wrong, and the way out."""
        from targets.inputs import still
        taken, (given, samples) = model.shape, (tuple(data.shape), len(data.test.frames))
        pictures = still((data.steps, samples, *given), taken) if self.input else ""
        sized = not self.input and len(taken) == len(given) == 3 and taken[0] == given[0] and taken[1] == taken[2]
        way = f"give --size {taken[1]}" if sized else "give --input FILE.npz with spikes (T, B, ...) of that shape"
        return f"{model.path}: takes frames {taken}, {source} gives {given}{pictures or f'; {way}'}"

    def part(self, split: str, samples: int, *models: Model) -> tuple[Tensor, Tensor | None]:
        """Frames (T, B, ...) float32 of a split, evenly spread, and labels (B,), where there are any.

        Args:
            split: train to choose anything on, test to check.
            samples: how many; 0 for all.

        Raises:
            UsageError: as `config`; `samples` below 0.
            HardspikeError: as `data`.
        """
        data = self.data(*models)
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
