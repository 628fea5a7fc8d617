"""`python -m eval quantisation`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import Sample, Tables, bit_widths, whole
from export.recordings import Recordings
from hardspike import print_table

if TYPE_CHECKING:
    from eval.quantisation import Quantised


def quantisation(*models: Path, bits: str = "8,4", target: str = "loihi2", samples: int = 128, split: str = "test",
                 recordings: Recordings = Recordings(), tables: Tables = Tables()) -> list[Quantised]:  # noqa: B008
    """Accuracy of models quantised to several bit widths, with searched scales and, as a control, max-abs scales.

    Scales are chosen on training recordings; `split` is only evaluated on. `loss` is points of accuracy against the
    float graph on `reference`, negative where the quantised graph is better.

    Args:
        models: runs' folders, checkpoints (.pt) or float graphs (.nir)
        bits: bit widths joined by commas
        target: loihi1 or loihi2
        samples: training recordings to choose scales on; 0 for all
        split: train, validation or test
        recordings: of what data
        tables: what is written
    """
    from eval import rows
    from eval.quantisation import means, measure
    from eval.subject import open_subjects
    from targets.chips import chip
    widths, machine = bit_widths(bits), chip(target)
    whole("samples", samples)
    found = measure(open_subjects(models, recordings, Sample(split)), machine, widths, samples)
    shown = found + (means(found) if len(models) > 1 else [])
    print_table(rows.quantisation(shown, target, len(models)),
                f"{split}: accuracy on {target} against the float hard network", tables.json, csv_file=tables.csv)
    return found
