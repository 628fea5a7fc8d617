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
from export.nir_file import frozen
from export.quantise_file import chip_of, quantised
from hardspike import HardspikeError
from targets.graph import read, write
from trainer.checkpoint import Checkpoint
from trainer.data import Data, Split
from trainer.data import load as load_data

SCALE_SAMPLES = 128
"""Training recordings to choose scales on, as many as `python -m export quantise` takes."""


@dataclass(frozen=True)
class Subject:
    """One model of a report.

    Args:
        path: its file.
        content: what is in it.
        graph: the graph that is exported from it, or the graph itself; None where NIR cannot hold the network.
        refused: why there is no graph.
        source: name of its data.
        data: all of it.
        part: the test recordings that the report is about.
        name: data source, where the caller chose it.
        folder: folder of the recordings, where the caller chose it.
    """

    path: Path
    content: Checkpoint | nir.NIRGraph
    graph: nir.NIRGraph | None
    refused: str
    source: str
    data: Data
    part: Split
    name: str | None
    folder: Path | None

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
        return {"model": self.path, "recordings": fingerprint(self.part.frames, self.part.labels, self.data.scale)}

    def integer(self, target: str, bits: int) -> Path:
        """The file of its graph in integers for a chip.

        Raises:
            HardspikeError: the chip cannot hold it.
        """
        key = {"command": "report quantise", "target": target, "bits": bits, "scale": "searched",
               "model": self.path, "training": fingerprint(self.data.train.frames)}
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


def open_subject(model: Path, samples: int, name: str | None, folder: Path | None) -> Subject:
    """Open a run, checkpoint or graph and the test recordings to look at it with, evenly spread; `samples` 0: all.

    Raises:
        UsageError: the model does not say what data it is for, and `name` is not given.
        HardspikeError: the model or the recordings cannot be read, or do not fit each other.
    """
    path = model_file(model)
    content = open_model(path)
    config = data_of((path,), [content], name, folder)
    data = load_data(config)
    graph, refused = content, ""
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
        graph.metadata["data"] = json.dumps(values)
    return Subject(path, content, graph, refused, config.name, data, data.test.spread(samples), name, folder)
