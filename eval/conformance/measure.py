"""What readers make of graphs: who loads them, and whose spikes at the Output are equal."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hardspike import progress
from targets.chips import chip_of
from targets.graph import Graph
from targets.readers.runner import read_by
from targets.readers.table import Reader
from targets.reference import REFERENCE


@dataclass(frozen=True)
class Task:
    """A graph and its input (T, B, *Input)."""

    path: Path
    graph: Graph
    frames: Tensor


@dataclass(frozen=True)
class Reading:
    """What one reader made of one graph.

    Args:
        version: of the reader's package.
        differ: values of the Output that differ from ours; None where there are none to compare.
        of: values that ours has there which are not zero.
        first: the first step in which one differs.
        said: why it refuses, or what shape it gives.
    """

    graph: Path
    reader: str
    version: str
    differ: int | None
    of: int
    first: int | None = None
    said: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.differ is None:
            return f"refuses: {self.said}"
        return "equal" if not self.differ else f"{self.differ} of {self.of} differ, first at step {self.first}"


def measure(tasks: list[Task], readers: list[Reader], dt: float | None = None) -> list[Reading]:
    """Run every graph in every reader, and compare what it gives with `reference`, or the chip of its integers.

    Raises:
        HardspikeError: a reader's environment was not made; a graph is refused here.
    """
    found = []
    for task in progress(tasks, "graphs"):
        ours = (chip_of(task.graph) or REFERENCE).run(task.graph, task.frames, dt).output
        for reader in readers:
            answer = read_by(reader, task.graph, task.frames, dt)
            of = int((ours != 0).sum())
            if answer.output is None:
                found.append(Reading(task.path, reader.name, answer.version, None, of, said=answer.refused))
            elif answer.output.numel() != ours.numel():
                found.append(Reading(task.path, reader.name, answer.version, None, of,
                                     said=f"gives {tuple(answer.output.shape)}, not {tuple(ours.shape)}"))
            else:
                wrong = ~torch.isclose(answer.output.reshape(ours.shape), ours, rtol=1e-5, atol=1e-6)
                first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.any() else None
                found.append(Reading(task.path, reader.name, answer.version, int(wrong.sum()), of, first))
    return found
