"""How fast the deployed graph runs on this machine, as `hardspike targets bench` measures it.

That is a chip's simulator, not the chip, whose steps no public number gives in seconds.
"""

import datetime
import os
import platform
from dataclasses import asdict, dataclass

from eval.cache import cached
from eval.mode import Mode
from eval.subject import Subject
from targets.bench import Bench, bench
from targets.table import TARGETS

RUNS, ROUNDS, SAMPLES = 20, 3, 64
"""Runs of one recording; runs of all; how many they are."""


@dataclass(frozen=True)
class Timing:
    """What one run took.

    Args:
        mode: what ran where.
        machine: of what kind.
        times: latency of one recording alone, throughput of many.
        made: when, to the minute; all modes of one model one after the other.
    """

    mode: Mode
    machine: str
    times: Bench
    made: str


def measure(subject: Subject, modes: list[Mode]) -> list[Timing]:
    """A graph on some targets, on recordings of `subject`. Measured once on a machine, all modes in one go, and kept:
    what a machine does besides changes from hour to hour.

    Raises:
        HardspikeError: a target refuses the graph or the recordings.
    """
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    part = subject.part.spread(SAMPLES)
    key = {"command": "report timing", **subject.key, "modes": modes, "machine": [machine, platform.node()]}

    def compute() -> dict:
        made = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
        return {"made": made, "times": [asdict(bench(
            TARGETS[f"{mode.target}"], subject.model.graph, subject.given(part.frames, mode), RUNS, rounds=ROUNDS))
            for mode in modes]}

    stored = cached(key, compute)
    return [Timing(mode, machine, Bench(**times), stored["made"])
            for mode, times in zip(modes, stored["times"], strict=True)]
