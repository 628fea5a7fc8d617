"""What the zoo holds, and how one of its networks is had: trained anew, exported, checked, and held against what was
noted of it.

No weights are shipped: training is repeatable bit for bit on one machine, and the digest of the weights says whether
another machine got the same ones.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import nir
import numpy as np
from torch import Tensor

from export.formats.integers import write_integers
from export.formats.network_onnx import beyond_nir, network_parts
from export.formats.nir import write_model
from export.formats.onnx import write_onnx
from export.model import Model
from export.options import Output, Quantisation
from export.passes.rewrite import flatten
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, choice, from_values, parse_yaml, require_writable
from targets.graph.shapes import array
from targets.onnx.target import ONNXRUNTIME
from targets.recording import Recording, spikes_of_samples
from targets.table import TARGETS
from trainer.config import FitConfig, from_dict
from trainer.fit import fit

CHIP = "loihi2"
LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Noted:
    """What was measured of a network's file when the zoo was made, on all test recordings.

    Args:
        accuracy: on its target, in %,
        low: and the lower end of its 95 % interval (Clopper-Pearson).
        spikes: a recording.
        energy: nJ a recording by price table (estimates of arithmetic, and with data movement).
        sha256: of the weights and all other parameters.
    """

    accuracy: float
    low: float
    spikes: float
    energy: dict[str, float] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Args:
        name: by which it is had.
        about: what it is.
        fit: its configuration, as a file of `hardspike fit --config` has it.
        noted: what was measured of it; None before it was.
    """

    name: str
    about: str
    fit: dict[str, Any] = field(default_factory=dict)
    noted: Noted | None = None

    @property
    def target(self) -> str:
        """What its file runs on: Loihi 2's integers, or, of a network with attention, which no chip holds, ONNX."""
        return ONNXRUNTIME.name if self.config(Path()).network.counts else CHIP

    def config(self, out: Path) -> FitConfig:
        """The run that trains it into `out`; in one thread, since some sums hang on how many there are."""
        return replace(from_dict(self.fit, f"zoo {self.name}"), out=out, threads=1)


@dataclass(frozen=True)
class Got:
    """A network that was trained anew.

    Args:
        entry: which.
        file: its graph in integers, or its ONNX model.
        accuracy: in % there, on all test recordings.
        spikes: a recording.
        sha256: of its parameters.
    """

    entry: Entry
    file: Path
    accuracy: float
    spikes: float
    sha256: str

    @property
    def same(self) -> bool:
        """Whether it is the noted network, number for number."""
        return self.entry.noted is not None and self.entry.noted.sha256 == self.sha256


def entries() -> dict[str, Entry]:
    """Every network by its name."""
    file = files("export.zoo") / "networks.yaml"
    return {name: from_values(Entry, {"name": name, **values}, f"{file}: {name}")
            for name, values in parse_yaml(file.read_text(), str(file)).items()}


def get(name: str, folder: Path) -> Got:
    """Train a network of the zoo into `folder`, export it, checked spike for spike, and hold it against what was noted.

    It is written as NIR and in Loihi 2's integers; of a network with attention, its convolutional stages as NIR and the
    whole as ONNX.

    Raises:
        UsageError: there is no such network, or the folder holds a run already.
        HardspikeError: a check fails; or it is worse than what was noted can be by chance.
    """
    entry = entries()[choice("network", name, entries())]
    if (folder / "last.pt").exists():
        raise UsageError(f"{folder} holds a run already; choose another --out")
    require_writable(folder / "best.pt")
    found = fit(entry.config(folder))
    model = Model.open(found.best)
    got = _with_attention(entry, model) if beyond_nir(model.trained.network) else _in_integers(entry, model)
    if entry.noted and got.accuracy < entry.noted.low:
        raise HardspikeError(f"{got.file}: {got.accuracy:.1f} % on {entry.target}, where {entry.noted.accuracy:.1f} % "
                             f"were noted and at least {entry.noted.low:.1f} % are to be expected; please report this "
                             "machine")
    return got


def _in_integers(entry: Entry, model: Model) -> Got:
    """Written as NIR and for its chip, and run there on all test recordings."""
    if model.integers:
        file = model.path.with_name(f"best.{CHIP}-int{model.integers.bits}.nir")
        write_model(model, Output(file), 0, Recordings())
    else:
        write_model(model, Output(), 0, Recordings())
        file = model.path.with_name(f"best.{CHIP}-int8.nir")
        write_integers(model, Output(file), Quantisation(CHIP, 8), 0, Recordings())
    graph = Model.open(file).graph
    frames, labels = _test_part(model)
    return _got(entry, file, TARGETS[CHIP].run_in_chunks(graph, frames, layers=()), labels, flatten(graph).nodes)


def _with_attention(entry: Entry, model: Model) -> Got:
    """Its convolutional stages written as NIR and the whole as ONNX, which is run on all test recordings."""
    write_model(model, Output(), 0, Recordings(), convolutions=True)
    file = model.path.with_suffix(".onnx")
    write_onnx(model, Output(file), None, 0, Recordings())
    frames, labels = _test_part(model)
    run = ONNXRUNTIME.files.run(file, frames)
    run.counts = spikes_of_samples(run.spikes)
    return _got(entry, file, run, labels, network_parts(model.trained, None).weights.nodes)


def _test_part(model: Model) -> tuple[Tensor, Tensor]:
    """Frames (T, B, ...) and labels of all test recordings."""
    frames, labels = Recordings().part("test", 0, model)
    assert labels is not None  # digits have classes
    return frames, labels


def _got(entry: Entry, file: Path, run: Recording, labels: Tensor, nodes: Mapping[str, nir.NIRNode]) -> Got:
    """Accuracy and spikes of a run of the file."""
    right = (run.predictions() == labels).double().mean().item()
    spikes = sum(int(counts.sum()) for counts in run.counts.values()) / len(labels)
    return Got(entry, file, 100 * right, spikes, digest(nodes))


def digest(nodes: Mapping[str, nir.NIRNode]) -> str:
    """SHA-256 of all numbers of a graph's nodes, by name; of neither metadata nor how the file stores them."""
    found = hashlib.sha256()
    for name, node in sorted(nodes.items()):
        for key, value in sorted(vars(node).items()):
            if key not in ("input_type", "output_type", "metadata") and value is not None and np.size(value):
                numbers = np.ascontiguousarray(array(value), np.float64)
                found.update(f"{name}.{key} {numbers.shape} ".encode() + numbers.tobytes())
    return found.hexdigest()
