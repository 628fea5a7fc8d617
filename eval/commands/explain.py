"""`hardspike eval explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import Sample
from export.recordings import Recordings
from hardspike import OutFile, OutText, UsageError, print_table, words

if TYPE_CHECKING:
    from eval.explain.measure import Explanation, Ran
    from eval.subject import Subject


def explain(a: Path, b: Path, targets: str = "", samples: int = 64, recordings: Recordings = Recordings(),  # noqa: B008
            other: Path | None = None, reduce: OutFile | None = None, json: OutText | None = None) -> Explanation:
    """Say where two runs part first, spike for spike, and why: one model on two targets, or two models.

    The first spike that one run has and the other has not: sample, step, layer, neuron, membranes and thresholds; then
    the step in which that neuron's membranes part, with every term of both (what was kept, what a reset took, what
    each connection and bias gave), and which of these causes it is: input, weight, bias, threshold, leak, reset, delay,
    order, rounding.

    Args:
        a: a run's folder, a checkpoint (.pt) or a graph (.nir)
        b: another one, or the same
        targets: where A and B run, two names joined by a comma, or one for both; default: the chip of a quantised
            graph, else reference
        samples: test recordings; 0 for all
        recordings: of what data
        other: .npz file with what B runs on, where that is not what A runs on
        reduce: write the smallest graphs and input that still part, for the same cause, to FILE.a.nir, FILE.b.nir and
            FILE.npz
        json: file for the table of terms
    """
    from eval import rows
    from eval.explain.measure import measure
    from eval.explain.smallest import smallest
    from eval.subject import open_subjects
    from targets.inputs import load_spikes
    subjects = open_subjects([a, b], recordings, Sample(samples=samples))
    one, another = (_ran(subject, name) for subject, name in zip(subjects, _names(targets), strict=True))
    if other is not None:
        another = _on(another, load_spikes(other)[0])
    elif a.resolve() == b.resolve() and one.target.name == another.target.name:
        raise UsageError(f"{a}: one model on one target is one run; give --targets A,B, or --other FILE.npz")
    found = measure(one, another)
    first = found.first
    if first is None:
        say(f"{one.name} and {another.name}: equal, {found.spikes[0]} spikes of {len(found.layers)} layers")
        return found
    fires = ("fires in A, not in B", "fires in B, not in A")[first.fired[1]] if first.fired[0] != first.fired[1] else \
        "differs beside other samples alone"
    say(f"A: {one.name}, {found.spikes[0]} spikes; B: {another.name}, {found.spikes[1]} spikes; {found.differ} differ, "
        f"in {found.samples} of {one.frames.shape[1]} recordings")
    say(f"first: recording {first.sample}, step {first.step}, layer '{first.layers[0]}'"
        + (f" (B: '{first.layers[1]}')" if first.layers[0] != first.layers[1] else "")
        + f", neuron {first.neuron}: {fires}")
    print_table(rows.explanation(found), f"its membranes part in step {first.parted}; terms in {first.unit}", json,
                {"explanation": asdict(found)})
    say(f"cause: {first.cause}: {first.words}")
    if reduce is not None:
        say(smallest(one, another, found, reduce))
    return found


def _names(targets: str) -> list[str]:
    found = words(targets)
    if len(found) > 2:
        raise UsageError(f"targets '{targets}': one for both, or two, for A and for B")
    return (found * 2)[:2] or ["", ""]


def _ran(subject: Subject, target: str) -> Ran:
    from eval.explain.measure import Ran
    from targets.reference import REFERENCE
    from targets.table import load_target
    runs_on = load_target(target) if target else subject.model.chip or REFERENCE
    return Ran(f"{subject.model.path} on {runs_on.name}", subject.model.graph, runs_on, subject.frames)


def _on(ran: Ran, frames) -> Ran:
    from dataclasses import replace
    return replace(ran, frames=frames)
