"""The runs of a study as jobs of Slurm, through submitit (MIT, optional: `pip install hardspike[slurm]`)."""

import time
from collections.abc import Iterator
from pathlib import Path

from eval.study.train import Launch, train
from hardspike import HardspikeError, UsageError, claimed, one_line, words
from trainer.config import FitConfig

PAUSE = 2.0
"""Seconds from one look at the jobs to the next."""


def parameters(text: str) -> dict[str, str | int]:
    """`key=value` pairs joined by commas; values that are whole numbers become such.

    Raises:
        UsageError: a word without `=`.
    """
    found: dict[str, str | int] = {}
    for word in words(text):
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise UsageError(f"slurm '{word}': key=value joined by commas, such as slurm_partition=cpu,timeout_min=120")
        found[key] = int(value) if value.lstrip("-").isdigit() else value
    return found


def slurm(folder: Path, jobs: int, options: str) -> Launch:
    """Jobs of one array, `jobs` at a time, one thread each; their scripts and logs lie in `folder`.

    Args:
        options: of submitit's `update_parameters`, see `parameters`.

    Raises:
        HardspikeError: submitit is not installed, Slurm is not there, or either refuses the options.
    """
    given = {"cpus_per_task": 1, "timeout_min": 240, "name": "hardspike", **parameters(options)}
    try:
        import submitit
    except ImportError as error:
        raise HardspikeError("engine slurm needs submitit; install it with `pip install hardspike[slurm]`") from error

    def launch(configs: list[FitConfig]) -> Iterator[tuple[FitConfig, str | None]]:
        held = [config for config in configs if claimed(config.out)]
        yield from ((config, None) for config in held)  # no job for what others are at
        free = [config for config in configs if config not in held]
        if not free:
            return
        try:
            executor = submitit.AutoExecutor(folder, cluster="slurm")
            executor.update_parameters(slurm_array_parallelism=jobs, **given)
            running = list(zip(free, executor.map_array(train, free), strict=True))
        except Exception as error:  # submitit's own kinds are many; all mean that nothing was submitted
            raise HardspikeError(f"Slurm takes no jobs ({one_line(error)}); see --slurm, or take --engine "
                                 "local") from error
        while running:
            ended = [(config, job) for config, job in running if job.done()]
            running = [pair for pair in running if pair not in ended]
            for config, job in ended:
                raised = job.exception()
                yield config, f"{config.out}: {one_line(raised)[-300:]} (logs: {job.paths.stderr})" if raised else None
            if not ended:
                time.sleep(PAUSE)
    return launch
