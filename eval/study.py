"""`python -m eval study`: variants of a training run over several seeds, as one table with a paired test."""

import contextlib
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import ttest_rel

from hardspike import HardspikeError, UsageError, nearest, print_table, progress
from trainer import checkpoint
from trainer.config import FitConfig, differences, from_dict
from trainer.data import load as load_data
from trainer.data.spikes_file import SPLITS
from trainer.evaluate import evaluate
from trainer.fit import fit


def study(file: Path, out: Path | None = None, seeds: int = 5, jobs: int = 2, split: str = "test",
          path: Path | None = None, epochs: int | None = None, json: Path | None = None,
          csv: Path | None = None) -> list[dict]:
    """Train every variant of a study with every seed and compare them with the study's first variant.

    Seed for seed, variants share initial weights, order of recordings and augmentation, so the test against the first
    variant is paired (two-sided t). Each is tested on frames as it was trained on. Runs that are already in `out` are
    not repeated; an interrupted one goes on.

    Args:
        file: YAML with `base`, the options that all runs share, and `variants`, name -> options on top of them
        out: folder of the runs; default runs/NAME
        seeds: seeds 0, 1, ...
        jobs: runs at a time, one thread each
        split: train, validation or test
        path: folder of the recordings
        epochs: instead of what the study says
        json: file for the table and every single run
        csv: file for the table

    Returns:
        one row a variant: mean and standard deviation over seeds of hard accuracy (%) and spikes per sample.
    """
    if split not in SPLITS:
        raise UsageError(f"split '{split}' is unknown; known: {', '.join(SPLITS)}")
    if seeds < 1 or jobs < 1 or (epochs is not None and epochs < 1):
        raise UsageError(f"seeds {seeds}, jobs {jobs}, epochs {epochs}: must be 1 or more")
    out = out or Path("runs") / file.stem
    variants = _variants(file, path, epochs)
    # seed by seed, so that fewer --seeds compare what an interrupted study has
    configs = [(name, replace(variant, seed=seed, threads=1, out=out / name / str(seed)))
               for seed in range(seeds) for name, variant in variants.items()]
    waiting = [config for _, config in configs if not _finished(config)]
    _train_all(waiting, jobs)
    single, recordings = _measured(configs, split)
    rows = _compare(single)
    title = (f"{file.stem}: {configs[0][1].data.name}, {split}, {recordings} recordings; mean and standard deviation "
             f"of {seeds} seeds, against {rows[0]['variant']}")
    print_table(rows, title, json, {"runs": single}, csv)
    return rows


def _variants(file: Path, path: Path | None, epochs: int | None) -> dict[str, FitConfig]:
    """The configuration of each variant, seed aside."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HardspikeError(f"{file}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    known = ("base", "variants")
    if not isinstance(content, dict) or not isinstance(content.get("variants"), dict) or not content["variants"]:
        raise HardspikeError(f"{file}: a study has `base`, options of `trainer fit`, and `variants`, name -> options")
    for key in content:
        if key not in known:
            raise HardspikeError(f"{file}: key '{key}' is unknown{nearest(key, known)}; known: {', '.join(known)}")
    variants = {}
    base = content.get("base")
    for name, options in content["variants"].items():
        for part, values in (("base", base), (name, options)):
            if not isinstance(values, dict | None):
                raise HardspikeError(f"{file}, {part}: {values!r} where options of `trainer fit` are expected")
            if own := {"seed", "out", "threads"} & set(values or {}):
                raise HardspikeError(f"{file}, {part}: {', '.join(sorted(own))}: set by the study itself; remove it")
        if str(name) in (".", "..") or "/" in str(name):
            raise HardspikeError(f"{file}: variant '{name}' is to be a folder's name; no '/' in it")
        config = from_dict(_merged(base or {}, options or {}), f"{file}, {name}")
        variants[str(name)] = replace(config, epochs=epochs or config.epochs,
                                      data=replace(config.data, path=path or config.data.path))
    first = next(iter(variants.values())).data
    for name, variant in variants.items():
        for key in ("name", "path", "validation", "split_seed"):
            if (own := getattr(variant.data, key)) != (wanted := getattr(first, key)):
                raise HardspikeError(f"{file}, {name}: data.{key} {own} instead of {wanted}: a study compares on "
                                     "the same recordings; make two studies")
    return variants


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
    """One run in a process of its own; what it prints goes to its folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    with open(config.out / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        fit(config, resume=(config.out / "last.pt").exists())


def _measured(configs: list[tuple[str, FitConfig]], split: str) -> tuple[list[dict], int]:
    """A row a run, in the order of `configs`, and how many recordings each was tested on."""
    rows, frames, part = {}, None, None
    # runs on the same frames one after the other: one data set in memory, each read once
    for name, config in progress(sorted(configs, key=lambda pair: str(pair[1].data)), split):
        if config.data != frames:
            frames, data = config.data, load_data(config.data)
            part = getattr(data, split)
        stored = checkpoint.load(config.out / "best.pt")
        found = evaluate(stored.network, data, part, hard=True)
        rows[config.out] = {"variant": name, "seed": config.seed, "accuracy %": 100 * found.accuracy,
                            "spikes": sum(found.spikes.values()), "epoch": stored.epoch,
                            "train s": sum(row["train_seconds"] for row in stored.history)}
    return [rows[config.out] for _, config in configs], len(part.labels)


def _compare(single: list[dict]) -> list[dict]:
    """Means, deviations and the paired test against the first variant."""
    names = list(dict.fromkeys(row["variant"] for row in single))
    values = {name: {key: np.array([row[key] for row in single if row["variant"] == name])
                     for key in ("accuracy %", "spikes")} for name in names}
    rows = []
    for name in names:
        row = {"variant": name}
        for key in ("accuracy %", "spikes"):
            own, base = values[name][key], values[names[0]][key]
            several = len(own) > 1
            row |= {key: own.mean(), f"{key} sd": own.std(ddof=1) if several else None}
            difference = own - base if key == "accuracy %" else 100 * (own / base - 1)
            label = "points" if key == "accuracy %" else "spikes change %"
            tested = several and name != names[0] and np.ptp(own - base) > 0
            row |= {label: difference.mean(), f"{label} p": float(ttest_rel(own, base).pvalue) if tested else None}
        rows.append(row)
    return rows
