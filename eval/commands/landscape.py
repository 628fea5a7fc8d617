"""`hardspike eval landscape`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import beside, say
from eval.options import Sample, Tables, View
from export.recordings import Recordings
from hardspike import OutFile, check_suffix, print_table, require_writable

if TYPE_CHECKING:
    from eval.landscape import Landscapes


def landscape(*models: Path, view: View = View(), out: OutFile | None = None,  # noqa: B008
              sample: Sample = Sample("train", 64), recordings: Recordings = Recordings(),  # noqa: B008
              tables: Tables = Tables()) -> Landscapes:  # noqa: B008
    """The loss around networks, over two directions, drawn side by side (A2SG fig. 1), with what it shows in numbers.

    The surface is of the loss of the spikes that each network was trained with (--spikes hard or surrogate for one kind
    of all), over two random directions, each of whose filters is as long as the network's own (Li et al. 2018); A2SG
    moves one layer (--layer lif1). A rise is the mean of (L(w + r d) + L(w - r d))/2 - L(w) over eight such
    directions. The Hessian's largest eigenvalues by magnitude are those of the smooth network of the same weights, by
    Lanczos on differences of its exact gradients: the loss of hard spikes is a staircase without one, and the Jacobian
    of a surrogate's gradient is no Hessian. All in float64, in evaluation mode, without augmentation; the loss is the
    mean cross-entropy.

    Args:
        models: runs' folders, of which last.pt is taken, or checkpoints (.pt)
        view: what is looked at
        out: .svg file; by default landscape.svg, in the run's folder where there is one run
        sample: on what part
        recordings: of what data
        tables: what is written
    """
    view.checked()
    out = out or beside(models, "landscape.svg")
    check_suffix(out, ".svg")
    from eval import rows
    from eval.landscape import draw, ends, measure
    from eval.subject import open_subjects, title
    require_writable(out)
    subjects = open_subjects([ends(model) for model in models], recordings, sample)
    found = measure(subjects, view)
    of = f"layer {view.layer}" if view.layer else "all layers"
    heading = f"{title(subjects[0], sample.split)}; loss in nats around the weights of {of}"
    print_table(rows.landscape(found.networks), heading, tables.json,
                {"figure": str(out), "alternative": found.alternative, "grid": found.grid,
                 "surfaces": [one.surface for one in found.networks]}, tables.csv)
    if view.eigenvalues and any(one.spikes == "hard" for one in found.networks):
        say("Hessian: of the smooth network of the same weights, whose loss stands beside it; hard spikes have none")
    draw(found, heading, out)
    say(out)
    return found
