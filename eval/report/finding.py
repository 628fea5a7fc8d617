"""What a report finds about one model, as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.energy.measure import Energies
from eval.mode import HARD, Mode
from eval.neurobench import NeuroBench
from eval.operations.measure import Operations
from eval.report.example import Example
from eval.report.layers import Layers
from eval.report.membranes import LayerMembranes
from eval.report.runs import Accuracy, Missing, Run
from eval.report.segments import Segments
from eval.report.timing import Timing
from eval.robustness.measure import Robustness

UNCHECKED = {"synapse_bits": "memory", "input_axons": "input axons", "output_axons": "output axons"}
"""Limits of a core, beside its neurons, that a chip may not publish: their names in `Limits`, and in words."""


@dataclass(frozen=True)
class LayerCores:
    """A layer on the cores of a chip.

    Args:
        layer, neurons, synapses, cores: its name, and how many.
        memory: bytes of its synapses,
        fullest: and those of its fullest core.
        usage: resource -> share of a core's limit in the fullest core, where that limit is public.
    """

    layer: str
    neurons: int
    synapses: int
    cores: int
    memory: float
    fullest: float
    usage: dict[str, float]


@dataclass(frozen=True)
class Excess:
    """A limit of a chip that a graph breaks.

    Args:
        where: the layer, with what leads on to the number; empty where all layers together break it.
        rule: what is counted.
        value: how many the graph takes, an estimate,
        most: and how many the chip holds.
    """

    where: str
    rule: str
    value: int
    most: int


@dataclass(frozen=True)
class Cores:
    """A graph on a chip.

    Args:
        chip: its name in words.
        layers: one a spiking layer.
        available: cores of the chip.
        picture: of its cores, SVG.
        violations: what it cannot hold, in words.
        excesses: those of `violations` that are numbers.
        unchecked: limits of a core that are not public, so that nothing was held against them.
    """

    chip: str
    layers: list[LayerCores]
    available: int
    picture: str
    violations: list[str]
    excesses: list[Excess] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def estimate(self) -> str:
        """What the number of cores rests on."""
        if not self.unchecked:
            return "an estimate"
        how = "counted by neurons alone" if len(self.unchecked) == len(UNCHECKED) else "an estimate"
        return f"{how} ({', '.join(self.unchecked)} of a core: not public, not checked)"

    @property
    def cores(self) -> int:
        """How many are filled."""
        return sum(layer.cores for layer in self.layers)

    @property
    def memory(self) -> float:
        """Bytes of synapses."""
        return sum(layer.memory for layer in self.layers)


@dataclass(frozen=True)
class Training:
    """What only a checkpoint knows of itself.

    Args:
        history: one dict an epoch.
        epoch: after which the weights were kept.
        hard: whether it saw hard spikes.
        theory: `trainer.analysis.theory.report`.
        config: of the run, as plain values.
    """

    history: list[dict[str, Any]]
    epoch: int
    hard: bool
    theory: dict[str, Any]
    config: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What the numbers say.

    Args:
        state: ready, not ready or open.
        headline: in one line.
        points: (good, bad or note, sentence) each.
        answers: (question, sentence) each: what its reader came for.
    """

    state: str
    headline: str
    points: Sequence[tuple[str, str]]
    answers: Sequence[tuple[str, str]] = ()


@dataclass
class Finding:
    """All about one model; what could not be had is None, and in `missing` with the reason.

    Args:
        label: short name.
        file: that was looked at.
        kind: of model, in words.
        sha256: of the file.
        parameters: how many.
        samples, steps, classes: of the recordings.
        labels: class of each recording; none where pixels are labelled.
        source: name of the data.
        runs: every mode.
        accuracy: of each run.
        deployed: the mode whose confusion is shown,
        confusion: recordings by class (row) and prediction (column).
        missing: what is.
        training: of a checkpoint.
        counted: recordings behind `operations` and `energy`.
        recordings: SHA-256 of the recordings with their labels.
        chip_graph: SHA-256 of the graph in integers that was made for the chip; None where none was made.
        margins: membranes of the graph that `layers` is about.
    """

    label: str
    file: str
    kind: str
    sha256: str
    parameters: int
    samples: int
    steps: int
    classes: int
    labels: list[int]
    source: str
    runs: list[Run]
    accuracy: list[Accuracy]
    deployed: Mode = HARD
    confusion: list[list[int]] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    training: Training | None = None
    membranes: list[LayerMembranes] | None = None
    segments: Segments | None = None
    example: Example | None = None
    corruptions: Robustness | None = None
    operations: list[Operations] | None = None
    energy: Energies | None = None
    cores: Cores | None = None
    layers: Layers | None = None
    margins: list[LayerMembranes] | None = None
    timings: list[Timing] | None = None
    neurobench: list[NeuroBench] | None = None
    counted: int = 0
    recordings: str = ""
    chip_graph: str | None = None
    verdict: Verdict = Verdict("open", "Not judged yet", ())
