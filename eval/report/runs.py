"""One model on every target: predictions, spikes, and whose spikes equal whose, all from the same run."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import torch
from scipy.stats import binomtest
from torch import Tensor

from eval.accuracy import interval
from eval.cache import cached
from eval.calibrate.command import choose
from eval.models import calibrated, modes
from eval.parity import lava
from eval.report.subject import Subject
from export.check.parity import CHUNK
from export.formats.integers import CHIPS
from hardspike import HardspikeError, UsageError, progress
from targets.commands import load_target
from trainer.checkpoint import Checkpoint

CALIBRATIONS = ("global", "bias")
"""Kinds of `eval calibrate` that cost seconds."""
Give = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Run:
    """What one model did in one mode on all recordings.

    Args:
        mode: surrogate, hard, or the target, with the bits of a weight.
        graph: which network ran: smooth, float, or bits and chip; runs of one graph have to give the same spikes.
        predictions: class of each recording.
        spikes: layer -> spikes a recording.
        differs: other mode -> spikes that differ, over all recordings.
    """

    mode: str
    graph: str
    predictions: list[int] = field(default_factory=list)
    spikes: dict[str, float] = field(default_factory=dict)
    differs: dict[str, int] = field(default_factory=dict)


def check_targets(words: str) -> tuple[str, ...]:
    """The names of targets in `words`, joined by commas.

    Raises:
        UsageError: one is not known, or there is none.
    """
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        load_target(name)
    if not names:
        raise UsageError("targets are missing; name at least one, such as reference,loihi2")
    return names


def all_runs(subject: Subject, targets: tuple[str, ...], bits: tuple[int, ...]) -> tuple[list[Run], list[str]]:
    """Every mode of a model on its recordings, and why a mode is missing.

    A checkpoint runs with surrogate and hard spikes, its graph on the float `targets`, in integers of each of `bits`
    on the chips among them, and the integers of the first one on `onnxruntime` and `lava`, too.
    """
    key = {"command": "report runs", **subject.key, "chosen on": subject.chosen_on, "targets": targets, "bits": bits}

    def compute() -> list:
        missing: list[str] = []
        found = list(_modes(subject, targets, bits, missing))
        return [[asdict(run) for run in _measure(subject, found)], missing]

    runs, missing = cached(key, compute)
    return [Run(**run) for run in runs], missing


def _modes(subject: Subject, targets: tuple[str, ...], bits: tuple[int, ...],
           missing: list[str]) -> Iterator[tuple[str, str, Give]]:
    """(mode, graph, what runs it); reasons for what cannot run go to `missing`."""
    if isinstance(subject.content, Checkpoint):
        for mode in modes(subject.path, subject.content):
            yield mode.mode, "smooth" if mode.mode == "surrogate" else "float", mode.run
        yield from _calibrated(subject, missing)
    if subject.graph is None:
        missing.append(f"Targets: {subject.refused}")
        return
    floats = [target for target in targets if target not in CHIPS and target != "lava"]
    if subject.chip:
        chips, bits = [subject.chip], (0,)
    else:
        chips = [target for target in targets if target in CHIPS]
        for target in floats:
            yield target, "float", _on(target, subject.graph)
    for chip in chips:
        for width in bits:
            label = f"{width} bits" if width else "integers"
            try:
                graph = subject.integer_graph(chip, width) if width else subject.graph
            except HardspikeError as error:
                missing.append(f"{chip}, {label}: {error}")
                break
            name = f"{chip}, {label}"
            yield name, name, _on(chip, graph)
            if width == bits[0] and "onnxruntime" in targets:
                yield f"onnxruntime of {name}", name, _on("onnxruntime", graph)
            if width == bits[0] and "lava" in targets:
                yield f"lava of {name}", name, lambda frames, graph=graph: _given(lava(graph, frames))


def _calibrated(subject: Subject, missing: list[str]) -> Iterator[tuple[str, str, Give]]:
    """The hard network after each of `CALIBRATIONS`, where it was trained with smooth spikes."""
    stored = subject.content
    if trained_hard(stored):
        missing.append("Calibration: the network was trained with hard spikes already")
        return
    if done := calibrated(stored):
        missing.append(f"Calibration: the checkpoint is{done.removeprefix(',')} already")
        return
    for kind in progress(CALIBRATIONS, "calibrations"):
        try:
            found = choose(stored, kind, subject.data).model
        except HardspikeError as error:
            missing.append(f"Calibration ({kind}): {error}")
            continue
        name = f"calibrated ({kind})"
        yield name, name, modes(subject.path, found)[-1].run


def trained_hard(stored: Checkpoint) -> bool:
    """Whether a network saw hard spikes in training."""
    return next(iter(stored.network.neurons().values())).hard


def _on(target: str, graph) -> Give:
    module = load_target(target)
    return lambda frames: _given(module.run(graph, frames))


def _given(recording) -> tuple[Tensor, dict[str, Tensor]]:
    return recording.output.sum(0).flatten(1), recording.spikes


def _measure(subject: Subject, found: list[tuple[str, str, Give]]) -> list[Run]:
    """All modes side by side, some recordings at a time."""
    runs = {mode: Run(mode, graph) for mode, graph, _ in found}
    count = len(subject.part)
    for frames in progress(subject.frames.split(CHUNK, 1), "targets"):
        recorded = {}
        for mode, _, give in progress(found, "modes"):
            logits, spikes = give(frames)
            runs[mode].predictions += logits.argmax(1).tolist()
            for layer, values in spikes.items():
                runs[mode].spikes[layer] = runs[mode].spikes.get(layer, 0) + values.sum(
                    dtype=torch.float64).item() / count
            if mode != "surrogate" and not mode.startswith("calibrated"):
                recorded[mode] = {layer: values.to(torch.uint8) for layer, values in spikes.items()}
        for mode, spikes in recorded.items():
            for other, others in recorded.items():
                before = runs[mode].differs.get(other, 0)
                runs[mode].differs[other] = before + sum(
                    int((values != others[layer].reshape(values.shape)).sum()) for layer, values in spikes.items())
    return list(runs.values())


def accuracy_rows(subject: Subject, runs: list[Run]) -> list[dict]:
    """Accuracy with its 95 % interval (Clopper-Pearson), one row a run.

    `change` is points against the first run; `lost` and `won` are the recordings behind it, `p` the exact McNemar
    test on them.
    """
    labels = subject.part.labels.tolist()
    rows = []
    for run in runs:
        right = [guess == label for guess, label in zip(run.predictions, labels, strict=True)]
        low, high = interval(sum(right), len(right))
        row = {"mode": run.mode, "accuracy %": 100 * sum(right) / len(right), "low %": 100 * low, "high %": 100 * high}
        against = dict.fromkeys(("change", "lost", "won", "p")) if run is runs[0] else paired(
            runs[0].predictions, run.predictions, labels)
        rows.append(row | against | {"spikes": sum(run.spikes.values())})
    return rows


def paired(one: list[int], other: list[int], labels: list[int]) -> dict[str, float]:
    """The predictions `other` against `one` of the same recordings.

    Returns:
        `change` in points, recordings `lost` and `won`, and `p` of the exact McNemar test on those.
    """
    pairs = [(a == label, b == label) for a, b, label in zip(one, other, labels, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return {"change": 100 * (won - lost) / len(pairs), "lost": lost, "won": won,
            "p": float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0}


def confusion(subject: Subject, run: Run) -> list[list[int]]:
    """Recordings by class (row) and prediction (column)."""
    classes = max(subject.data.classes, 1 + max(run.predictions))
    matrix = [[0] * classes for _ in range(classes)]
    for label, guess in zip(subject.part.labels.tolist(), run.predictions, strict=True):
        matrix[label][guess] += 1
    return matrix
