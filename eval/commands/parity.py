"""`python -m eval parity`."""

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
from hardspike import OutText, about, print_table

if TYPE_CHECKING:
    from eval.parity import Parities


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
    print_table(rows.parity(found), f"{model}: {found.samples} samples of {found.steps} steps; spikes that differ",
                json, {"samples": found.samples,
                       "quantised": dumps(asdict(found.quantised)) if found.quantised else ""})
    names = brief([run.mode for run in found.runs])
    for (i, one), (j, _) in itertools.combinations(enumerate(found.runs), 2):
        count = one.differs[j]
        say(f"{names[i]} and {names[j]}: " + ("equal, spike for spike" if not count else
              f"{count} spikes differ ({100 * count / max(1, one.spikes):.2f} % of {names[i]}'s)"))
    return found
