"""A run's configuration and its epochs in somebody's tracker, through the tracker's own library, which is imported here
alone and only when it is asked for."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hardspike import HardspikeError, UsageError, choice, one_line

if TYPE_CHECKING:
    from trainer.config import FitConfig

Log = Callable[[dict[str, float], int], None]
"""Numbers by name, and the epoch that they are of."""
LONGEST = 500
"""Characters of a parameter that every MLflow server takes."""

MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Unless the environment says otherwise. MLflow's own seven tries, each after twice as long, take minutes to say that
no server is there."""


@contextmanager
def tracked(name: str | None, config: "FitConfig", values: dict[str, Any]) -> Iterator[Log]:
    """A function that notes an epoch, within a run of the tracker; it does nothing for no tracker.

    Args:
        name: of TRACKERS; None for none.
        config: of the run, which is called like its folder.
        values: the configuration, flat.

    Raises:
        UsageError: there is no such tracker, or it is not installed.
        HardspikeError: the tracker refuses.
    """
    if name is None:
        yield lambda numbers, epoch: None
        return
    library = require(name)
    try:
        log, close = TRACKERS[name](library, config, values)
    except Exception as error:  # a server that is not there, a key that is missing: whatever the library raises
        raise HardspikeError(f"track {name}: {one_line(error)}; leave --track out to train without it") from error
    whole = False
    try:
        yield log
        whole = True
    finally:
        close(whole)


def require(name: str) -> Any:
    """The tracker's library.

    Raises:
        UsageError: there is no such tracker, or it is not installed.
    """
    choice("track", name, TRACKERS)
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"track {name}: {name} is not installed (pip install 'hardspike[{name}]'); TensorBoard's "
                         "files and metrics.csv are written without it") from error


def _mlflow(mlflow: Any, config: "FitConfig", values: dict[str, Any]) -> tuple[Log, Callable[[bool], None]]:
    """Where MLFLOW_TRACKING_URI says, else where the library has it: ./mlflow.db of 3.17, ./mlruns of older ones."""
    for key, value in MLFLOW_PATIENCE.items():
        os.environ.setdefault(key, value)
    mlflow.start_run(run_name=config.out.name)
    mlflow.log_params({key: str(value)[:LONGEST] for key, value in values.items()})
    return (lambda numbers, epoch: mlflow.log_metrics(numbers, step=epoch),
            lambda whole: mlflow.end_run(status="FINISHED" if whole else "FAILED"))


def _wandb(wandb: Any, config: "FitConfig", values: dict[str, Any]) -> tuple[Log, Callable[[bool], None]]:
    """Where WANDB_MODE, WANDB_PROJECT and its other variables say."""
    run = wandb.init(name=config.out.name, config=values, dir=str(config.out))
    return lambda numbers, epoch: run.log(numbers, step=epoch), lambda whole: run.finish(exit_code=0 if whole else 1)


TRACKERS: dict[str, Callable[[Any, "FitConfig", dict[str, Any]], tuple[Log, Callable[[bool], None]]]] = {
    "mlflow": _mlflow, "wandb": _wandb}
"""Name, of the library too -> how it begins a run."""
