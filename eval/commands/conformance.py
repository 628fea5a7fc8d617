"""`hardspike eval conformance` and `hardspike eval golden`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from hardspike import OutFolder, OutText, UsageError, about, print_table, words
from targets.options import RandomEvents

if TYPE_CHECKING:
    from eval.conformance.measure import Reading, Task


def conformance(*graphs: Path, readers: str = "all", input: Path | None = None, dt: float | None = None,
                events: RandomEvents = RandomEvents(), json: OutText | None = None) -> list[Reading]:  # noqa: B008
    """Say which other readers of NIR load a graph, and which of them keep its spikes.

    Each reader runs in an environment of its own (`hardspike targets setup reader NAME`), as its documentation has it;
    what it gives at the Output is compared with `reference`, value for value and step for step.

    Args:
        graphs: .nir files; their input is the .npz file of the same name beside them, where there is one
        readers: names joined by commas, or all: snntorch, spikingjelly, norse, sinabs
        input: .npz file with spikes (T, B, ...), for all graphs
        dt: seconds a step, where a graph does not say
        events: how many, and what is drawn where there is no file
        json: file for the table
    """
    from eval import rows
    from eval.conformance.measure import measure
    from targets.readers.table import READERS, reader
    chosen = [reader(name) for name in (READERS if readers == "all" else words(readers))]
    if not chosen:
        raise UsageError(f"readers '{readers}': name at least one; known: {', '.join(READERS)}")
    found = measure([_task(path, input, dt, events) for path in graphs], chosen, dt)
    print_table(rows.conformance(found), "at the Output, against reference", json)
    for one in chosen:
        if any(reading.differ for reading in found if reading.reader == one.name):
            say(f"{one.name}: {one.conventions}")
    return found


def golden(folder: OutFolder) -> None:
    """Write ten graphs with input and every layer's spikes, for tests of other readers.

    NAME.nir, NAME.npz (spikes: the input; spikes/LAYER; output) and NAME.spikes.h5 (NIRData, for `nir.read_data`), and
    golden.json with the SHA-256 of each one's content.

    Args:
        folder: where they go; made where there is none
    """
    from eval.conformance.golden import write_all
    folder.mkdir(parents=True, exist_ok=True)
    found = write_all(folder)
    print_table([{"graph": one.name, "what": one.about, "nodes": len(one.graph.nodes),
                  "spikes": sum(int(spikes.sum()) for spikes in one.recording.spikes.values()),
                  "sha256": one.digest()[:16]} for one in found], f"{folder}")


def _task(path: Path, given: Path | None, dt: float | None, events: RandomEvents) -> Task:
    from eval.conformance.measure import Task
    from targets.bench import given_input, random_input
    from targets.graph import read
    graph = read(path)
    beside = path.with_suffix(".npz")
    file = given or (beside if beside.is_file() else None)
    with about(path):
        return Task(path, graph, given_input(graph, file, dt, events) if file else random_input(graph, dt, events))
