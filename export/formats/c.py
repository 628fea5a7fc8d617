"""A model as C for any machine, compiled and compared layer by layer: `hardspike export c`."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import nir
import torch
from torch import Tensor

from export.check import parity as parities
from export.check.parity import Parity
from export.check.report import announce, withdraw, write_report
from export.formats.integers import quantised
from export.model import Model, output_path, require_places
from export.options import Output, Quantisation
from export.recordings import Recordings, check_samples
from hardspike import HardspikeError, UsageError, atomic_path, logger, print_table, write_text
from targets import metadata, native
from targets.chips import chip, limits_of
from targets.graph import plan
from targets.loihi import compiled, rules
from targets.loihi.c import selftest
from targets.loihi.c.constants import fan_out
from targets.loihi.c.file import CFile, write
from targets.loihi.layers import Network, split
from targets.target import CHUNK, Target

_log = logger(__name__)

SANITIZED_SAMPLES = 4
"""Sanitizers make a program ten times slower; that many samples reach every line."""


@dataclass(frozen=True)
class Cost:
    """What a file takes.

    Args:
        code: bytes of machine code at -Os, of this machine's compiler; None: not known.
        constants, state: bytes.
        updates: neurons, each updated once a step (or skipped at rest).
        additions: weights added a step, mean over the samples of the check; None without a check.
        most: the same if everything fired at once.
    """

    code: int | None
    constants: int
    state: int
    updates: int
    additions: float | None
    most: int


def write_c(model: Model, output: Output, chosen: Quantisation, samples: int,
            recordings: Recordings) -> Parity | None:
    """Write a model as C, compile and run it, compare; see `export.commands.c`.

    Raises:
        UsageError: a chip with arithmetic of its own.
        HardspikeError: the graph makes no C file, it does not compile, or a spike differs; there is no file then.
    """
    check_samples(samples)
    machine = chip(chosen.target)
    if not machine.like_lava:
        raise UsageError(f"target '{machine.name}': C is written for the arithmetic of Loihi; give --target loihi2")
    out = output_path(model, output, ".c")
    require_places(output, *(out.with_name(f"{_name(out)}{end}") for end in (".h", "_test.c")))
    integer, _ = quantised(model, chosen, recordings)
    network = split(plan(integer, recordings.dt))
    rules.require(network, limits_of(machine))
    checked, cost = None, None
    if output.no_check:
        written = _written(network, out, machine, None)
    else:
        compiler = next(iter(native.compilers()), None)
        if compiler is None:
            raise HardspikeError(f"{out}: no C compiler (cc, gcc, clang, or what $CC names) to check it with; install "
                                 "one, or give --no-check")
        frames = _whole(recordings.part("test", samples, model)[0], integer)
        written = _written(network, out, machine, frames)
        checked, cost = _check(out, written, integer, machine, frames, compiler, recordings.dt)
    _place(out, written, integer, machine, recordings, model, checked)
    report = write_report(out, integer, checked)
    announce(out, report, checked, output.json)
    _say(out, written, cost or _cost(written, None, None))
    return checked


def _name(out: Path) -> str:
    """What the network of a file is called in C."""
    return re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_") or "network"


def _whole(frames: Tensor, graph: nir.NIRGraph) -> Tensor:
    """Frames of whole numbers that a byte holds.

    Raises:
        HardspikeError: they are not.
    """
    if not torch.equal(frames, frames.round()) or frames.min() < 0 or frames.max() > 255:
        raise HardspikeError(f"input values from {frames.min():g} to {frames.max():g}; a step in C takes whole numbers "
                             f"from 0 to 255; {metadata.whole_frames(graph)}")
    return frames.to(torch.int16).to(torch.uint8)


def _written(network: Network, out: Path, machine: Target, frames: Tensor | None) -> CFile:
    """The C for inputs of 0 and 1 where all `frames` are; else for whole bytes, or for as much as 24 bits allow."""
    most = 1 if frames is None else int(frames.max())
    about = f"{limits_of(machine).chip}'s arithmetic"
    for largest in ([255, most] if most > 1 else [1]):
        try:
            return write(network, _name(out), largest, about)
        except HardspikeError:
            if largest == most:
                raise
    raise AssertionError(most)


def _check(out: Path, written: CFile, graph, machine: Target, frames: Tensor, compiler: list[str],
           dt: float | None) -> tuple[Parity, Cost]:
    """Every layer's spikes of the compiled file against the chip's arithmetic, and the sanitizers' silence."""
    parts, additions = [], 0.0
    said = f"C ({' '.join(compiler)})"
    with ThreadPoolExecutor() as pool:  # the compiler is what takes time
        sanitized = pool.submit(_sanitized, written, frames[:, :SANITIZED_SAMPLES], compiler)
        code = pool.submit(selftest.code_bytes, written, compiler)
        for part in frames.split(CHUNK, 1):
            with compiled.without():
                exact = machine.run(graph, part, dt)
            found = selftest.run(written, part, compiler)
            parts.append(parities.compare(machine.name, said, exact.spikes, found.spikes))
            parities.require_same_output(out, exact.output.flatten(2), found.output, 0.0)
            additions += _additions(written, part, found.spikes)
        if not sanitized.result():
            _log.warning(f"{out}: not run with sanitizers, which {compiler[0]} has not got here")
    checked = parities.merge(parts)
    parities.refuse_silence(out, checked, metadata.data(graph) is not None)
    parities.require_equal(out, checked)
    return checked, _cost(written, code.result(), additions / (frames.shape[0] * frames.shape[1]))


