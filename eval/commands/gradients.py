"""`python -m eval gradients`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import ALL, whole
from export.recordings import Recordings
from hardspike import OutFile, OutText, check_suffix, print_table, require_writable

if TYPE_CHECKING:
    from eval.gradients import Gradients


def gradients(run: Path, out: OutFile | None = None, samples: int = 32,
              recordings: Recordings = Recordings(), json: OutText | None = None) -> Gradients:  # noqa: B008
    """Gradients, membranes, spikes and weights of each layer of a run: drawn, and the last values as a table.

    SGV, TGC and widths over epochs are there where the method has windows (a2sg), other quantities over epochs where
    the run was told to `--diagnose`; what is missing is named. The rest is computed from the checkpoint, in evaluation
    mode, on recordings of its training part. SGV is Var(d)/Mean(|d|) of the local gradient d at the last step (A2SG eq.
    8), TGC the cosine of d[t] and d[t+1] (eq. 9, mean over t), fisher the largest eigenvalue of a layer's Fisher matrix
    (eq. A8), RMD the distance (theta - mu)/sigma of the membrane from the threshold (eq. A10) and, as in table A2, from
    the weights alone. CV asy/tri compares the variation of both windows, h = 0.5, at the layer's mean width under a
    Gaussian membrane: theorem 2 has it below 1 where L*kappa > sigma^2, and is wrong (trainer.analysis.variation).

    Args:
        run: folder of a run, of which last.pt is taken, or a checkpoint (.pt)
        out: .svg file for the figure; gradients.svg in the run's folder by default
        samples: recordings of the training part; 0 for all
        recordings: of what data
        json: file for the table
    """
    from eval import rows
    from eval.gradients import draw, measure
    whole("samples", samples, zero=ALL)
    out = out or (run if run.is_dir() else run.parent) / "gradients.svg"
    check_suffix(out, ".svg")
    require_writable(out)
    found = measure(run, samples, recordings)
    title = f"{run}: {found.method} on {found.source}, epoch {found.epoch}; {found.samples} recordings"
    print_table(rows.gradients(found.layers), title, json, {"figure": str(out)})
    if not found.windows:
        say(f"SGV, TGC and widths left out: {found.method} has no windows; a2sg has")
    elif found.steps == 1:
        say("TGC and the width at T-1 left out: a single step has no neighbour in time")
    if not found.logged:
        say("membranes over epochs left out: the run logged none; `python -m trainer fit --diagnose 1` does")
    draw(found, title, out)
    say(out)
    return found
