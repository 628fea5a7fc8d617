"""Variants of a training run over several seeds, compared in pairs."""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.options import SPLITS, whole
from eval.statistics import holm, paired_t
from hardspike import HardspikeError, UsageError, choice, nearest, progress, read_yaml
from targets.inputs import check_labels
from trainer import checkpoint
from trainer.config import FitConfig, differences, from_dict
from trainer.data import load as load_data
from trainer.evaluate import evaluate
from trainer.fit import fit


@dataclass(frozen=True)
class StudyRun:
    """One variant with one seed, tested with hard spikes.

    Args:
        accuracy: in %.
        spikes: a recording.
        epoch: after which the weights were kept, of
        epochs: in all.
        train_seconds: of the run.
    """

    variant: str
    seed: int
    accuracy: float
    spikes: float
    epoch: int
    epochs: int
    train_seconds: float


@dataclass(frozen=True)
class Change:
    """A variant against the first one, seed by seed.

    Args:
        mean: of the differences: points of accuracy, or spikes in % of the first one's.
        p: of the paired t test (two-sided); None where there is nothing to test.
        p_holm: the same, corrected for all tests of the table (Holm).
    """

    mean: float
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Variant:
    """One variant over all seeds; deviations are None for a single seed.

    Args:
        accuracy, accuracy_deviation: in %.
        spikes, spikes_deviation: a recording.
        epoch: after which weights were kept, mean over seeds.
        points: accuracy against the first variant.
        change: spikes against the first variant.
    """

    variant: str
    accuracy: float
    accuracy_deviation: float | None
    spikes: float
    spikes_deviation: float | None
    epoch: float
    points: Change
    change: Change


@dataclass(frozen=True)
class Study:
    """A study's results: `variants` in its order, every single run, the data's name and how many recordings."""

    variants: list[Variant]
    runs: list[StudyRun]
    source: str
    recordings: int


def measure(variants: dict[str, FitConfig], out: Path, seeds: int = 5, jobs: int = 2, split: str = "test") -> Study:
    """Train every variant with every seed and compare them with the first variant.

    Seed for seed, variants share initial weights, order of recordings and augmentation, so the test against the first
    variant is paired. Each is tested on frames as it was trained on. Runs that are already in `out` are not repeated;
    an interrupted one goes on.

    Args:
        variants: name -> configuration, seed aside; see `read`.
        out: folder of the runs.
        seeds: seeds 0, 1, ...
        jobs: runs at a time, one thread each.
        split: train, validation or test.

    Raises:
        UsageError: a number out of its range, or runs in `out` that were made with other settings.
        HardspikeError: runs that failed, once all others are through.
    """
    choice("split", split, SPLITS)
    whole("seeds", seeds, 1)
    whole("jobs", jobs, 1)
    # seed by seed, so that fewer --seeds compare what an interrupted study has
    configs = [(name, replace(variant, seed=seed, threads=1, out=out / name / str(seed)))
               for seed in range(seeds) for name, variant in variants.items()]
    waiting = [config for _, config in configs if not _finished(config)]
    _train_all(waiting, jobs)
    single, recordings = _measured(configs, split)
    return Study(compare(single), single, configs[0][1].data.name, recordings)


def read(file: Path, path: Path | None = None, epochs: int | None = None) -> dict[str, FitConfig]:
    """The configuration of each variant of a study's file, seed aside.

    Args:
        file: YAML with `base`, the options that all runs share, and `variants`, name -> options on top of them.
        path: folder of the recordings, instead of what the study says.
        epochs: of the base; a variant's own are scaled by as much, so that variants which are given more epochs to
            cost the same compute keep doing so.

    Raises:
        UsageError: `epochs` below 1.
        HardspikeError: the file cannot be read, or holds something else; variants on other recordings.
    """
    if epochs is not None:
        whole("epochs", epochs, 1)
    base, options = _content(file)
    scale = epochs / from_dict(base, f"{file}, base").epochs if epochs else None
    variants = {}
    for name, own in options.items():
        config = from_dict(_merged(base, own), f"{file}, {name}")
        config = replace(config, data=replace(config.data, path=path or config.data.path))
        variants[name] = replace(config, epochs=max(1, round(config.epochs * scale))) if scale else config
    first = next(iter(variants.values())).data
    for name, variant in variants.items():
        for key in ("name", "path", "validation", "split_seed"):
            if (own := getattr(variant.data, key)) != (wanted := getattr(first, key)):
                raise HardspikeError(f"{file}, {name}: data.{key} {own} instead of {wanted}: a study compares on "
                                     "the same recordings; make two studies")
    return variants


