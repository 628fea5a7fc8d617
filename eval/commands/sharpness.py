"""`hardspike eval sharpness`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import Sample
from export.recordings import Recordings
from hardspike import OutText, print_table

if TYPE_CHECKING:
    from eval.sharpness import Sharpness


def sharpness(model: Path, radii: str = "0.05,0.1,0.15,0.2,0.3,0.4,0.5", lengths: str = "0.001,0.01,0.1",
              sample: Sample = Sample(samples=64), recordings: Recordings = Recordings(),  # noqa: B008
              json: OutText | None = None) -> Sharpness:
    """How sharp the loss is around a network, and SAST's bounds beside what is measured (its sec. V-D and app. A-B).

    SAM gaps L(w+eps)-L(w) along the gradient and along random vectors; secants ||grad(w+d)-grad(w)||/||d|| (eq. 37)
    along random vectors, the gradient, and the direction that the gradient's secant points in; norms of each
    recording's gradients in weights and input, of its logits' in the input, and the smallest singular value of its
    Gram matrix (eqs. 47-50), smooth and hard; bounds on logits, loss and smoothness. All in float64, in evaluation
    mode, without augmentation. Formulas, and which of them could not be recovered: trainer/analysis/bounds.py.

    Args:
        model: a run's folder or a checkpoint
        radii: of the SAM gaps, joined by commas
        lengths: of the secants' steps, joined by commas
        sample: on what part
        recordings: of what data
        json: file for all tables
    """
    from eval import rows
    from eval.sharpness import measure, numbers
    from eval.subject import open_subject, title
    grids = numbers(radii, "radii"), numbers(lengths, "lengths")
    subject = open_subject(model, recordings, sample)
    found = measure(subject, *grids)
    theory, bounds = found.theory, rows.sharpness_bounds(found)
    aligned = "yes" if theory["theory_aligned"] else f"no ({theory['why_not']})"
    say(f"{found.model}; {title(subject, sample.split)}; phi(-theta) {theory['phi(-theta)']:.3g}, q "
          f"{theory['q_loose']:.3g} loose, {theory['q_tight']:.3g} tight; theory-aligned: {aligned}")
    print_table(rows.sam_gaps(found), "SAM gap, nats (sec. V-D, i)", json,
                {"secants": rows.secants(found), "recordings": rows.sharpness_spreads(found), "bounds": bounds,
                 "norms": found.norms, "no_bounds": found.no_bounds, "theory": theory,
                 "eq50": {"held": found.held, "slack": found.slack, "of": found.samples}})
    print_table(rows.secants(found), "secants (eq. 37)")
    print_table(rows.sharpness_spreads(found), f"over {found.samples} recordings")
    for mode, held in found.held.items():
        print(f"eq. 50, {mode}: holds for {held} of {found.samples} (it is algebra); its right side is "
              f"{found.slack[mode]:.3g} times its left (median)")
    if bounds:
        print_table(bounds, "bounds beside what is measured")
        say("norms of blocks: " + ", ".join(f"{name} {norm:.3g}" for name, norm in found.norms.items()))
    if found.no_bounds:
        say(f"left out: {found.no_bounds}")
    return found