def _sanitized(written: CFile, frames: Tensor, compiler: list[str]) -> bool:
    """Run with sanitizers; whether there are any."""
    if not selftest.sanitizers(compiler):
        return False
    selftest.run(written, frames, compiler, selftest.SANITIZED)
    return True


def _fans(written: CFile) -> list[tuple[str, Tensor]]:
    """(source key, weights that an event of each place meets, as stored) of every connection."""
    program = written.program
    everybody = [*program.populations.values(), *([written.outlet.sums] if written.outlet.sums else [])]
    return [(s.source, torch.from_numpy(fan_out(program, p, s).copy()).double()) for p in everybody
            for s in p.synapses]


def _additions(written: CFile, frames: Tensor, spikes: dict[str, Tensor]) -> float:
    """Weights that are added, over all samples and steps."""
    fired = {"": (frames.flatten(2) != 0).sum((0, 1)).double()}
    fired |= {key: spikes[p.label].sum((0, 1)).double() for key, p in written.program.populations.items()}
    total = 0.0
    for source, fan in _fans(written):
        total += float(fired[source][torch.from_numpy(written.program.geometry(source).order())] @ fan)
    return total


def _cost(written: CFile, code: int | None, additions: float | None) -> Cost:
    updates = sum(p.geometry.size for p in written.program.populations.values())
    return Cost(code, written.constants, written.state, updates, additions,
                int(sum(float(fan.sum()) for _, fan in _fans(written))))


def _place(out: Path, written: CFile, graph, machine: Target, recordings: Recordings, model: Model,
           checked: Parity | None) -> None:
    """The header, the self-test where there is a sample, and last the file itself: all of them, or none."""
    texts = {out: written.text, out.with_name(f"{written.name}.h"): written.header}
    if checked:
        sample = _whole(recordings.part("test", 1, model)[0], graph)
        with compiled.without():
            given = machine.run(graph, sample, recordings.dt).output.flatten(2)[:, 0]
        texts[out.with_name(f"{written.name}_test.c")] = selftest.shipped(written, sample[:, 0], given)
    with ExitStack() as places:  # left in the other order
        for path, text in texts.items():
            write_text(places.enter_context(atomic_path(path)), text)
        withdraw(out, out)


def _say(out: Path, written: CFile, cost: Cost) -> None:
    files = f"{written.name}.h" + (f" and {written.name}_test.c" if cost.additions is not None else "")
    print_table([{"code, bytes": cost.code, "constants, bytes": cost.constants, "state, bytes": cost.state,
                  "neuron updates a step": cost.updates, "additions a step": cost.additions,
                  "at most": cost.most}], f"{out}, with {files}")
