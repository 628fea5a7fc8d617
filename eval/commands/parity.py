"""`hardspike eval parity`."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.mode import brief
from eval.options import Sample
from export.recordings import Recordings
from hardspike import OutText, about, few, print_table

if TYPE_CHECKING:
    from eval.parity import Parities, ParityRun


def parity(model: Path, targets: str = "reference,loihi2,onnxruntime", bits: int = 8, scale: str = "searched",
           samples: int = 64, recordings: Recordings = Recordings(), json: OutText | None = None) -> Parities:  # noqa: B008
    """Run one model on several targets and say who equals whom, spike for spike.

    A float model is quantised for the integer targets; `reference` then runs the float graph and, as `reference
    (int)`, the quantised one. Integer and float arithmetic differ rightly: leaks are rounded in integers. What may
    not differ is one graph in one arithmetic: loihi2, Lava and the integer ONNX model.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir), quantised or not
        targets: names joined by commas: reference, loihi1 or loihi2, lava, onnxruntime
        bits: of a weight, where the model has to be quantised
        scale: searched or max_abs
        samples: test recordings to run; 0 for all
        recordings: of what data
        json: file for the matrix
    """
    from eval import rows
    from eval.parity import measure
    from eval.subject import open_subject
    from targets.table import load_targets
    places = load_targets(targets)
    subject = open_subject(model, recordings, Sample(samples=samples))
    with about(subject.model.path):
        found = measure(subject, places, bits, scale)
    names = brief([run.mode for run in found.runs])
    print_table(rows.parity(found), f"{model}: {found.samples} samples of {found.steps} steps; spikes that differ",
                json, {"samples": found.samples,
                       "quantised": dumps(asdict(found.quantised)) if found.quantised else "",
                       "silent": {name: run.silent(run) for name, run in zip(names, found.runs, strict=True)}})
    for (i, one), (j, other) in itertools.combinations(enumerate(found.runs), 2):
        say(f"{names[i]} and {names[j]}: {_compared(one, other, one.differs[j], names[i])}")
    return found


def _compared(one: ParityRun, other: ParityRun, differ: int, name: str) -> str:
    """Two runs in words; `name`: of the first one."""
    if not one.spikes and not other.spikes:
        return "no spike in either, so that nothing is known of them: give other recordings, or train longer"
    said = f"{differ} spikes differ ({100 * differ / max(1, one.spikes):.2f} % of {name}'s)" if differ else \
        "equal, spike for spike"
    if silent := one.silent(other):
        said += f"; silent, so that nothing is known of them: {few(silent)}"
    return said
