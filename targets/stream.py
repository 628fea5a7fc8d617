"""Frames of events as they come, and what every layer spikes at once: `hardspike targets run --stream`."""

import ctypes
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import nir
import numpy as np
import torch

from hardspike import HardspikeError, UsageError, parse_json
from hardspike.streams import stdout_trouble
from targets import native
from targets.graph import plan
from targets.loihi import rules
from targets.loihi.c.file import CFile, kept_slots, write
from targets.loihi.layers import split
from targets.target import Target

Answer = tuple[dict[str, np.ndarray], np.ndarray]
"""layer -> spikes, flat, in (C, H, W) order; and the Output, flat."""


class Stepper(Protocol):
    """A network between two steps."""

    def reset(self) -> None:
        """As before the first step."""

    def step(self, frame: np.ndarray) -> Answer:
        """One time step on `frame` (*Input), whole numbers."""


class Compiled:
    """The network's own C (`targets.loihi.c.file`), one step a call: state stays where it is."""

    def __init__(self, written: CFile, library: ctypes.CDLL):
        self.written, self.library, name = written, library, written.name
        self.call, self.clear = getattr(library, f"{name}_step"), getattr(library, f"{name}_reset")
        self.out = np.zeros(int(np.prod(written.outlet.shape)), np.int32 if written.outlet.sums else np.uint8)
        library.spikes_of.restype = ctypes.POINTER(ctypes.c_uint8)
        self.reset()

    def reset(self) -> None:
        self.clear()

    def step(self, frame: np.ndarray) -> Answer:
        most = self.written.program.largest
        if frame.min() < 0 or frame.max() > most:
            raise HardspikeError(f"a frame holds {frame.min() if frame.min() < 0 else frame.max()}; this network is "
                                 f"proven for 0 to {most} events a place: clip them, or run a whole recording")
        given = np.ascontiguousarray(frame, np.uint8)
        self.call(given.ctypes.data_as(ctypes.c_void_p), self.out.ctypes.data_as(ctypes.c_void_p))
        found = {}
        for number, p in enumerate(self.written.program.populations.values()):
            stored = np.ctypeslib.as_array(self.library.spikes_of(number), (p.geometry.size,))
            found[p.label] = stored[np.argsort(p.geometry.order())]
        return found, self.out.copy()


class Replayed:
    """Any target: every step runs all frames since the last reset, so that a step takes longer than the one before."""

    def __init__(self, target: Target, graph: nir.NIRGraph, dt: float | None):
        self.target, self.graph, self.dt = target, graph, dt
        self.frames: list[torch.Tensor] = []

    def reset(self) -> None:
        self.frames = []

    def step(self, frame: np.ndarray) -> Answer:
        self.frames.append(torch.from_numpy(frame.copy()))
        found = self.target.run(self.graph, torch.stack(self.frames)[:, None], self.dt)
        return ({name: spikes[-1, 0].flatten().numpy() for name, spikes in found.spikes.items()},
                found.output[-1, 0].flatten().numpy())


def stepper(target: Target, graph: nir.NIRGraph, dt: float | None = None) -> Stepper:
    """The network ready for frames: compiled C for a chip where there is a compiler, else `Replayed`.

    Raises:
        UsageError: a target that takes seconds to start.
        HardspikeError: the target cannot run the graph.
    """
    if target.setup:
        raise UsageError(f"target '{target.name}' takes seconds to start, no frames as they come; stream on loihi2, "
                         "which computes the same spikes")
    if not target.integers or not target.like_lava:
        return Replayed(target, graph, dt)
    network = split(plan(graph, dt))
    rules.require(network, target.integers)
    for largest in (255, 1) if target.integers.graded else (1,):
        try:
            written = write(network, "network", largest)
            break
        except HardspikeError:
            if largest == 1:
                return Replayed(target, graph, dt)
    library, _ = native.library(_shared(written))
    return Compiled(written, library) if library else Replayed(target, graph, dt)


