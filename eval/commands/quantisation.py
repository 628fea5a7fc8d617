"""`hardspike eval quantisation`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import ALL, Sample, Tables, bit_widths, whole
from export.recordings import Recordings
from hardspike import OutFile, UsageError, few, print_table

if TYPE_CHECKING:
    from eval.quantisation import Quantised


@dataclass(frozen=True)
class Further:
    """What is shown beside accuracies.

    Args:
        prices: a price table of `hardspike eval energy`, for the energy a sample
        plot: .svg file: accuracy over bits
    """

    prices: str = ""
    plot: OutFile | None = None


def quantisation(*models: Path, bits: str = "8,4", target: str = "loihi2", train_samples: int = 128,
                 sample: Sample = Sample(), recordings: Recordings = Recordings(),  # noqa: B008
                 further: Further = Further(), tables: Tables = Tables()) -> list[Quantised]:  # noqa: B008
    """Accuracy of models quantised to several bit widths, with searched scales and, as a control, max-abs scales; and
    of models that were trained in integers (`trainer fit --quantise.bits`).

    Scales are chosen on training recordings; `--split` is only evaluated on. `loss` is points of accuracy against the
    float graph on `reference`, negative where the quantised graph is better; a trained network's is against the float
    model that its training began from, where that is given too. Synapse memory and cores are the estimate of
    `hardspike targets map`.

    Args:
        models: runs' folders, checkpoints (.pt) or float graphs (.nir)
        bits: bit widths joined by commas, of the float models
        target: loihi1 or loihi2
        train_samples: training recordings to choose scales on, evenly spread; 0 for all
        sample: on what part
        recordings: of what data
        further: what else
        tables: what is written
    """
    from eval import rows
    from eval.energy.price_tables import load_table
    from eval.quantisation import draw, means, measure
    from eval.subject import open_subjects, title
    from targets.chips import chip
    widths, machine = bit_widths(bits), chip(target)
    whole("train_samples", train_samples, zero=ALL)
    plot, prices = further.plot, further.prices
    if plot and plot.suffix != ".svg":
        raise UsageError(f"--plot {plot}: figures are written as .svg; name it so")
    table = load_table(prices) if prices else None
    subjects = open_subjects(models, recordings, sample)
    found = measure(subjects, machine, widths, train_samples, table)
    shown = found + (means(found) if len(models) > 1 else [])
    words = f"{title(subjects[0], sample.split)}: accuracy on {target} against the float hard network"
    print_table(rows.quantisation(shown, target, len(models)), words + (f"; energy by {prices}" if prices else ""),
                tables.json, {"samples": len(subjects[0].part),
                              "silent": [{"model": str(row.model), "bits": row.bits, "scale": row.scale,
                                          "layers": row.silent} for row in found]}, tables.csv)
    if plot:
        draw(found, plot, f"{sample.split}: accuracy on {target}")
    for row in found:
        if row.silent:
            say(f"{row.model}, {row.bits} bits, {row.scale}: silent where scales were chosen, so that nothing is known "
                f"of them: {few(row.silent)}")
    return found
