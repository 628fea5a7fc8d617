"""`python -m eval quantisation`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import Sample, Tables, bit_widths, whole
from export.recordings import Recordings
from hardspike import UsageError, print_table

if TYPE_CHECKING:
    from eval.quantisation import Quantised


@dataclass(frozen=True)
class Further:
    """What is shown beside accuracies.

    Args:
        prices: a price table of `python -m eval energy`, for the energy a sample
        plot: .svg file: accuracy over bits
    """

    prices: str = ""
    plot: Path | None = None


def quantisation(*models: Path, bits: str = "8,4", target: str = "loihi2", samples: int = 128, split: str = "test",
                 recordings: Recordings = Recordings(), further: Further = Further(),  # noqa: B008
                 tables: Tables = Tables()) -> list[Quantised]:  # noqa: B008
    """Accuracy of models quantised to several bit widths, with searched scales and, as a control, max-abs scales; and
    of models that were trained in integers (`trainer fit --quantise.bits`).

    Scales are chosen on training recordings; `split` is only evaluated on. `loss` is points of accuracy against the
    float graph on `reference`, negative where the quantised graph is better; a trained network's is against the float
    model that its training began from, where that is given too. Synapse memory and cores are the estimate of
    `python -m targets map`.

    Args:
        models: runs' folders, checkpoints (.pt) or float graphs (.nir)
        bits: bit widths joined by commas, of the float models
        target: loihi1 or loihi2
        samples: training recordings to choose scales on; 0 for all
        split: train, validation or test
        recordings: of what data
        further: what else
        tables: what is written
    """
    from eval import rows
    from eval.energy.price_tables import load_table
    from eval.quantisation import draw, means, measure
    from eval.subject import open_subjects
    from targets.chips import chip
    widths, machine = bit_widths(bits), chip(target)
    whole("samples", samples)
    plot, prices = further.plot, further.prices
    if plot and plot.suffix != ".svg":
        raise UsageError(f"--plot {plot}: figures are written as .svg; name it so")
    table = load_table(prices) if prices else None
    found = measure(open_subjects(models, recordings, Sample(split)), machine, widths, samples, table)
    shown = found + (means(found) if len(models) > 1 else [])
    title = f"{split}: accuracy on {target} against the float hard network"
    print_table(rows.quantisation(shown, target, len(models)), title + (f"; energy by {prices}" if prices else ""),
                tables.json, csv_file=tables.csv)
    if plot:
        draw(found, plot, f"{split}: accuracy on {target}")
    return found
