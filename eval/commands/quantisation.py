"""`python -m eval quantisation`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import ALL, Sample, Tables, bit_widths, whole
from export.recordings import Recordings
from hardspike import few, print_table

if TYPE_CHECKING:
    from eval.quantisation import Quantised


def quantisation(*models: Path, bits: str = "8,4", target: str = "loihi2", train_samples: int = 128,
                 sample: Sample = Sample(), recordings: Recordings = Recordings(),  # noqa: B008
                 tables: Tables = Tables()) -> list[Quantised]:  # noqa: B008
    """Accuracy of models quantised to several bit widths, with searched scales and, as a control, max-abs scales.

    Scales are chosen on training recordings; `--split` is only evaluated on. `loss` is points of accuracy against the
    float graph on `reference`, negative where the quantised graph is better.

    Args:
        models: runs' folders, checkpoints (.pt) or float graphs (.nir)
        bits: bit widths joined by commas
        target: loihi1 or loihi2
        train_samples: training recordings to choose scales on, evenly spread; 0 for all
        sample: on what part
        recordings: of what data
        tables: what is written
    """
    from eval import rows
    from eval.quantisation import means, measure
    from eval.subject import open_subjects, title
    from targets.chips import chip
    widths, machine = bit_widths(bits), chip(target)
    whole("train_samples", train_samples, zero=ALL)
    subjects = open_subjects(models, recordings, sample)
    found = measure(subjects, machine, widths, train_samples)
    shown = found + (means(found) if len(models) > 1 else [])
    print_table(rows.quantisation(shown, target, len(models)),
                f"{title(subjects[0], sample.split)}: accuracy on {target} against the float hard network",
                tables.json, {"samples": len(subjects[0].part),
                              "silent": [{"model": str(row.model), "bits": row.bits, "scale": row.scale,
                                          "layers": row.silent} for row in found]}, tables.csv)
    for row in found:
        if row.silent:
            say(f"{row.model}, {row.bits} bits, {row.scale}: silent where scales were chosen, so that nothing is known "
                f"of them: {few(row.silent)}")
    return found
