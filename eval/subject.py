"""A model on recordings, and the ways in which it runs there."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.cache import cached_file, fingerprint
from eval.mode import HARD, SURROGATE, Mode
from eval.options import Sample
from export.formats.integers import to_integers
from export.model import Model
from export.options import Quantisation
from export.passes.rewrite import flatten
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, about, progress
from targets import metadata
from targets.graph import Graph, write
from targets.graph.shapes import array
from targets.inputs import check_labels
from targets.loihi.layers import LINEAR
from targets.reference import REFERENCE
from targets.table import TARGETS
from targets.target import Target
from trainer.data import Data, Split
from trainer.evaluate import Evaluation
from trainer.networks import Network
from trainer.segmentation import PixelEvaluation, evaluated

NETWORK_BATCH = 128
"""Recordings that a network runs at once, as `trainer.evaluate` takes them: float32 rounds alike."""

Run = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Frames (T, B, ...) -> logits (B, classes) and the spikes (T, B, ...) of each layer, smooth ones between 0 and 1."""
Count = Callable[[Tensor], tuple[Tensor, dict[str, float]]]
"""Frames (T, B, ...) -> logits (B, classes) and how much each layer spiked in all."""


# ------------------------------------------------------------------------------------------------ one run


def run_network(network: Network, smooth: bool) -> Run:
    """A network in PyTorch, in evaluation mode, in its own precision."""
    @torch.inference_mode()
    def run(frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        record: dict[str, Tensor] = {}
        training = network.training
        network.eval()
        try:
            with network.mode(hard=not smooth):
                return network(frames.to(next(network.parameters())), record), record
        finally:
            network.train(training)
    return run


def run_graph(graph: Graph, target: Target) -> Run:
    """A graph on a target; logits are its output summed over time."""
    def run(frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        recording = target.run(graph, frames)
        return recording.output.sum(0).flatten(1), recording.spikes
    return run


def runs(model: Model, mode: Mode) -> Run:
    """A model in one of its modes; what it cannot do there names its file."""
    run = run_network(model.trained.network, mode.smooth) if mode.target is None else \
        run_graph(model.graph, TARGETS[mode.target])

    def named(frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with about(model.path):
            return run(frames)
    return named


def counts(model: Model, mode: Mode) -> Count:
    """A model in one of its modes, where nobody looks at single spikes: chips then need not record them."""
    if mode.target is None:
        run = run_network(model.trained.network, mode.smooth)

        def count(frames: Tensor) -> tuple[Tensor, dict[str, float]]:
            logits, record = run(frames)
            return logits, {layer: values.sum(dtype=torch.float64).item() for layer, values in record.items()}
    else:
        graph, target = model.graph, TARGETS[mode.target]

        def count(frames: Tensor) -> tuple[Tensor, dict[str, float]]:
            found = target.run(graph, frames, layers=())
            return found.output.sum(0).flatten(1), {layer: float(of.sum()) for layer, of in found.counts.items()}
    return count


def answers(model: Model, mode: Mode) -> Callable[[Tensor], Tensor]:
    """A model in one of its modes, where nobody looks at spikes: frames (T, B, ...) -> logits (B, classes)."""
    if mode.target is None:
        run = run_network(model.trained.network, mode.smooth)
        return lambda frames: run(frames)[0]
    graph, target = model.graph, TARGETS[mode.target]
    return lambda frames: target.run(graph, frames, layers=()).output.sum(0).flatten(1)


def batch(mode: Mode, samples: int) -> int:
    """How many of `samples` recordings run at once in a mode."""
    return NETWORK_BATCH if mode.target is None else TARGETS[mode.target].chunk or max(1, samples)


def modes(model: Model, targets: Iterable[Target] = (REFERENCE,), bits: int | None = None) -> list[Mode]:
    """The ways in which a model runs.

    A checkpoint runs with smooth and with hard spikes; a calibrated one with hard ones alone, since with smooth ones
    it is no network that was ever trained. A float graph runs on those of `targets` that take floats. A quantised one
    runs on its own chip and on those of `targets` that are set up apart for integers (Lava).

    Args:
        bits: of a weight, where the graph was quantised for this.
    """
    if model.checkpoint:
        return [replace(HARD, calibration=model.calibration)] if model.calibration else [SURROGATE, HARD]
    if model.chip is None:
        places = [target.name for target in targets if target.integers is None]
    else:
        places = [model.chip.name, *(target.name for target in targets if target.integers and target.setup)]
    chip = model.chip.name if model.chip else None
    return [Mode(place, chip=chip, bits=bits, calibration=model.calibration) for place in places]


# ------------------------------------------------------------------------------------- a model on recordings


@dataclass(frozen=True)
class Subject:
    """A model on recordings.

    Args:
        model: opened.
        data: all splits of the recordings.
        part: the recordings of one split that are looked at.
        source: name of the data source, or of the file.
        bits: of a weight, where the model was quantised for this.
    """

    model: Model
    data: Data
    part: Split
    source: str = ""
    bits: int | None = None

    @property
    def parameters(self) -> int:
        """How many numbers it has: a network's parameters, a graph's weights and biases."""
        if stored := self.model.checkpoint:
            return sum(parameter.numel() for parameter in stored.network.parameters())
        return sum(value.size for node in self.model.graph.nodes.values()
                   for value in (getattr(node, "weight", None), getattr(node, "bias", None)) if value is not None)

    @property
    def epoch(self) -> int | None:
        """After which the weights were kept; None for a graph, which does not say."""
        return self.model.checkpoint.epoch if self.model.checkpoint else None

    @functools.cached_property
    def frames(self) -> Tensor:
        """The recordings, (T, B, ...) float32."""
        return self.data.to_input(self.part.frames)

    @functools.cached_property
    def labels(self) -> Tensor:
        """The classes of the recordings, (B,) int64.

        Raises:
            HardspikeError: they are not known or those of pixels, or the model has no output for one.
        """
        if self.part.masked:
            raise HardspikeError(f"{self.source}: has a class for every pixel, and this counts recordings; `eval "
                                 "accuracy`, `study`, `report` and `operations` take such data")
        if not self.part.labelled:
            raise HardspikeError(f"{self.source}: says no classes, so there is no accuracy; add `labels` (B,) to the "
                                 "file")
        check_labels(self.part.labels, self.model.outputs, f"{self.source}, {self.model.path}")
        return self.part.labels

    @functools.cached_property
    def masks(self) -> Tensor:
        """The classes of the recordings' pixels, (B, H, W) uint8.

        Raises:
            HardspikeError: the model does not label pixels, or has no output for a class.
        """
        stored, where = self.model.checkpoint, f"{self.source}, {self.model.path}"
        if stored is None or not stored.network.labels_pixels:
            raise HardspikeError(f"{where}: the data have a class for every pixel, which this model does not give; "
                                 "take a run with --network.pyramid")
        if stored.classes != self.data.classes:
            raise HardspikeError(f"{where}: the data have {self.data.classes} classes of pixels, the model gives "
                                 f"{stored.classes}; take the data that it was trained on")
        return self.part.labels

    @functools.cached_property
    def frames_key(self) -> str:
        """Fingerprint of `frames`."""
        return fingerprint(self.frames)

    @functools.cached_property
    def key(self) -> dict:
        """What a result about this model on these recordings follows from, for `eval.cache`."""
        return {"model": self.model_key, "recordings": fingerprint(self.part.frames, self.part.labels, self.part.ids,
                                                                   self.data.scale)}

    @property
    def model_key(self) -> list:
        """What tells the model from another one: its file's content, and the step that it was opened for."""
        return [self.model.key, None if self.model.given is None else metadata.dt(self.model.given)]

    @functools.cached_property
    def chosen_on(self) -> str:
        """Fingerprint of the recordings that scales and calibrations are chosen on."""
        return fingerprint([_content(part) for part in (self.data.train, self.data.validation)], self.data.scale)

    def on(self, part: Split) -> "Subject":
        """The same model on other recordings of the same data."""
        return replace(self, part=part)

    def modes(self, targets: Iterable[Target] = (REFERENCE,)) -> list[Mode]:
        """See `modes`.

        Raises:
            UsageError: a float graph and none of `targets` takes floats.
        """
        found = modes(self.model, targets, self.bits)
        if not found:
            raise UsageError(f"{self.model.path}: a float graph runs on none of the targets "
                             f"{', '.join(target.name for target in targets)}; add reference, or give the quantised "
                             "graph")
        return found

    def given(self, frames: Tensor, mode: Mode) -> Tensor:
        """Frames (N, T, ...) uint8 of these data as a mode takes them, (T, N, ...).

        What computes in integers gets the counts where they lie: to turn them into floats takes longer than to run.
        """
        if mode.target and TARGETS[mode.target].integers and self.data.scale == 1:
            return frames.transpose(0, 1)
        return self.data.to_input(frames)

    def evaluate(self, mode: Mode) -> Evaluation | PixelEvaluation:
        """Logits, labels and spikes of the recordings in a mode, some at a time; counts where labels are of pixels.

        Raises:
            HardspikeError: labels are not known or do not fit; the target refuses the graph or the frames.
        """
        labels, count = self.masks if self.part.masked else self.labels, len(self.part)
        run, size = counts(self.model, mode), batch(mode, count)
        spikes: dict[str, float] = {}

        def parts() -> Iterator[tuple[Tensor, Tensor]]:
            for start in progress(range(0, count, size), mode.target or "recordings"):
                part = slice(start, start + size)
                found, fired = run(self.given(self.part.at(part), mode))
                for layer, number in fired.items():
                    spikes[layer] = spikes.get(layer, 0.0) + number
                yield found.cpu(), labels[part]

        result: Evaluation | PixelEvaluation = evaluated(parts()) if self.part.masked else \
            Evaluation(torch.cat([logits for logits, _ in parts()]), labels, {})
        result.spikes = {layer: total / count for layer, total in spikes.items()}
        return result

    def accuracy(self, mode: Mode) -> float:
        """Share of right answers in a mode, in [0, 1]; raises what `evaluate` raises."""
        return self.evaluate(mode).accuracy

    def quantised(self, chosen: Quantisation) -> "Subject":
        """The same recordings, and the model's graph in integers, which is kept in the cache.

        Raises:
            HardspikeError: the chip cannot hold it.
        """
        key = {"command": "quantise", "model": self.model_key, "chosen": chosen, "on": self.chosen_on}

        def frames() -> Tensor:
            return self.data.to_input(self.data.train.spread(chosen.train_samples).frames)

        with about(self.model.path):
            file = cached_file(key, ".nir", lambda path: write(to_integers(self.model.graph, chosen, frames)[0], path))
        return replace(self, model=Model.open(file), bits=chosen.width)


def _content(part: Split) -> list:
    """What a split holds, or why it holds nothing."""
    try:
        return [part.stored, part.labels]
    except HardspikeError as error:
        return [str(error)]


# ------------------------------------------------------------------------------------------------- opening


def open_subjects(models: Iterable[Path], recordings: Recordings, sample: Sample,
                  strict: bool = False) -> list[Subject]:
    """Open models on the same recordings: those of the first model that says what it was trained on, unless
    `recordings` says more. A network that was trained in a chip's integers is its graph.

    Args:
        models: runs' folders, checkpoints (.pt) or graphs (.nir).
        strict: refuse models of other data also where `recordings` names a source for all.

    Raises:
        UsageError: no model says it and `recordings` does not; a model was made for other frames or another split.
        HardspikeError: a model or the recordings cannot be read, or do not fit each other.
    """
    sample.checked()
    opened = [Model.open(path).deployed() for path in models]
    recordings.announce(*opened)
    opened = _dated(opened, recordings.dt)
    if recordings.input is None:
        source = recordings.config(*opened).name
        if strict or recordings.name is None:
            _same_data(opened, recordings)
    else:
        source = str(recordings.input)
    data = recordings.data(*opened)
    part = getattr(data, sample.split).spread(sample.samples)
    if not len(part):
        raise HardspikeError(f"{source}: there are no recordings in it")
    return [Subject(model, data, part, source) for model in opened]


def open_subject(model: Path, recordings: Recordings, sample: Sample) -> Subject:
    """One model; see `open_subjects`."""
    return open_subjects([model], recordings, sample)[0]


def title(subject: Subject, split: str) -> str:
    """What recordings a table is about."""
    return f"{subject.source}, {split}: {len(subject.part)} recordings, T={subject.data.steps}"


def _dated(models: list[Model], dt: float | None) -> list[Model]:
    """The models, with `dt` in the metadata of graphs that do not say their step."""
    if dt is None:
        return models
    return [model if model.given is None else replace(model, given=metadata.with_dt(model.given, dt))
            for model in models]


def _same_data(models: list[Model], recordings: Recordings) -> None:
    """Refuse models that were trained on other frames or another split than they would be run on.

    Raises:
        UsageError: names the model and what differs.
    """
    config = recordings.config(*models)
    said = {key for key in ("name", "path", "size", "steps", "encoding") if getattr(recordings, key) is not None}
    said |= {"path"} | ({"window_ms"} if recordings.name else set())
    for model in models:
        own = vars(model.data) if model.data else {}
        different = [f"{key} {value} instead of {getattr(config, key)}" for key, value in own.items()
                     if key not in said and value != getattr(config, key)]
        if different:
            raise UsageError(f"{model.path}: was made for other data ({'; '.join(different)}); evaluate it on its own, "
                             "or give --name to run all on one source as the first model has it")


# ------------------------------------------------------------------------------------------------- weights


def integer_grid(weights: list[np.ndarray]) -> tuple[int, int]:
    """The unit of integer weights, their greatest common divisor, and the bits (two's complement) of its multiples."""
    flat = np.concatenate([weight.ravel() for weight in weights] or [np.zeros(1)]).astype(np.int64)
    step = max(int(np.gcd.reduce(flat)), 1)
    levels = flat // step
    return step, 1 + int(np.where(levels < 0, -levels - 1, levels).max()).bit_length()


def weight_bits(model: Model) -> int | None:
    """Bits of the widest weight of a quantised graph; None where weights are floats."""
    if not model.chip:
        return None
    weights = [array(node.weight) for node in flatten(model.graph).nodes.values() if isinstance(node, LINEAR)]
    if any(not np.array_equal(weight, weight.round()) for weight in weights):
        return None
    return max((integer_grid([weight])[1] for weight in weights), default=None)
