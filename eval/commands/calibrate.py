"""`hardspike eval calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import ALL, Sample, whole
from export.options import Output
from export.recordings import Recordings
from hardspike import OutFile, OutText, print_table

if TYPE_CHECKING:
    from eval.calibrate.measure import CalibrationRow
    from eval.subject import Subject


def calibrate(model: Path, kind: str | None = None, out: OutFile | None = None, train_samples: int = 512,
              recordings: Recordings = Recordings(), json: OutText | None = None) -> list[CalibrationRow]:  # noqa: B008
    """Set thresholds or biases of a trained network for hard spikes: what is cheaper than training for them.

    global: one multiplier on all thresholds; layers: one a layer; both by search on hard validation accuracy. bias: a
    constant current a channel in closed form, from training recordings, which makes the mean input of the hard network
    that of the smooth one; bias+layers: both. All is chosen on the training and validation parts and run on the test
    part once. Weights, and the rows of the network as it was trained, stay as they are.

    `gap` is surrogate minus this row on the test part, `recovered` the share of the hard row's gap that is gone.

    Args:
        model: a run's folder, a checkpoint (.pt), best the last.pt of a smooth run, or a graph (.nir), which has no
            smooth spikes: global and layers, in its chip's integers where it is quantised
        kind: global, layers, bias or bias+layers: only this one; default: all
        out: file for the calibrated model, of the same kind as MODEL: of those that the validation part cannot tell
            from the best (one standard error), the one with fewest searched, then fewest values; not written where
            that one leaves the network as it is
        train_samples: training recordings for the closed form, evenly spread; 0 for all
        recordings: of what data; of an --input, each part is the whole file
        json: file for the table and the values chosen
    """
    from eval import rows
    from eval.calibrate.measure import kinds_of, measure, refuse_integers
    from eval.subject import open_subject
    from export.model import Model, output_path
    whole("train_samples", train_samples, zero=ALL)
    opened = Model.open(model)
    refuse_integers(opened)
    if out:
        output_path(opened, Output(out), opened.path.suffix)
    kinds = kinds_of(opened, kind)
    subject = open_subject(model, recordings, Sample())
    found = measure(subject, kinds, train_samples)
    validation, test = len(subject.data.validation), len(subject.data.test)
    print_table(rows.calibration(found), f"{subject.model.path}: calibrated on {validation} validation recordings of "
                f"{subject.source}, tested once on {test}", json,
                {"data": subject.source, "validation": validation, "test": test,
                 "chosen": [row.calibration.values() for row in found if row.calibration]})
    if recordings.input:
        say(f"{recordings.input}: was chosen on and tested on; what is won there says little of other recordings")
    if out:
        _write(out, found, subject)
    return found


def _write(out: Path, found: list[CalibrationRow], subject: Subject) -> None:
    """The model to keep, unless it is the one that was given."""
    from eval.calibrate.measure import best, write
    from export.check.report import announce
    kept = best(found, len(subject.data.validation))
    if not kept.changes:
        say(f"{out}: not written: the best of kind {kept.kind} is {subject.model.path} as it is")
    elif checked := write(out, kept, subject):
        parity, report = checked
        announce(out, report, parity, None)
    else:
        say(f"{out}: kind {kept.kind}; `hardspike export nir {out}` writes and checks its graph")
