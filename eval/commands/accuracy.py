"""`hardspike eval accuracy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import Sample, Tables
from export.recordings import Recordings
from hardspike import print_table

if TYPE_CHECKING:
    from eval.accuracy import Accuracy


def accuracy(*models: Path, sample: Sample = Sample(), recordings: Recordings = Recordings(),  # noqa: B008
             tables: Tables = Tables()) -> list[Accuracy]:  # noqa: B008
    """Accuracy with surrogate spikes, with hard spikes and of the exported graph, and the transfer gap.

    The gap is surrogate minus hard accuracy of the same weights (SAST eq. 36). Intervals are exact binomial
    (Clopper-Pearson) at 95 %; `epoch` is the one after which the weights were kept, chosen on validation recordings
    with hard spikes, so that the gap of best.pt is not that of last.pt; `train s` and `gradients` are the run's
    training time and gradient evaluations. Every model runs on the same recordings: those of the first model that says
    what it was trained on. A calibrated checkpoint has a row of its own kind and neither a surrogate row nor a gap.
    Where pixels are labelled, accuracy is the share of right ones, with the mean intersection over union (mIoU) and
    that of each class beside it; intervals are then of a bootstrap over recordings.

    Args:
        models: runs' folders, checkpoints (.pt) and graphs (.nir); a quantised graph runs in its chip's integers
        sample: on what part
        recordings: of what data
        tables: what is written
    """
    from eval import rows
    from eval.accuracy import measure
    from eval.subject import open_subjects, title
    subjects = open_subjects(models, recordings, sample)
    found, first = measure(subjects), subjects[0]
    classes = rows.class_ious(found)
    print_table(rows.accuracy(found), f"{title(first, sample.split)} (spikes per sample)", tables.json,
                {"data": first.source, "split": sample.split, "samples": len(first.part), "classes": classes},
                tables.csv)
    if classes:
        print_table(classes, "intersection over union of each class")
    return found
