"""A model as every command takes it: the folder of a run, a checkpoint or a NIR graph."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nir

from export.freeze import freeze
from export.options import Output
from export.passes.fold_batchnorm import fold_batchnorm
from hardspike import HardspikeError, UsageError, logger, versions
from targets import metadata
from targets.chips import chip_of
from targets.graph import assumed_step, read
from targets.target import Target
from trainer.checkpoint import Checkpoint, load
from trainer.config import from_dict, to_dict
from trainer.data import DataConfig

_log = logger(__name__)

KINDS = "the folder of a run, a checkpoint (.pt) or a NIR graph (.nir)"


@dataclass(frozen=True)
class Model:
    """An opened model.

    Args:
        path: its file.
        checkpoint: what a .pt file holds; None for a graph.
        given: what a .nir file holds; None for a checkpoint.
    """

    path: Path
    checkpoint: Checkpoint | None = None
    given: nir.NIRGraph | None = None

    @staticmethod
    def open(path: Path) -> "Model":
        """Open the best checkpoint of a run's folder, a checkpoint or a graph.

        Raises:
            UsageError: another kind of file.
            HardspikeError: it cannot be read.
        """
        file = model_file(path)
        if file.suffix == ".nir":
            return Model(file, given=read(file))
        if file.suffix == ".pt":
            return Model(file, load(file))
        raise UsageError(f"{path}: is no model; give {KINDS}")

    @property
    def trained(self) -> Checkpoint:
        """The checkpoint, of a model that is one."""
        assert self.checkpoint, self.path
        return self.checkpoint

    @functools.cached_property
    def graph(self) -> nir.NIRGraph:
        """The graph: as it was read, or the checkpoint's network frozen.

        Raises:
            HardspikeError: NIR cannot hold the network.
        """
        return self.given if self.given is not None else frozen(self.trained)

    @functools.cached_property
    def refused(self) -> str:
        """Why there is no graph; empty where there is one."""
        try:
            assert self.graph
            return ""
        except HardspikeError as error:
            return str(error)

    @functools.cached_property
    def chip(self) -> Target | None:
        """The chip that a quantised graph is for; None for floats."""
        return chip_of(self.given) if self.given is not None else None

    @functools.cached_property
    def data(self) -> DataConfig | None:
        """What it was trained on; None for a graph that does not say.

        Raises:
            UsageError: a graph was written by another version and has keys that this one does not know.
        """
        if self.checkpoint:
            return self.checkpoint.config.data
        values = metadata.data(self.given)
        return None if values is None else from_dict({"data": values}, str(self.path)).data

    @functools.cached_property
    def calibration(self) -> str | None:
        """The kind that it was calibrated by after training; None for a model as it was trained."""
        if self.checkpoint:
            return self.checkpoint.calibration["kind"] if self.checkpoint.calibration else None
        return metadata.calibration(self.given)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of its file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def float_graph(self) -> nir.NIRGraph:
        """`graph`, if it is one of floats.

        Raises:
            UsageError: it is quantised already.
            HardspikeError: NIR cannot hold the network.
        """
        if metadata.quantised(self.graph):
            raise UsageError(f"{self.path}: is quantised already; start from the float graph")
        return self.graph


def model_file(path: Path) -> Path:
    """The best checkpoint of a run's folder, or the file itself.

    Raises:
        HardspikeError: a folder without one.
    """
    if not path.is_dir():
        return path
    if not (path / "best.pt").is_file():
        raise HardspikeError(f"{path}: no run: it holds no best.pt; give {KINDS}")
    return path / "best.pt"


def frozen(checkpoint: Checkpoint, lossy_reset: bool = False, fold: bool = True) -> nir.NIRGraph:
    """The hard network of a checkpoint as a NIR graph, BatchNorm folded.

    Metadata: `dt`, `hardspike` (version), `data` (the frames it was trained on, as JSON), `readout`, and for a
    calibrated network `calibration` (its kind). A linear readout (SAST eq. 6) acts on time-averaged spikes; since it is
    linear it stands in the graph step by step, and the class is the argmax of the output summed over time, as it is for
    a spiking readout.
    """
    said = {"hardspike": versions("hardspike")["hardspike"], "readout": checkpoint.config.network.readout,
            "data": json.dumps(to_dict(checkpoint.config)["data"])}
    if checkpoint.calibration:
        said["calibration"] = checkpoint.calibration["kind"]
    graph = freeze(checkpoint.network, checkpoint.shape, said, lossy_reset)
    return fold_batchnorm(graph) if fold else graph


def output_path(model: Model, output: Output, suffix: str, default: str = "") -> Path:
    """The file to write: `output.out`, or the model's name with `default` or `suffix` for its own suffix.

    Raises:
        UsageError: it has not the format's suffix, or is the model itself.
    """
    out = output.out or model.path.with_name(model.path.stem + (default or suffix))
    if out.suffix != suffix:
        raise UsageError(f"{out}: is written as {suffix}; name it {out.with_suffix(suffix).name}")
    if out.resolve() == model.path.resolve():
        raise UsageError(f"{out}: is the model itself; give --out another name")
    return out


def say_step(model: Model, dt: float | None) -> None:
    """Say on standard error which time step is taken where neither the graph nor `dt` says it."""
    if said := assumed_step(model.graph, dt):
        _log.warning(f"{model.path}: {said}")
