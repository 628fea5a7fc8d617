"""`python -m eval study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import SPLITS, Tables, whole
from hardspike import choice, print_table

if TYPE_CHECKING:
    from eval.study import Study


def study(file: Path, out: Path | None = None, seeds: int = 5, jobs: int = 2, split: str = "test",
          path: Path | None = None, epochs: int | None = None, tables: Tables = Tables()) -> Study:  # noqa: B008
    """Train every variant of a study with every seed and compare them with the study's first variant.

    Seed for seed, variants share initial weights, order of recordings and augmentation, so the test against the first
    variant is paired (two-sided t); beside each p stands the same, corrected for all tests of the table (Holm). Each is
    tested on frames as it was trained on; `epoch` is the mean of those after which the weights were kept. Runs that are
    already in `out` are not repeated; an interrupted one goes on.

    Args:
        file: YAML with `base`, the options that all runs share, and `variants`, name -> options on top of them
        out: folder of the runs; default runs/NAME
        seeds: seeds 0, 1, ...
        jobs: runs at a time, one thread each
        split: train, validation or test
        path: folder of the recordings
        epochs: of the base, instead of what the study says; a variant's own are scaled by as much
        tables: what is written, with every single run
    """
    choice("split", split, SPLITS)
    for key, value in (("seeds", seeds), ("jobs", jobs), ("epochs", 1 if epochs is None else epochs)):
        whole(key, value, 1)
    from eval import rows
    from eval.study import measure, read
    found = measure(read(file, path, epochs), out or Path("runs") / file.stem, seeds, jobs, split)
    title = (f"{file.stem}: {found.source}, {split}, {found.recordings} recordings; mean and standard deviation "
             f"of {seeds} seeds, against {found.variants[0].variant}")
    print_table(rows.study(found.variants), title, tables.json, {"runs": rows.study_runs(found.runs)}, tables.csv)
    return found
