"""How fast the deployed graph runs on this machine, as `python -m targets bench` measures it.

That is a chip's simulator, not the chip, whose steps no public number gives in seconds.
"""

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
    """

    mode: Mode
    machine: str
    times: Bench


def measure(subject: Subject, modes: list[Mode]) -> list[Timing]:
    """A graph on some targets, on recordings of `subject`. Measured once on a machine, and kept.

    Raises:
        HardspikeError: a target refuses the graph or the recordings.
    """
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    part = subject.part.spread(SAMPLES)
    found = []
    for mode in modes:
        key = {"command": "report timing", **subject.key, "mode": mode, "machine": [machine, platform.node()]}

        def compute(mode: Mode = mode) -> dict:
            target = TARGETS[f"{mode.target}"]
            return asdict(bench(target, subject.model.graph, subject.given(part.frames, mode), RUNS, rounds=ROUNDS))

        found.append(Timing(mode, machine, Bench(**cached(key, compute))))
    return found
