"""`hardspike eval gradients`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import beside, say
from eval.options import ALL, whole
from export.recordings import Recordings
from hardspike import OutFile, OutText, UsageError, check_suffix, print_table, require_writable

if TYPE_CHECKING:
    from eval.gradients import Gradients


def gradients(*runs: Path, out: OutFile | None = None, samples: int = 32,
              recordings: Recordings = Recordings(), json: OutText | None = None) -> list[Gradients]:  # noqa: B008
    """Gradients, membranes, spikes and weights of each layer of runs: drawn, and the last values as a table.

    SGV, TGC and widths over epochs are there where the method has windows (a2sg), other quantities over epochs where
    the run was told to `--diagnose`; what is missing is named. The rest is computed from the checkpoint, in evaluation
    mode, on recordings of its training part. SGV is Var(d)/Mean(|d|) of the local gradient d at the last step (A2SG eq.
    8), TGC the cosine of d[t] and d[t+1] (eq. 9, mean over t), fisher the largest eigenvalue of a layer's Fisher matrix
    (eq. A8), RMD the distance (theta - mu)/sigma of the membrane from the threshold (eq. A10) and, as in table A2, from
    the weights alone. CV asy/tri compares the variation of both windows, h = 0.5, at the layer's mean width under a
    Gaussian membrane: theorem 2 has it below 1 where L*kappa > sigma^2, and is wrong (trainer.analysis.variation).

    Args:
        runs: folders of runs, of which last.pt is taken, or checkpoints (.pt); of several, a column of the figure each
        out: .svg file for the figure; by default gradients.svg, in the run's folder where there is one run
        samples: recordings of the training part; 0 for all
        recordings: of what data
        json: file for the table
    """
    from eval import rows
    from eval.gradients import draw, measure
    from eval.plots import labels
    whole("samples", samples, zero=ALL)
    out = out or beside(runs, "gradients.svg")
    check_suffix(out, ".svg")
    require_writable(out)
    found = [measure(run, samples, recordings) for run in runs]
    names = labels(runs) if len(runs) > 1 else [""]
    if len(set(names)) < len(names):
        raise UsageError(f"{', '.join(map(str, runs))}: the same run twice; give each once")
    titles = [f"{run}: {one.method} on {one.source}, epoch {one.epoch}; {one.samples} recordings"
              for run, one in zip(runs, found, strict=True)]
    title = titles[0] if len(runs) == 1 else f"{', '.join(names)}; {found[0].source}"
    print_table([row for name, one in zip(names, found, strict=True) for row in rows.gradients(one.layers, name)],
                "\n".join(titles), json, {"figure": str(out)})
    for name, one in zip(names, found, strict=True):
        _left_out(one, f"{name}: " if name else "")
    draw(dict(zip(names, found, strict=True)), title, out)
    say(out)
    return found


def _left_out(found: Gradients, head: str) -> None:
    if not found.windows:
        say(f"{head}SGV, TGC and widths left out: {found.method} has no windows; a2sg has")
    elif found.steps == 1:
        say(f"{head}TGC and the width at T-1 left out: a single step has no neighbour in time")
    if not found.logged:
        say(f"{head}membranes over epochs left out: the run logged none; `hardspike fit --diagnose 1` does")
