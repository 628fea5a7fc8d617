"""A model as every command takes it: the folder of a run, a checkpoint or a NIR graph."""

import functools
import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import nir

from export import foreign
from export.freeze import freeze
from export.freeze.integers import integer_graph
from export.options import Output
from export.passes.fold_batchnorm import fold_batchnorm
from hardspike import HardspikeError, UsageError, about, check_suffix, logger, require_writable, versions
from targets import metadata
from targets.chips import chip, chip_of
from targets.graph import assumed_step, ends, is_row, plan, read
from targets.target import Target
from trainer.checkpoint import Checkpoint, load
from trainer.config import from_dict, to_dict
from trainer.data import DataConfig
from trainer.networks.integers import IntegerNetwork, Integers

_log = logger(__name__)

KINDS = "the folder of a run, a checkpoint (.pt) or a NIR graph (.nir)"


@dataclass(frozen=True)
class Model:
    """An opened model.

    Args:
        path: its file.
        checkpoint: what a .pt file holds; None for a graph.
        given: what a .nir file holds; None for a checkpoint.
        begun: the checkpoint that a network's training began from, where it did.
    """

    path: Path
    checkpoint: Checkpoint | None = None
    given: nir.NIRGraph | None = None
    begun: Path | None = None

    @staticmethod
    def open(path: Path) -> "Model":
        """Open the best checkpoint of a run's folder, a checkpoint or a graph.

        Raises:
            UsageError: another kind of file.
            HardspikeError: it is missing or cannot be read.
        """
        file = model_file(path)
        if not file.exists() or file.suffix not in (".nir", ".pt"):
            raise foreign.refuse(path, KINDS)
        if file.suffix == ".nir":
            return Model(file, given=read(file))
        try:
            return Model(file, load(file))
        except HardspikeError as error:
            if foreign.of_fit(file):
                raise
            raise HardspikeError(f"{error}; {foreign.weights_of_your_own()}") from error

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
        if self.given is not None:
            return self.given
        with about(self.path):
            return frozen(self.trained)

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
        """The chip that a quantised graph is for, or a network was trained for; None for floats."""
        with about(self.path):
            if self.integers:
                return chip(self.integers.target)
            return chip_of(self.given) if self.given is not None else None

    @property
    def integers(self) -> Integers | None:
        """How a checkpoint's network is in a chip's integers; None for floats, and for a graph."""
        network = self.checkpoint.network if self.checkpoint else None
        return network.integers if isinstance(network, IntegerNetwork) and network.exact else None

    def deployed(self) -> "Model":
        """A network that was trained in integers as its graph, where that is all of it; any other model as it is."""
        if not self.integers or self.trained.network.host:
            return self
        return replace(self, checkpoint=None, given=self.graph, begun=self.trained.config.from_)

    @functools.cached_property
    def data(self) -> DataConfig | None:
        """What it was trained on; None for a graph that does not say.

        Raises:
            UsageError: a graph was written by another version and has keys that this one does not know.
        """
        if self.checkpoint:
            return self.checkpoint.config.data
        with about(self.path):
            values = metadata.data(self.given)
        return None if values is None else from_dict({"data": values}, str(self.path)).data

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the frames that it takes, without time."""
        return self._ends[0]

    @functools.cached_property
    def outputs(self) -> int:
        """How many classes it tells apart.

        Raises:
            HardspikeError: it gives a picture, of which none is a class.
        """
        given = self._ends[1]
        if not is_row(given):
            raise HardspikeError(f"{self.path}: its Output is a picture {given}, no row of classes: an accuracy is of "
                                 "the whole network, so give the run; `hardspike eval operations` counts spikes")
        return math.prod(given)

    @functools.cached_property
    def _ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.checkpoint:
            return tuple(self.checkpoint.shape), (self.checkpoint.classes,)
        with about(self.path):
            taken, given = ends(self.graph)
        return tuple(taken), tuple(given)

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
    """The hard network of a checkpoint as a NIR graph, BatchNorm folded; of one trained in integers, these.

    Metadata: `dt`, `hardspike` (version), `data` (the frames it was trained on, as JSON), `readout`, and for a
    calibrated network `calibration` (its kind). A linear readout (SAST eq. 6) acts on time-averaged spikes; since it is
    linear it stands in the graph step by step, and the class is the argmax of the output summed over time, as it is for
    a spiking readout.
    """
    said = {"hardspike": versions("hardspike")["hardspike"], "readout": checkpoint.network.readout,
            "data": json.dumps(to_dict(checkpoint.config)["data"])}
    if checkpoint.calibration:
        said["calibration"] = checkpoint.calibration["kind"]
    if isinstance(checkpoint.network, IntegerNetwork):
        if lossy_reset:
            raise UsageError("lossy_reset: the network was trained in integers with its own reset, which a chip holds; "
                             "leave it out")
        return integer_graph(checkpoint.network, checkpoint.shape, said)
    graph = freeze(checkpoint.network, checkpoint.shape, said, lossy_reset)
    return fold_batchnorm(graph) if fold else graph


def output_path(model: Model, output: Output, suffix: str, default: str = "") -> Path:
    """The file to write: `output.out`, or the model's name with `default` or `suffix` for its own suffix.

    Raises:
        UsageError: it has not the format's suffix, or is the model itself.
        HardspikeError: it, or the report beside it, cannot be written.
    """
    out = output.out or model.path.with_name(model.path.stem + (default or suffix))
    check_suffix(out, suffix)
    if out.resolve() == model.path.resolve():
        raise UsageError(f"{out}: is the model itself; give --out another name")
    require_places(output, out, report_path(out))
    return out


def require_places(output: Output, *files: Path) -> None:
    """Try the places of all `files` that will be written beside the table of `output`.

    Raises:
        UsageError: the table would lie over one of them.
        HardspikeError: one cannot be written.
    """
    for file in files:
        require_writable(file)
        if output.json and output.json.resolve() == file.resolve():
            raise UsageError(f"--json {output.json}: is written by this command already; give another name")


def report_path(model: Path) -> Path:
    """`MODEL.parity.json`: what the check of a written file saw."""
    return model.with_name(f"{model.name}.parity.json")


def say_step(model: Model, dt: float | None) -> None:
    """Say on standard error which time step is taken where neither the graph nor `dt` says it.

    Raises:
        HardspikeError: the graph does not run with that step.
    """
    with about(model.path):
        plan(model.graph, dt)
        said = assumed_step(model.graph, dt)
    if said:
        _log.warning(f"{model.path}: {said}")
