"""The runs of a study, by any number of processes and machines that share its folder."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from hardspike import HardspikeError, UsageError, claim, claimed, progress
from hardspike.log import show
from trainer import checkpoint
from trainer.config import FitConfig, differences
from trainer.fit import fit

PAUSE = 2.0
"""Seconds before one looks again whether runs of others are through, or have lost their process."""

Launch = Callable[[list[FitConfig]], Iterator[tuple[FitConfig, str | None]]]
"""Runs, tried once each -> each with what went wrong, as they end. A run that somebody else has ends at once."""


def train_all(configs: list[FitConfig], launch: Launch, pause: float = PAUSE) -> None:
    """Train all runs that are not there yet, and wait for those that others train.

    Every run is claimed by a file in its folder (`hardspike.claim`), so that any number of processes may be given the
    same study: each takes what is free. A run whose process or machine is gone is taken over, after its last whole
    epoch.

    Raises:
        UsageError: a run was made with other settings.
        HardspikeError: runs that failed, once all others are through.
    """
    failed: dict[str, str] = {}
    waiting = [config for config in configs if not finished(config)]
    with progress([], "runs", total=len(waiting)) as bar:
        while waiting:
            left = []
            for config, error in launch(waiting):
                if error:
                    failed[str(config.out)] = error
                if error or finished(config):
                    bar.update()
                else:
                    left.append(config)
            if len(left) == len(waiting):  # others have them all
                time.sleep(pause)
            waiting = left
    if failed:
        raise HardspikeError(f"{len(failed)} of {len(configs)} runs failed: {' | '.join(sorted(failed.values()))}")


def finished(config: FitConfig) -> bool:
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


def local(jobs: int) -> Launch:
    """Processes of this machine, `jobs` at a time, one thread each."""
    def launch(configs: list[FitConfig]) -> Iterator[tuple[FitConfig, str | None]]:
        waiting = deque(configs)
        running: dict[Connection, tuple[BaseProcess, FitConfig]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    config = waiting.popleft()
                    if claimed(config.out):  # no process for what others are at
                        yield config, None
                    else:
                        process, answer = _started(config)
                        running[answer] = process, config
                # an answer can be read when it is there, and when its process is gone without one
                for answer in [one for one in running if one in connection.wait(list(running))]:
                    process, config = running.pop(answer)
                    yield config, _error(process, answer)
        finally:
            for process, _ in running.values():
                process.terminate()
    return launch


def _started(config: FitConfig) -> tuple[BaseProcess, Connection]:
    """A process of its own for a run, so that its peak memory is its own too, and where its answer comes."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    answer, ours = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(train, config, ours))
    process.start()
    ours.close()
    return process, answer


def _error(process: BaseProcess, answer: Connection) -> str | None:
    """What went wrong in a run whose process has ended.

    Raises:
        HardspikeError: the process was killed.
    """
    try:
        said = answer.recv()
    except EOFError as error:
        raise HardspikeError("the process of a run was killed, perhaps for memory: take fewer --jobs; the same command "
                             "goes on from the epochs that are done") from error
    finally:
        process.join()
    return said


def _run(train: Callable[[FitConfig], None], config: FitConfig, answer: Connection) -> None:
    """What a run's process does. An interrupt ends it; so does the end of its parent, whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(config)
        answer.send(None)
    except HardspikeError as error:
        answer.send(str(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def train(config: FitConfig) -> None:
    """One run, unless somebody else has it or it is there, in a process whose output is then the log in its folder."""
    with claim(config.out) as ours:
        if not ours or finished(config):
            return
        with open(config.out / "log.txt", "a") as log:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
        show()  # whatever the study itself is to say
        try:
            fit(config, resume=(config.out / "last.pt").exists())
        finally:
            sys.stdout.flush()
