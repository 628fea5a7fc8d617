"""A study from its plan to its table."""

from dataclasses import dataclass, replace
from pathlib import Path

from eval.options import SPLITS, Columns, Stress
from eval.robustness.measure import check
from eval.study.compare import Variant, compare
from eval.study.plan import Plan
from eval.study.runs import StudyRun, kinds, measured
from eval.study.train import Launch, train_all
from hardspike import UsageError, choice
from trainer.config import FitConfig


@dataclass(frozen=True)
class Study:
    """A study's results.

    Args:
        variants: in the plan's order.
        runs: every one, seed by seed.
        source: name of the data.
        recordings: that each run was tested on.
        keep: which epoch's weights were compared.
        folds: of the cross-validation; 0 where there is none.
    """

    variants: list[Variant]
    runs: list[StudyRun]
    source: str
    recordings: int
    keep: str
    folds: int


def measure(plan: Plan, out: Path, launch: Launch, seeds: int = 5, folds: int = 0, split: str = "test",
            columns: Columns | None = None) -> Study:
    """Train every variant with every seed and compare them with the first variant.

    Seed for seed, variants share initial weights, order of recordings and augmentation, so the tests against the first
    variant are paired. Each is tested on frames as it was trained on. Runs that are already in `out` are not repeated;
    an interrupted one goes on; what others are training in the same folder is waited for.

    Args:
        plan: see `eval.study.plan.read`.
        out: folder of the runs.
        launch: what trains them: `eval.study.train.local` or `eval.study.slurm.slurm`.
        seeds: seeds 0, 1, ...
        folds: train each seed once for each fold of training and test recordings together (`DataConfig.folds`), and
            test every recording by the run that did not see it; 0: the data's own parts.
        split: train, validation or test.
        columns: further ones.

    Raises:
        UsageError: a number out of its range, or runs in `out` that were made with other settings.
        HardspikeError: runs that failed, once all others are through.
    """
    choice("split", split, SPLITS)
    if seeds < 1 or folds < 0 or folds == 1:
        raise UsageError(f"seeds {seeds}, folds {folds}: seeds are 1 or more; folds 2 or more, or 0 for none")
    if folds and split != "test":
        raise UsageError(f"split '{split}': cross-validation tests on what each fold holds out; leave it at test")
    columns = columns or Columns()
    kinds(columns)  # before anything is trained
    if columns.robustness:
        check(Stress(corruptions=columns.robustness))
    # seed by seed, so that fewer seeds compare what an interrupted study has
    runs = [(name, _configs(replace(variant, seed=seed, threads=1, out=out / name / str(seed)), folds))
            for seed in range(seeds) for name, variant in plan.variants.items()]
    train_all([config for _, configs in runs for config in configs], launch)
    single, recordings = measured(runs, split, plan.keep, columns)
    return Study(compare(single), single, plan.first.data.name, recordings, plan.keep, folds)


def _configs(config: FitConfig, folds: int) -> list[FitConfig]:
    if not folds:
        return [config]
    return [replace(config, out=config.out.with_name(f"{config.out.name}-fold{fold}of{folds}"),
                    data=replace(config.data, folds=folds, fold=fold)) for fold in range(1, folds + 1)]
