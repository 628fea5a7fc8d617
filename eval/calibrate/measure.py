"""Thresholds and biases set after training for hard spikes (controls of SAST, table III): what is cheaper than
training for them.

global: one multiplier on all thresholds; layers: one a layer; both by search on hard validation accuracy. bias: a
constant current a channel in closed form, from training recordings, which makes the mean input of the hard network that
of the smooth one; bias+layers: both. Weights stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from eval.calibrate.graph import scaled_graph, spiking_layers
from eval.calibrate.network import biased, scaled, search_global, search_layers, with_biases
from eval.mode import SURROGATE, Mode
from eval.statistics import interval
from eval.subject import Subject
from export.check import parity as parities
from export.formats.nir import write_graph
from export.model import Model
from hardspike import UsageError, choice
from targets import metadata
from targets.chips import limits_of
from targets.graph import Graph
from targets.reference import REFERENCE
from trainer import checkpoint as checkpoints
from trainer.evaluate import one_standard_error_below
from trainer.neurons.levels import require_one_threshold

KINDS = ("global", "layers", "bias", "bias+layers")
CHECKED = 256
"""Validation recordings that a calibrated graph is checked on after writing."""


@dataclass
class Calibration:
    """A calibrated model.

    Args:
        kind: one of KINDS.
        model: what it gave.
        parameters: how many values were chosen,
        searched: and how many of them by search on the validation part.
        multipliers: of the thresholds, layer -> factor.
        shifts: of the biases, layer -> (channels,).
    """

    kind: str
    model: Model
    parameters: int
    searched: int
    multipliers: dict[str, float]
    shifts: dict[str, Tensor]

    def values(self) -> dict:
        """What was chosen, as plain values."""
        return {"kind": self.kind, "parameters": self.parameters, "multipliers": self.multipliers,
                "shifts": {layer: shift.tolist() for layer, shift in self.shifts.items()}}

    @property
    def changes(self) -> bool:
        """Whether it gave another network than it was given."""
        return any(factor != 1 for factor in self.multipliers.values()) or any(
            bool(shift.any()) for shift in self.shifts.values())

    def summary(self) -> str:
        """What was chosen, in a few words."""
        shifts = [f"{layer} {shift.min():+.3f}..{shift.max():+.3f}" for layer, shift in self.shifts.items()]
        factors = sorted(set(self.multipliers.values()))
        if self.kind == "global":
            return f"all x{factors[0]:.3f}"
        return ", ".join(shifts + [f"{layer} x{factor:.3f}" for layer, factor in self.multipliers.items()])


@dataclass(frozen=True)
class CalibrationRow:
    """A model in one mode, before or after a calibration.

    Args:
        mode: how it ran; its calibration is that of this row.
        calibration: what was chosen; None for the model as it was trained.
        validation: accuracy there, in [0, 1], on which multipliers were chosen,
        test: and on the test part, which was looked at once.
        low, high: where the true test accuracy lies (Clopper-Pearson, 95 %).
        gap: surrogate minus this row on the test part, in [-1, 1]; None for a graph, which has no smooth spikes.
        recovered: share of the hard row's gap that is gone; None where there is none.
        epoch: after which the weights were kept; None for a graph.
    """

    mode: Mode
    calibration: Calibration | None
    validation: float
    test: float
    low: float
    high: float
    gap: float | None
    recovered: float | None
    epoch: int | None


def measure(subject: Subject, kinds: tuple[str, ...], samples: int = 512) -> list[CalibrationRow]:
    """A model as it is and after each of `kinds`, chosen on the training and validation parts, tested once.

    Args:
        kinds: of KINDS, see `kinds_of`.
        samples: training recordings for the closed form; 0 for all.

    Raises:
        HardspikeError: a layer that a kind cannot calibrate, by its name.
    """
    for part in (subject.data.train, subject.data.validation, subject.data.test):
        assert len(subject.on(part).labels)  # raises where they are not known or do not fit
    chosen = [choose(subject, kind, samples) for kind in kinds]
    plain = {mode: replace_model(subject, subject.model) for mode in subject.modes()}
    right = {mode: (_right(one, mode, "validation"), _right(one, mode, "test")) for mode, one in plain.items()}
    base = list(right)[-1]  # hard, or where the graph runs
    found: dict[Mode, Calibration] = {}
    for one in chosen:
        calibrated = replace_model(subject, one.model)
        mode = calibrated.modes()[-1]
        found[mode] = one
        right[mode] = _right(calibrated, mode, "validation"), _right(calibrated, mode, "test")
    total, checks = len(subject.data.test), len(subject.data.validation)
    smooth = right.get(SURROGATE)
    wide = smooth[1] - right[base][1] if smooth else 0
    return [CalibrationRow(
        mode, found.get(mode), validation / checks, test / total, *interval(test, total),
        (smooth[1] - test) / total if smooth and not mode.smooth else None,
        (test - right[base][1]) / wide if mode in found and wide > 0 else None, subject.epoch)
        for mode, (validation, test) in right.items()]


def kinds_of(model: Model, kind: str | None = None) -> tuple[str, ...]:
    """`kind`, or all that a model can have.

    Raises:
        UsageError: an unknown kind, or one that a graph cannot have; the model is calibrated already.
    """
    if model.calibration:
        raise UsageError(f"{model.path}: is calibrated ({model.calibration}) already; start from the network as it was "
                         "trained")
    if kind:
        choice("kind", kind, KINDS)
    if model.checkpoint:
        return (kind,) if kind else KINDS
    if kind and kind.startswith("bias"):
        raise UsageError(f"{model.path}: a graph holds no smooth spikes, whose means kind {kind} needs; calibrate the "
                         "checkpoint and export that, or take --kind global or layers")
    return (kind,) if kind else ("global", "layers")


def refuse_integers(model: Model) -> None:
    """Thresholds of a network that was trained in integers are not to be moved in floats.

    Raises:
        UsageError: it is one.
    """
    if model.integers:
        graph = "" if model.refused else "the graph that `hardspike export nir` makes of it, or "
        raise UsageError(f"{model.path}: was trained in integers, hard spikes and all; calibrate {graph}the network in "
                         "floats")


def choose(subject: Subject, kind: str, samples: int = 512) -> Calibration:
    """One calibration, from the training and validation parts of the data; its test part is not looked at.

    Raises:
        UsageError: the network was trained in integers.
        HardspikeError: a layer that this kind cannot calibrate, by its name.
    """
    refuse_integers(subject.model)
    if subject.model.checkpoint:
        return _choose_network(subject, kind, samples)
    model = subject.model
    layers = spiking_layers(model.graph)
    limits = limits_of(model.chip) if model.chip else None

    def change(factors: dict[str, float]) -> Model:
        return replace(model, given=scaled_graph(model.graph, layers, factors, limits))

    factors = _search(kind, list(layers), lambda factors: _score(subject, change(factors)))
    searched = _count(kind, factors)
    marked = metadata.with_calibration(change(factors).graph, kind)
    return Calibration(kind, replace(model, given=marked), searched, searched, factors, {})


def best_of(chosen: list[Calibration], shares: list[float], samples: int) -> Calibration:
    """The calibration to keep: within one standard error of the best validation accuracy, the one with fewest searched
    values, since a search fits the validation part and the closed form does not; then with fewest values, then the
    best.

    Args:
        shares: validation accuracy of each, in [0, 1], on `samples` recordings.
    """
    enough = one_standard_error_below(max(shares), samples)
    able = [(one, share) for one, share in zip(chosen, shares, strict=True) if share >= enough]
    return min(able, key=lambda pair: (pair[0].searched, pair[0].parameters, -pair[1]))[0]


def _choose_network(subject: Subject, kind: str, samples: int) -> Calibration:
    shifts: dict[str, Tensor] = {}
    model, data = subject.model, subject.data
    require_one_threshold(model.trained.network.neurons(), "calibration")
    if kind.startswith("bias"):
        stored = with_biases(model.trained)
        network, shifts = biased(stored.network, data, data.train.spread(samples).frames)
        model = replace(model, checkpoint=replace(stored, network=network))

    def change(factors: dict[str, float]) -> Model:
        return replace(model, checkpoint=replace(model.trained, network=scaled(model.trained.network, factors)))

    factors = {} if kind == "bias" else _search(kind, list(model.trained.network.neurons()),
                                                lambda factors: _score(subject, change(factors)))
    searched = _count(kind, factors)
    found = Calibration(kind, change(factors), searched + sum(map(len, shifts.values())), searched, factors, shifts)
    stored = replace(found.model.trained, training=None, calibration=found.values())
    found.model = replace(found.model, checkpoint=stored)
    return found


def _search(kind: str, layers: list[str], score: Callable[[dict[str, float]], int]) -> dict[str, float]:
    """The multipliers of a kind; no candidate is run twice."""
    seen: dict[tuple, int] = {}

    def once(factors: dict[str, float]) -> int:
        key = tuple(factors.values())
        if key not in seen:
            seen[key] = score(factors)
        return seen[key]

    return (search_global if kind == "global" else search_layers)(layers, once)


def _count(kind: str, factors: dict[str, float]) -> int:
    return 1 if kind == "global" else len(factors)


def replace_model(subject: Subject, model: Model) -> Subject:
    """Another model on the same recordings."""
    return replace(subject, model=model)


def _score(subject: Subject, model: Model) -> int:
    """Right answers of a candidate on the validation part, with hard spikes."""
    candidate = replace_model(subject, model)
    return _right(candidate, candidate.modes()[-1], "validation")


def _right(subject: Subject, mode: Mode, split: str) -> int:
    """Right answers of a model in a mode."""
    result = subject.on(getattr(subject.data, split)).evaluate(mode)
    return int(result.hits.sum())


# ------------------------------------------------------------------------------------------------- writing


def best(rows: list[CalibrationRow], samples: int) -> Calibration:
    """The calibration of those rows to keep, `best_of` on `samples` validation recordings."""
    chosen = [(row.calibration, row.validation) for row in rows if row.calibration]
    return best_of([one for one, _ in chosen], [share for _, share in chosen], samples)


def write(out: Path, calibration: Calibration, subject: Subject) -> tuple[parities.Parity | None, Path] | None:
    """A checkpoint as it is, since its export checks it; a graph read back and compared, spike for spike.

    Returns:
        what the check of a graph saw, and the path of its report.

    Raises:
        HardspikeError: the file cannot be written, or a spike differs.
    """
    if calibration.model.checkpoint:
        checkpoints.save(calibration.model.checkpoint, out)
        return None
    graph = calibration.model.graph
    target = calibration.model.chip or REFERENCE
    data = subject.data

    def same(written: Graph) -> parities.Parity:
        def chunk(frames: Tensor) -> parities.Parity:
            one, other = target.run(graph, frames), target.run(written, frames)
            parities.require_same_output(out, one.output, other.output, 0.0)
            return parities.compare("the calibrated graph", target.name, one.spikes, other.spikes)
        return parities.in_chunks(data.to_input(data.validation.at(slice(CHECKED))), chunk)

    return write_graph(out, graph, same)