def _content(file: Path) -> tuple[dict, dict[str, dict]]:
    """`base` and `variants` of a study's file, as plain values."""
    content = read_yaml(file)
    known = ("base", "variants")
    if not isinstance(content.get("variants"), dict) or not content["variants"]:
        raise HardspikeError(f"{file}: a study has `base`, options of `trainer fit`, and `variants`, name -> options")
    for key in content:
        if key not in known:
            raise HardspikeError(f"{file}: key '{key}' is unknown{nearest(str(key), known)}; known: {', '.join(known)}")
    variants = {str(name): options for name, options in content["variants"].items()}
    for part, values in (("base", content.get("base")), *variants.items()):
        if not isinstance(values, dict | None):
            raise HardspikeError(f"{file}, {part}: {values!r} where options of `trainer fit` are expected")
        if own := {"seed", "out", "threads"} & set(values or {}):
            raise HardspikeError(f"{file}, {part}: {', '.join(sorted(own))}: set by the study itself; remove it")
    for name in variants:
        if name in (".", "..", "") or "/" in name or not name.isprintable():
            raise HardspikeError(f"{file}: variant {name!r} is to be a folder's name; no '/' in it")
    return content.get("base") or {}, {name: options or {} for name, options in variants.items()}


def _merged(base: dict, over: dict) -> dict:
    """`over` on top of `base`, nested."""
    result = deepcopy(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if nested else value
    return result


def _finished(config: FitConfig) -> bool:
    """Whether the run is there, whole.

    Raises:
        UsageError: it was made with other settings.
    """
    last = config.out / "last.pt"
    if not last.exists():
        return False
    stored = checkpoint.load(last)
    if other := differences(stored.config, config):
        raise UsageError(f"{config.out} was made with other settings ({'; '.join(other)}); choose another --out")
    return stored.epoch == config.epochs and (config.out / "best.pt").exists()


def _train_all(configs: list[FitConfig], jobs: int) -> None:
    """Run all of them, `jobs` at a time.

    Raises:
        HardspikeError: runs that failed, once all others are through.
    """
    failed = []
    # spawn: torch's threads do not survive a fork. An interrupt ends a process, which else would take its next run
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), signal.signal,
                             (signal.SIGINT, signal.SIG_DFL)) as pool:
        runs = [pool.submit(_train, config) for config in configs]
        try:
            for run in progress(as_completed(runs), "runs", total=len(runs)):
                try:
                    run.result()
                except BrokenProcessPool as error:
                    raise HardspikeError("the process of a run was killed, perhaps for memory: take fewer --jobs; the "
                                         "same command goes on from the epochs that are done") from error
                except HardspikeError as error:
                    failed.append(str(error))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise HardspikeError(f"{len(failed)} of {len(configs)} runs failed: {' | '.join(sorted(failed))}")


def _train(config: FitConfig) -> None:
    """One run in a process of its own, whose output from now on is the log in the run's folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    with open(config.out / "log.txt", "a") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        fit(config, resume=(config.out / "last.pt").exists())
    finally:
        sys.stdout.flush()


def _measured(configs: list[tuple[str, FitConfig]], split: str) -> tuple[list[StudyRun], int]:
    """Every run, in the order of `configs`, and how many recordings each was tested on."""
    found, frames, part = {}, None, None
    # runs on the same frames one after the other: one data set in memory, each read once
    for name, config in progress(sorted(configs, key=lambda pair: str(pair[1].data)), split):
        if config.data != frames:
            frames, data = config.data, load_data(config.data)
            part = getattr(data, split)
        stored = checkpoint.load(config.out / "best.pt")
        check_labels(part.labels, stored.classes, f"{config.data.name}, {config.out}")
        result = evaluate(stored.network, data, part, hard=True)
        found[config.out] = StudyRun(name, config.seed, 100 * result.accuracy, sum(result.spikes.values()),
                                     stored.epoch, config.epochs,
                                     sum(row["train_seconds"] for row in stored.history))
    return [found[config.out] for _, config in configs], len(part.labels)


def compare(runs: list[StudyRun]) -> list[Variant]:
    """Means, deviations and the paired tests against the first variant; runs of a variant are in the order of seeds."""
    names = list(dict.fromkeys(run.variant for run in runs))

    def values(name: str, key: str) -> np.ndarray:
        return np.array([getattr(run, key) for run in runs if run.variant == name], dtype=float)

    def deviation(of: np.ndarray) -> float | None:
        return float(of.std(ddof=1)) if len(of) > 1 else None

    raw = [None if name == names[0] else paired_t(values(name, key), values(names[0], key))
           for name in names for key in ("accuracy", "spikes")]
    tests = iter(zip(raw, holm(raw), strict=True))
    found = []
    for name in names:
        own, base = ({key: values(one, key) for key in ("accuracy", "spikes")} for one in (name, names[0]))
        points = Change(float((own["accuracy"] - base["accuracy"]).mean()), *next(tests))
        change = Change(float((100 * (own["spikes"] / base["spikes"] - 1)).mean()), *next(tests))
        found.append(Variant(name, float(own["accuracy"].mean()), deviation(own["accuracy"]),
                             float(own["spikes"].mean()), deviation(own["spikes"]),
                             float(values(name, "epoch").mean()), points, change))
    return found
