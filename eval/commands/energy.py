"""`hardspike eval energy`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import Sample, Tables, whole
from export.recordings import Recordings
from hardspike import HardspikeError, print_table

if TYPE_CHECKING:
    from eval.energy.measure import Energies


def energy(*models: Path, prices: str = "horowitz45nm", ann: str = "horowitz45nm,horowitz45nm_sram",
           sample: Sample = Sample(samples=64), recordings: Recordings = Recordings(),  # noqa: B008
           sanafe: int = 0, tables: Tables = Tables()) -> Energies:  # noqa: B008
    """Energy a sample: counts of `hardspike eval operations` times a price table, every price with its evidence.

    A table prices a counted term or says why it leaves it out; while a term has neither, there is no total. Tables:
    papers_45nm (the papers' convention: the layer that reads a picture in MACs, the rest in additions), synops_45nm
    (all in additions), horowitz45nm, horowitz45nm_int8 (arithmetic), the same with _sram (and data
    movement), loihi1, loihi2 (nothing was published), truenorth, spinnaker2, or a .yaml file of your own.

    Beside it stands the equivalent ANN: the same linear layers, dense, passed once a sample instead of once a step.
    Memory is counted without any reuse: an event reads a weight and reads and writes a membrane for each of its
    synapses, an update reads and writes a membrane; a MAC of the ANN reads a weight and an activation, and each result
    is written once.

    Args:
        models: runs' folders, checkpoints (.pt) and graphs (.nir); prices of a chip need graphs that can be mapped to
            it
        prices: table names or .yaml files joined by commas
        ann: tables for the equivalent ANN, joined by commas
        sample: on what part
        recordings: of what data
        sanafe: also simulate so many of the samples, on graphs quantised for Loihi 1, in SANA-FE (needs the extra
            `energy`; seconds a sample), for energy and time with its own prices
        tables: what is written

    Raises:
        HardspikeError: a counted term has no price; what has one is printed first.
    """
    from eval import rows
    from eval.energy.measure import measure
    from eval.energy.price_tables import load_tables
    from eval.subject import open_subjects, title
    priced, ann_tables = load_tables(prices), load_tables(ann)
    whole("sanafe", sanafe, zero="0 (none)")
    subjects = open_subjects(models, recordings, sample)
    found = measure(subjects, priced, ann_tables, sanafe)
    print_table(rows.energy(found.rows), f"{title(subjects[0], sample.split)}: energy a sample", tables.json,
                {"samples": found.samples, "tables": {table.name: asdict(table) for table in found.tables},
                 "refused": found.refused}, tables.csv)
    for table in found.tables:
        say(f"{table.name}: {table.about}")
    for model, run in found.simulated:
        say(f"{model} in SANA-FE: {run.seconds / run.samples * 1e6:.3g} us a sample of {run.steps} steps, "
              f"{run.samples} samples; {run.differing} of {run.spikes} spikes differ from the target loihi1's")
    for note in found.notes:
        say(note)
    if found.refused:
        raise HardspikeError("no total: " + "; ".join(found.refused))
    return found
