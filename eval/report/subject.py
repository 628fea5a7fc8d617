"""A model as the report looks at it: opened, on its recordings, with the graphs that follow from it."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import nir
from torch import Tensor

from eval.cache import cached_file, fingerprint
from eval.models import data_of, open_model
from export.formats.integers import chip_of, quantised
from export.formats.nir import frozen
from hardspike import HardspikeError, UsageError
from targets.graph import read, write
from trainer.checkpoint import Checkpoint
from trainer.data import Data, DataConfig, Split
from trainer.data import load as load_data

SCALE_SAMPLES = 128
"""Training recordings to choose scales on, as many as `python -m export quantise` takes."""


@dataclass(frozen=True)
class Subject:
    """One model of a report.

    Args:
        path: its file.
        content: what is in it.
        measured: the file that other commands open: `path`, or a copy that says what data it is for.
        graph: the graph that is exported from it, or the graph itself; None where NIR cannot hold the network.
        refused: why there is no graph.
        config: of its data,
        data: all of it.
        part: the test recordings that the report is about.
    """

    path: Path
    content: Checkpoint | nir.NIRGraph
    graph: nir.NIRGraph | None
    refused: str
    measured: Path
    config: DataConfig
    data: Data
    part: Split

    @property
    def chip(self) -> str | None:
        """The chip that a quantised graph is for."""
        return chip_of(self.graph) if self.graph else None

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if isinstance(self.content, Checkpoint):
            return "checkpoint"
        return f"graph quantised for {self.chip}" if self.chip else "float graph"

    @functools.cached_property
    def frames(self) -> Tensor:
        """The test recordings, (T, B, C, H, W)."""
        return self.data.to_input(self.part.frames)

    @functools.cached_property
    def key(self) -> dict:
        """What a result about this model on these recordings follows from, for `eval.cache`."""
        return {"model": self.path,
                "recordings": fingerprint(self.part.frames, self.part.labels, self.part.ids, self.data.scale)}

    @functools.cached_property
    def chosen_on(self) -> str:
        """Fingerprint of the recordings that scales and calibrations are chosen on."""
        return fingerprint([[part.stored, part.labels] for part in (self.data.train, self.data.validation)],
                           self.data.scale)

    def integer(self, target: str, bits: int) -> Path:
        """The file of its graph in integers for a chip.

        Raises:
            HardspikeError: the chip cannot hold it.
        """
        key = {"command": "report quantise", "target": target, "bits": bits, "scale": "searched",
               "model": self.path, "chosen on": self.chosen_on}
        return cached_file(key, ".nir", lambda path: write(
            quantised(self.graph, target, bits, samples=SCALE_SAMPLES)[0], path))

    def integer_graph(self, target: str, bits: int) -> nir.NIRGraph:
        """What the file `integer` holds."""
        return read(self.integer(target, bits))


def model_file(model: Path) -> Path:
    """The checkpoint of a run's folder, or the file itself.

    Raises:
        HardspikeError: a folder without one.
    """
    if not model.is_dir():
        return model
    if not (model / "best.pt").is_file():
        raise HardspikeError(f"{model}: no run: it holds no best.pt; give the folder of `python -m trainer fit`, a "
                             "checkpoint or a .nir file")
    return model / "best.pt"


def open_subjects(models: tuple[Path, ...], samples: int, name: str | None, folder: Path | None) -> list[Subject]:
    """Open runs, checkpoints or graphs, and test recordings to look at all of them with, evenly spread.

    A model that does not say what data it is for takes that of another one.

    Args:
        samples: recordings; 0 for all.
        name: data source, where no model says it or another one is wanted.
        folder: of the recordings, where it is not the one of the training run.

    Raises:
        UsageError: no model says it, and `name` is not given; the models are for other recordings.
        HardspikeError: a model or the recordings cannot be read, or do not fit each other.
    """
    paths = tuple(map(model_file, models))
    contents = [open_model(path) for path in paths]
    configs = [data_of((path, *paths), [content, *contents], name, folder)
               for path, content in zip(paths, contents, strict=True)]
    subjects = [_subject(path, content, config, samples)
                for path, content, config in zip(paths, contents, configs, strict=True)]
    for model, subject in zip(models, subjects, strict=True):
        if subject.key["recordings"] != subjects[0].key["recordings"]:
            first = vars(configs[0])
            different = [f"{key} {value} instead of {first[key]}" for key, value in vars(subject.config).items()
                         if value != first[key]]
            raise UsageError(f"{model}: is for other recordings than {models[0]} ({'; '.join(different)}); give each a "
                             "report of its own")
    return subjects


def _subject(path: Path, content: Checkpoint | nir.NIRGraph, config: DataConfig, samples: int) -> Subject:
    data = load_data(config)
    graph, refused, measured = content, "", path
    if isinstance(content, Checkpoint):
        if content.shape != data.shape:
            raise HardspikeError(f"{path}: takes frames {content.shape}, {config.name} gives {data.shape}")
        try:
            graph = frozen(content)
        except HardspikeError as error:
            graph, refused = None, str(error)
    if graph:  # the passes look there for recordings
        values = {key: str(value) if isinstance(value, Path) else value
                  for key, value in dataclasses.asdict(config).items()}
        silent = "data" not in graph.metadata
        graph.metadata["data"] = json.dumps(values)
        if graph is content and silent:
            measured = cached_file({"command": "report graph", "model": path, "data": values}, ".nir",
                                   lambda file: write(graph, file))
    return Subject(path, content, graph, refused, measured, config, data, data.test.spread(samples))
