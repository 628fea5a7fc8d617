"""`python -m eval calibrate`: thresholds and biases set after training (controls of SAST, table III)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nir
from torch import Tensor

from eval.accuracy import interval
from eval.calibrate.graph import scaled_graph, spiking_layers
from eval.calibrate.network import biased, scaled, search_global, search_layers, with_biases
from eval.models import calibrated, data_of, open_model, run_graph
from export.check import parity as parities
from export.formats.integers import CHIPS, chip_of
from export.formats.nir import output_path, write_graph
from hardspike import HardspikeError, UsageError, nearest, print_table
from targets.commands import load_target
from trainer import checkpoint as checkpoints
from trainer.checkpoint import Checkpoint
from trainer.data import Data, Split
from trainer.data import load as load_data
from trainer.evaluate import evaluate, one_standard_error_below

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
    model: Checkpoint | nir.NIRGraph
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


def calibrate(model: Path, kind: str | None = None, out: Path | None = None, samples: int = 512,
              name: str | None = None, path: Path | None = None, json: Path | None = None) -> list[dict]:
    """Set thresholds or biases of a trained network for hard spikes: what is cheaper than training for them.

    global: one multiplier on all thresholds; layers: one a layer; both by search on hard validation accuracy. bias: a
    constant current a channel in closed form, from training recordings, which makes the mean input of the hard network
    that of the smooth one; bias+layers: both. All is chosen on the training and validation parts and run on the test
    part once. Weights, and the rows of the network as it was trained, stay as they are.

    Args:
        model: checkpoint (.pt), best the last.pt of a smooth run; or graph (.nir), which has no smooth spikes: global
            and layers, in its chip's integers where it is quantised
        kind: global, layers, bias or bias+layers: only this one; default: all
        out: file for the calibrated model, of the same kind as MODEL: of those that the validation part cannot tell
            from the best (one standard error), the one with fewest searched, then fewest values; not written where
            that one leaves the network as it is
        samples: training recordings for the closed form
        name: data source, where a graph does not say it
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table and the values chosen

    Returns:
        a row for each: surrogate, hard (of a graph: its target), and the calibrated ones; `gap` is surrogate minus this
        row on the test part, `recovered` the share of the hard row's gap that is gone.
    """
    content = open_model(model)
    if out:
        output_path(model, out, model.suffix)
    if done := calibrated(content):
        raise UsageError(f"{model}: is{done.removeprefix(',')} already; start from the network as it was trained")
    if samples < 1:
        raise UsageError(f"samples {samples}: must be 1 or more")
    kinds = _kinds(model, content, kind)
    config = data_of((model,), [content], name, path)
    data = load_data(config)
    if isinstance(content, Checkpoint) and content.shape != data.shape:
        raise HardspikeError(f"{model}: takes frames {content.shape}, {config.name} gives {data.shape}")
    chosen = [choose(content, one, data, samples) for one in kinds]
    rows = _rows(content, chosen, data)
    title = f"{model}: calibrated on {len(data.validation)} validation recordings of {config.name}, " \
            f"tested once on {len(data.test)}"
    print_table(rows, title, json, {"data": config.name, "validation": len(data.validation), "test": len(data.test),
                                    "chosen": [calibration.values() for calibration in chosen]})
    if out:
        shares = {row["mode"]: row["validation %"] / 100 for row in rows}
        best = best_of(chosen, [shares[f"calibrated ({one.kind})"] for one in chosen], len(data.validation))
        if best.changes:
            _write(out, best, data)
        else:
            print(f"{out}: not written: the best of kind {best.kind} is {model} as it is")
    return rows


def choose(content: Checkpoint | nir.NIRGraph, kind: str, data: Data, samples: int = 512) -> Calibration:
    """One calibration, from the training and validation parts of `data`; its test part is not looked at.

    Raises:
        HardspikeError: a layer that this kind cannot calibrate, by its name.
    """
    if isinstance(content, Checkpoint):
        return _choose_network(content, kind, data, samples)
    layers = spiking_layers(content)
    target = chip_of(content)
    limits = CHIPS[target].LIMITS if target else None

    def change(factors: dict[str, float]) -> nir.NIRGraph:
        return scaled_graph(content, layers, factors, limits)

    factors = _search(kind, list(layers), lambda factors: _right(change(factors), data, data.validation))
    graph = change(factors)
    graph.metadata["calibration"] = kind
    searched = _count(kind, factors)
    return Calibration(kind, graph, searched, searched, factors, {})


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


def _choose_network(stored: Checkpoint, kind: str, data: Data, samples: int) -> Calibration:
    shifts: dict[str, Tensor] = {}
    if kind.startswith("bias"):
        stored = with_biases(stored)
        network, shifts = biased(stored.network, data, data.train.spread(samples).frames)
        stored = replace(stored, network=network)

    def change(factors: dict[str, float]) -> Checkpoint:
        return replace(stored, network=scaled(stored.network, factors))

    factors = {} if kind == "bias" else _search(kind, list(stored.network.neurons()),
                                                lambda factors: _right(change(factors), data, data.validation))
    searched = _count(kind, factors)
    found = Calibration(kind, change(factors), searched + sum(map(len, shifts.values())), searched, factors, shifts)
    found.model = replace(found.model, training=None, calibration=found.values())
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


def _kinds(model: Path, content: Checkpoint | nir.NIRGraph, kind: str | None) -> tuple[str, ...]:
    if kind and kind not in KINDS:
        raise UsageError(f"kind '{kind}' is unknown{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    if isinstance(content, Checkpoint):
        return (kind,) if kind else KINDS
    if kind and kind.startswith("bias"):
        raise UsageError(f"{model}: a graph holds no smooth spikes, whose means kind {kind} needs; calibrate the "
                         "checkpoint and export that, or take --kind global or layers")
    return (kind,) if kind else ("global", "layers")


def _right(content: Checkpoint | nir.NIRGraph, data: Data, part: Split, hard: bool = True) -> int:
    """Right answers of a model."""
    if isinstance(content, Checkpoint):
        logits = evaluate(content.network, data, part, hard).logits
    else:
        logits = run_graph(content, chip_of(content) or "reference", data, part)[0]
    return int((logits.argmax(1) == part.labels).sum())


def _rows(content: Checkpoint | nir.NIRGraph, chosen: list[Calibration], data: Data) -> list[dict]:
    network = isinstance(content, Checkpoint)
    parts = (data.validation, data.test)
    right = {"surrogate": [_right(content, data, part, hard=False) for part in parts]} if network else {}
    plain = "hard" if network else chip_of(content) or "reference"
    right[plain] = [_right(content, data, part) for part in parts]
    found = {f"calibrated ({one.kind})": one for one in chosen}
    right |= {mode: [_right(one.model, data, part) for part in parts] for mode, one in found.items()}
    rows, total = [], len(data.test)
    for mode, (validation, test) in right.items():
        low, high = interval(test, total)
        gap = 100 * (right["surrogate"][1] - test) / total if network and mode != "surrogate" else None
        wide = right["surrogate"][1] - right[plain][1] if network else 0
        one = found.get(mode)
        rows.append({"mode": mode, "values": one.parameters if one else None,
                     "searched": one.searched if one else None,
                     "validation %": 100 * validation / len(data.validation), "test %": 100 * test / total,
                     "low %": 100 * low, "high %": 100 * high, "gap": gap,
                     "recovered %": 100 * (test - right[plain][1]) / wide if one and wide > 0 else None,
                     "chosen": one.summary() if one else None})
    return rows


def _write(out: Path, best: Calibration, data: Data) -> None:
    """A checkpoint as it is, since its export checks it; a graph read back and compared, spike for spike."""
    if isinstance(best.model, Checkpoint):
        checkpoints.save(best.model, out)
        print(f"{out}: kind {best.kind}; `python -m export nir {out}` writes and checks its graph")
        return
    name = chip_of(best.model) or "reference"
    target = load_target(name)

    def same(written: nir.NIRGraph) -> parities.Parity:
        def chunk(frames: Tensor) -> parities.Parity:
            one, other = target.run(best.model, frames), target.run(written, frames)
            parities.require_same_output(out, one.output, other.output, 0.0)
            return parities.compare("the calibrated graph", name, one.spikes, other.spikes)
        return parities.in_chunks(data.to_input(data.validation.at(slice(CHECKED))), chunk)

    checked, report = write_graph(out, best.model, same)
    parities.announce(out, report, checked, None)