def _shared(written: CFile) -> str:
    """The C file as a library that shows its layers."""
    cases = []
    slots = kept_slots(written.program, written.outlet)
    for number, key in enumerate(written.program.populations):
        now = f"[(state.{key}_now[0] + {slots[key] - 1}) % {slots[key]}]" if slots[key] > 1 else ""
        cases += [f"    case {number}:", f"        return state.{key}_spikes{now};"]
    text = written.text.replace(f'#include "{written.name}.h"\n', written.header)
    return "\n".join([text, "const uint8_t *spikes_of(int layer)", "{", "    switch (layer) {", *cases, "    default:",
                      "        return 0;", "    }", "}", ""])


def frames(lines: Iterable[str], shape: tuple[int, ...], source: str) -> Iterator[np.ndarray | None]:
    """The frames (*shape) of lines of JSON; None for a line that asks to start anew.

    A line is an array of numbers, flat or in `shape`; or `{"events": [[c, y, x], ...]}`, places that have one event
    each time they are named; or `{"reset": true}`.

    Raises:
        HardspikeError: a line is something else, by its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label = f"{source}: line {number}"
        value = parse_json(line, label)
        if isinstance(value, dict) and value.get("reset") is True:
            yield None
        elif isinstance(value, dict) and isinstance(value.get("events"), list):
            yield _placed(value["events"], shape, label)
        else:
            yield _dense(value, shape, label)


def _placed(events: list[Any], shape: tuple[int, ...], label: str) -> np.ndarray:
    frame = np.zeros(shape, np.int64)
    for event in events:
        place = event if isinstance(event, list) else [event]
        if len(place) != len(shape) or not all(type(at) is int and 0 <= at < n
                                               for at, n in zip(place, shape, strict=False)):
            raise HardspikeError(f"{label}: event {json.dumps(event)[:60]} is no place of {shape}")
        frame[tuple(place)] += 1
    return frame


def _dense(value: Any, shape: tuple[int, ...], label: str) -> np.ndarray:
    try:
        frame = np.asarray(value)
    except ValueError:
        frame = np.asarray("")
    if frame.dtype.kind not in "biuf" or frame.size != int(np.prod(shape)) or (frame != np.round(frame)).any():
        raise HardspikeError(f"{label}: is no frame: give {int(np.prod(shape))} whole numbers {shape}, "
                             '{"events": [[...], ...]} or {"reset": true}')
    return frame.astype(np.int64).reshape(shape)


def answers(running: Stepper, given: Iterable[np.ndarray | None]) -> Iterator[dict[str, Any]]:
    """For every frame `{"step", "spikes": {layer: places that fired}, "output"}`; steps count from a reset."""
    steps = itertools.count()
    for frame in given:
        if frame is None:
            running.reset()
            steps = itertools.count()
            continue
        spikes, output = running.step(frame)
        yield {"step": next(steps), "spikes": {name: np.flatnonzero(fired).tolist() for name, fired in spikes.items()},
               "output": output.tolist()}


def stream(target: Target, graph: nir.NIRGraph, source: Path, dt: float | None = None) -> int:
    """Print a line of JSON for every frame of `source` (- for standard input), as they come; how many there were.

    It ends where nobody reads the lines any more.

    Raises:
        HardspikeError: the file is missing, a line is no frame, or the target cannot run the graph.
    """
    layout = plan(graph, dt)
    running = stepper(target, graph, dt)
    shape, count = layout.output_shape[layout.input], 0
    label = "standard input" if str(source) == "-" else str(source)
    for answer in answers(running, frames(_lines(source, label), shape, label)):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if stdout_trouble():
            break
        count += 1
    return count


def _lines(source: Path, label: str) -> Iterator[str]:
    try:
        with open(0 if str(source) == "-" else source, closefd=str(source) != "-", encoding="utf8",
                  errors="replace") as lines:
            yield from lines
    except OSError as error:
        raise HardspikeError(f"{label}: cannot be read ({error.strerror})") from error
