"""`hardspike eval study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import SPLITS, Columns, Stress, Tables, Training
from hardspike import OutFile, OutFolder, check_suffix, choice, print_table, require_writable, shipped

if TYPE_CHECKING:
    from eval.study.measure import Study


def study(file: Path, out: OutFolder | None = None, split: str = "test", path: Path | None = None,
          training: Training = Training(), columns: Columns = Columns(),  # noqa: B008
          plot: OutFile | None = None, tables: Tables = Tables()) -> Study:  # noqa: B008
    """Train every variant of a study with every seed and compare them with the study's first variant.

    Seed for seed, variants share initial weights, order of recordings and augmentation, so the tests against the first
    variant are paired: two-sided t with its 95 % interval, and over the recordings a sign test (McNemar's, all seeds
    together, one vote a recording). Beside each p stands the same, corrected for all tests of the table (Holm); hard
    accuracies of further columns have a table and a correction of their own. The gap is surrogate minus hard accuracy
    (SAST eq. 36); `epoch` is the mean of those whose weights were kept. Runs that are already in `out` are not
    repeated; an interrupted one goes on. Any number of processes and machines that share `out` may be given the same
    command: each run is trained by one of them, and what one loses another one finishes.

    Args:
        file: a shipped one's name, or YAML: `base`, options of all runs, `variants`, name -> further ones, and `keep`
        out: folder of the runs; default runs/NAME
        split: train, validation or test
        path: folder of the recordings
        training: of the runs
        columns: further ones
        plot: .svg file: each seed a point; with --robustness also NAME-robustness.svg, accuracy over severity
        tables: what is written, with every single run
    """
    choice("split", split, SPLITS)
    training.checked()
    if plot:
        check_suffix(plot, ".svg")
    from eval import rows
    from eval.robustness.measure import severities_of
    from eval.study.draw import draw_curves, draw_runs
    from eval.study.measure import measure
    from eval.study.plan import STUDIES, read
    from eval.study.slurm import slurm
    from eval.study.train import local
    file = shipped(file, STUDIES)
    plan, out = read(file, path, training.epochs, training.keep), out or Path("runs") / file.stem
    require_writable(out, folder=True)
    launch = local(training.jobs) if training.engine == "local" else slurm(out / "slurm", training.jobs, training.slurm)
    found = measure(plan, out, launch, training.seeds, training.folds, split, columns)
    where = f"{found.folds} folds of all" if found.folds else split
    title = (f"{file.stem}: {found.source}, {where}, {found.recordings} recordings; weights kept: {found.keep}; mean, "
             f"standard deviation (sd), median and quartiles of {training.seeds} seeds")
    tests, further = rows.study_tests(found.variants), rows.study_columns(found.variants)
    further_tests = rows.study_further_tests(found.variants)
    print_table(rows.study(found.variants), title, tables.json,
                {"tests": tests, "columns": further, "further_tests": further_tests,
                 "runs": rows.study_runs(found.runs)}, tables.csv)
    against = f"against {found.variants[0].variant}: mean difference, 95 % interval, p, corrected (Holm)"
    if tests:
        print_table(tests, against)
    for heading, table in rows.study_further(found.variants).items():
        print_table(table, heading)
    if further_tests:
        print_table(further_tests, f"{against}, these tables by themselves")
    if plot:
        draw_runs(found.runs, plot, title.split("; mean")[0])
        if columns.robustness:
            curves = plot.with_name(f"{plot.stem}-robustness.svg")
            draw_curves(found.runs, severities_of(Stress().severities), curves, title.split("; mean")[0])
    return found
