"""`hardspike eval features`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import beside, say
from eval.options import Sample, Tables, whole
from export.recordings import Recordings
from hardspike import OutFile, check_suffix, print_table, require_writable

if TYPE_CHECKING:
    from eval.features import Features


def features(*models: Path, out: OutFile | None = None, perplexity: float = 30.0, seed: int = 0,
             sample: Sample = Sample(samples=500), recordings: Recordings = Recordings(),  # noqa: B008
             tables: Tables = Tables()) -> list[Features]:  # noqa: B008
    """t-SNE of what the readout gets, up to the first step and up to the last (A2SG fig. 6), with silhouettes.

    A feature is how often a neuron of the last hidden layer spiked in the steps 1 to t, over t, with hard spikes. The
    number to compare is the silhouette of the features themselves, by true class: 1 where classes are compact and
    apart, 0 where they overlap, below 0 where recordings lie nearer to another class. What t-SNE draws depends on its
    perplexity and seed.

    Args:
        models: runs' folders, checkpoints (.pt) and graphs (.nir), a column each
        out: .svg file; by default features.svg, in the run's folder where there is one run
        perplexity: of t-SNE, about how many neighbours a recording has
        seed: of its first positions
        sample: on what part
        recordings: of what data
        tables: what is written
    """
    whole("seed", seed)
    out = out or beside(models, "features.svg")
    check_suffix(out, ".svg")
    from eval import rows
    from eval.features import alternative, draw, measure
    from eval.subject import open_subjects, title
    require_writable(out)
    subjects = open_subjects(models, recordings, sample)
    found = measure(subjects, perplexity, seed)
    heading = f"{title(subjects[0], sample.split)}; features of the last hidden layer, perplexity {perplexity:g}"
    print_table(rows.features(found), heading, tables.json,
                {"figure": str(out), "alternative": alternative(found),
                 "positions": [one.positions.tolist() for one in found]}, tables.csv)
    draw(found, subjects[0].labels, heading, out)
    say(out)
    return found
