"""A graph layer by layer: what each costs, how near its membranes are to the threshold, and what is lost when that
layer alone has coarser or noisy weights, loses spikes or is silent.

Losses are points of accuracy against the same graph undisturbed on the same recordings. In a chain a silent layer
leaves nothing to read; where a shortcut leads past it, what is lost says what the layer is for.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from eval.cache import cached
from eval.energy.measure import total
from eval.energy.price_tables import PriceTable
from eval.operations.measure import Operations
from eval.robustness.faults import Classify, hidden_layers, spike_deletion, weight_noise, with_spikes, with_weights
from eval.statistics import sign_test
from eval.subject import Subject, batch, modes, weight_bits
from hardspike import HardspikeError, progress
from hardspike.grid import least_error, rounded
from targets.graph import LINEAR, plan
from targets.loihi.layers import split

SEVERITY = 0.1
"""Of the noise on weights (standard deviation, parts of the largest), and share of the spikes that are lost."""
READOUT = "readout"
"""What the host computes behind the last spikes."""


@dataclass(frozen=True)
class Loss:
    """What a disturbance of one layer costs.

    Args:
        disturbance: in words.
        points: of accuracy; None where the layer cannot have it.
        lost: recordings that only the undisturbed graph has right,
        won: and only the disturbed one.
    """

    disturbance: str
    points: float | None
    lost: int = 0
    won: int = 0

    @property
    def p(self) -> float:
        """Of the exact McNemar test against the undisturbed graph."""
        return sign_test(self.lost, self.won)


@dataclass(frozen=True)
class LayerCost:
    """One layer of neurons with the weights that lead to it; or the host's readout.

    Args:
        layer: of neurons, by name.
        weights: the linear nodes that feed it.
        neurons, spikes, synops: spikes and synaptic operations of one recording; no neurons, no spikes.
        energy: table -> nJ a recording; None where the table does not price all that is counted.
        losses: one a disturbance.
    """

    layer: str
    weights: tuple[str, ...]
    neurons: int | None
    spikes: float | None
    synops: float
    energy: dict[str, float | None] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class Layers:
    """All layers of a graph.

    Args:
        layers: in order.
        samples: recordings behind losses,
        accuracy: of the undisturbed graph on them, in [0, 1].
        counted: recordings behind the counts.
    """

    layers: list[LayerCost]
    samples: int
    accuracy: float
    counted: int


def measure(subject: Subject, run: Operations, tables: list[PriceTable]) -> Layers:
    """Every layer of a graph, disturbed on the recordings of `subject`.

    Args:
        subject: a graph; it runs in its chip's integers, or on `reference`.
        run: its operations.
        tables: of prices.

    Raises:
        HardspikeError: a part of the graph is no layer of neurons.
    """
    key = {"command": "report layers", **subject.key}
    groups = _groups(subject)
    stored = cached(key, lambda: _disturb(subject, groups))
    found = []
    for layer, weights in groups.items():
        own = [one for one in run.counts.layers if one.layer == layer or one.layer in weights]
        part = replace(run, counts=replace(run.counts, layers=tuple(own)), traffic=())
        each = part.counts.samples
        fires = layer != READOUT
        found.append(LayerCost(
            layer, weights, part.counts.total("neurons") if fires else None,
            part.counts.total("spikes") / each if fires else None, part.counts.total("synops") / each,
            {table.name: total(part, table) for table in tables},
            tuple(Loss(**loss) for loss in stored["losses"][layer])))
    return Layers(found, stored["samples"], stored["accuracy"], run.counts.samples)


def _groups(subject: Subject) -> dict[str, tuple[str, ...]]:
    """Layer -> the linear nodes that feed it; the readout's last, where the host has one."""
    network = split(plan(subject.model.graph))
    found = {name: tuple(connection.linear for connection in layer.connections)
             for name, layer in network.layers.items()}
    host = tuple(name for name in network.readout if isinstance(network.plan.nodes[name], LINEAR))
    return found | ({READOUT: host} if host else {})


def _disturb(subject: Subject, groups: dict[str, tuple[str, ...]]) -> dict:
    """Accuracy, and what each disturbance of each layer takes of it."""
    model, mode = subject.model, modes(subject.model)[-1]
    clean = _right(subject, with_weights(model, mode, lambda weight, _: weight))
    bits = max(2, (weight_bits(model) or 8) // 2)
    losses: dict[str, list[dict]] = {}
    for layer, weights in progress(groups.items(), "layers"):
        losses[layer] = []
        for words, classify in _disturbances(subject, layer, weights, bits):
            losses[layer].append(asdict(Loss(words, None) if classify is None else
                                        _loss(words, clean, _right(subject, classify))))
    return {"losses": losses, "samples": len(subject.part), "accuracy": sum(clean) / len(clean)}


def _loss(words: str, clean: list[bool], disturbed: list[bool]) -> Loss:
    """What a disturbance costs, from which recordings are right without and with it, (N,) each."""
    pairs = list(zip(clean, disturbed, strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return Loss(words, 100 * (lost - won) / len(pairs), lost, won)


def _disturbances(subject: Subject, layer: str, weights: tuple[str, ...],
                  bits: int) -> Iterator[tuple[str, Classify | None]]:
    """What is done to a layer, in words, and the model with it; None where its spikes cannot get lost: within a loop,
    and behind the last layer, which nobody hears."""
    model, mode = subject.model, modes(subject.model)[-1]

    def of_weights(change: Callable[[Tensor, str], Tensor]) -> Classify:
        return with_weights(model, mode, lambda weight, name: change(weight, name) if name in weights else weight)

    def of_spikes(severity: float) -> Classify:
        return with_spikes(model, mode, lambda spikes, name, ids: spike_deletion(
            spikes, name, ids, severity, 0) if name == layer else spikes)

    yield f"weights of {bits} bits", of_weights(lambda weight, _: coarse(weight, bits))
    yield f"noise of {100 * SEVERITY:g} %", of_weights(lambda weight, name: weight_noise(weight, name, SEVERITY, 0))
    try:
        heard = layer in hidden_layers(model.graph)
    except HardspikeError:  # a loop
        heard = False
    yield f"{100 * SEVERITY:g} % of spikes lost", of_spikes(SEVERITY) if heard else None
    yield "silent", of_spikes(1.0) if heard else None


def coarse(weight: Tensor, bits: int) -> Tensor:
    """A layer's weights rounded to `bits`, on the grid that changes them least."""
    values, levels = weight.numpy().astype(np.float64), 2 ** (bits - 1) - 1
    if not values.any():
        return weight
    scale = least_error(values, 1, levels)
    return torch.from_numpy(rounded(values, scale, 1, levels) / scale).to(weight)


def _right(subject: Subject, classify: Classify) -> list[bool]:
    """Which recordings are classified rightly."""
    mode, part = modes(subject.model)[-1], subject.part
    right: list[bool] = []
    size = batch(mode, len(part))
    for start in range(0, len(part), size):
        some = slice(start, start + size)
        logits = classify(subject.given(part.at(some), mode), part.ids[some])
        right += (logits.argmax(1) == subject.labels[some]).tolist()
    return right
