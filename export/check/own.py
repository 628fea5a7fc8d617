"""The user's own run against the file: their object, called as they call it, in float64, layer by layer, step by step.

Spikes are equal or not; membranes, what the graph's Output gives, and everything that forward returned (recomputed
from what the file gave) agree to float64 rounding. Every chunk of samples is recorded anew and has to give the very
same graph.
"""

import math
from collections.abc import Callable

import nir
import snntorch as snn
import torch
from torch import Tensor

from export.check.parity import HostPart, Parity, compare, merge
from export.check.rounding import FirstDifferences, first_differences
from export.freeze.neurons import KICK, delayed, factor
from export.watch.again import again
from export.watch.graph import Watched, build
from export.watch.parts import Part, few, parts
from export.watch.same import require_same_graph
from export.watch.snapshot import devices_of, start_random
from export.watch.steps import Population
from export.watch.usage import Run, Usage, on_device, recorded
from export.watch.usage import call as run_once
from export.watch.values import NeuronCall, Value, leaves, tensors, transform
from hardspike import HardspikeError
from targets import reference
from targets.recording import Recording

Also = Callable[[Run, Watched, nir.NIRGraph, Tensor, Recording], list[HostPart]]
TOLERANCE = 1e-9
"""Of the largest value: float64 sums in another order differ by far less, another network by far more."""


def check_own(usage: Usage, watched: Watched, written: nir.NIRGraph, expected: nir.NIRGraph,
              lossy_reset: bool = False, chunk: int = 64, also: Also | None = None) -> Parity:
    """What a comparison of the user's run with a file saw.

    Args:
        usage: the network and what it gets.
        watched: the graph that a first run gave.
        written: as read back from the file.
        expected: what was to be written.
        lossy_reset: only spikes are compared.
        chunk: samples at a time.
        also: compares the host's part: the run, what was watched, the graph, its frames and what it made of them.

    Raises:
        HardspikeError: the file holds other values than were written, a run gives another graph, a membrane or an
            output differs.
    """
    require_same_graph(expected, written, "the file does not hold what was written")
    results = []
    for part in parts(usage, chunk):
        results.append(_check_part(part, watched, written, lossy_reset, also))
    total = merge(results)
    total.notes += [note for note in (_said(usage, watched), *watched.notes, _kept_between_calls(few(usage))) if note]
    return total


def _check_part(part: Part, watched: Watched, written: nir.NIRGraph, lossy_reset: bool, also: Also | None) -> Parity:
    with recorded(part.usage) as run:
        now = build(run, dict(watched.graph.metadata), lossy_reset)
        require_same_graph(watched.graph, now.graph, "other samples give another graph, so what forward does depends "
                                                     "on them")
        frames = [input_frames(one) for one in now.sequences()]
        recordings = [reference.run(written, one, membrane=True) for one in frames]
        parities = [_spikes(run, *pair) for pair in zip(now.sequences(), recordings, strict=True)]
        if not lossy_reset and not any(parity.mismatches for parity in parities):
            with run.recorder.aside(), torch.no_grad():
                for parity, *one in zip(parities, now.sequences(), frames, recordings, strict=True):
                    _membranes(one[0], one[2])
                    parity.host = also(run, one[0], written, *one[1:]) if also else []
                _outputs(run, now, recordings)
    if not lossy_reset and not any(parity.mismatches for parity in parities):
        for parity, *one in zip(parities, now.sequences(), frames, recordings, strict=True):
            parity.float32 = _float32(part, *one)
    return merge(parities)


def _kept_between_calls(usage: Usage) -> str:
    """A note where a second call of forward, on the same samples, gives something else than the first."""
    if usage.outside or usage.calls:
        return ""
    with recorded(usage) as run, run.recorder, run.recorder.aside():
        arguments = on_device(usage, torch.float64)
        start_random(devices_of(usage.network))  # as before the first call: what is drawn is no state
        second = run_once(usage, arguments.args, arguments.kwargs)
        one, other = ([t for _, t in tensors(result)] for result in (run.results[0], second))
    if len(one) == len(other) and all(a.shape == b.shape and a.equal(b) for a, b in zip(one, other, strict=True)):
        return ""
    return ("forward keeps something from one call to the next (a state in an attribute?): a second call on the same "
            "samples gives something else; this is the first, from rest: reset between samples (utils.reset, zeros)")


def input_frames(watched: Watched) -> Tensor:
    """What went in, (T, B, *Input)."""
    streams = []
    for expr in watched.streams:
        values = expr.values if len(expr.values) == watched.steps else expr.values * watched.steps
        streams.append(torch.stack([value.tensor.detach().double() for value in values[:watched.steps]]).cpu())
    return streams[0] if len(streams) == 1 else torch.cat([stream.flatten(2) for stream in streams], 2)


def _spikes(run: Run, watched: Watched, recording: Recording) -> Parity:
    mine = {name: torch.stack([call.spikes for call in p.calls]).cpu() for name, p in watched.neurons.items()}
    return compare(f"{run.usage.name()}'s own run (float64)", "reference", mine, recording.spikes)


def _membranes(watched: Watched, recording: Recording) -> None:
    for name, population in watched.neurons.items():
        node = watched.compared.get(name)
        if node is None or population.calls[0].membrane is None:
            continue
        mine = torch.stack([call.membrane for call in population.calls]).double().cpu()
        theirs = recording.membrane[node].reshape(mine.shape)
        held = theirs.abs() > KICK / 2  # made to fire: a membrane that is emptied in the same step
        _require_close(mine, torch.where(held, 0.0, theirs), f"layer '{name}': its membrane")


def _require_close(mine: Tensor, theirs: Tensor, what: str) -> None:
    mine, theirs = mine.detach().double().cpu(), theirs.detach().double().cpu().reshape(mine.shape)
    difference = float((mine - theirs).abs().max()) if mine.numel() else 0.0
    if not difference <= TOLERANCE * max(1.0, float(mine.abs().max()) if mine.numel() else 0.0):
        raise HardspikeError(f"{what} differs by {difference:.3g} though all spikes are equal; please report this "
                             "network")


def _outputs(run: Run, watched: Watched, recordings: list[Recording]) -> None:
    """All that forward returned, recomputed from what the file gave."""
    given: dict[int, Tensor] = {}
    for one, recording in zip(watched.sequences(), recordings, strict=True):
        given |= _given(one, recording)
    for number, outputs in enumerate(run.outputs):
        for path, tensor, value in outputs:
            again_ = _recomputed(value, given) if value.neuron else None
            if again_ is not None:
                where = "".join(f"[{step!r}]" for step in path) + (f" of step {number}" if len(run.outputs) > 1 else "")
                _require_close(tensor, again_, f"{run.usage.name()}: what forward returns{where}: the output")


def _given(watched: Watched, recording: Recording) -> dict[int, Tensor]:
    """What the file gave, by the id of the value in the run that it stands for."""
    given: dict[int, Tensor] = {}
    for name, population in watched.neurons.items():
        spikes = recording.spikes[name].double()
        node = watched.compared.get(name)
        membranes = None if node is None else _returned(population, spikes, recording.membrane[node])
        for t, call in enumerate(population.calls):
            grade = factor(call.module).detach().double().cpu()
            if "spk" in call.outputs:
                shape = call.outputs["spk"].shape
                given[id(call.outputs["spk"])] = spikes[t].reshape(shape) * grade
            if "mem" in call.outputs and membranes is not None:
                given[id(call.outputs["mem"])] = membranes[t].reshape(call.outputs["mem"].shape)
    given |= output_values(watched, recording.output)
    return given


def output_values(watched: Watched, output: Tensor) -> dict[int, Tensor]:
    """What Output gave, (T, B, *shape), by the id of the value that it stands for."""
    given, start, flat = {}, 0, output.flatten(2)
    for values in watched.readout.parts:
        size = math.prod(values[0].shape[1:])
        given |= {id(value): flat[t, :, start:start + size].reshape(value.shape)
                  for t, value in enumerate(values) if value.neuron}
        start += size
    return given


def _returned(population: Population, spikes: Tensor, membrane: Tensor) -> Tensor:
    """The membrane as the neuron returns it, from the one that it compared with its threshold."""
    module = population.module
    membrane = torch.where(membrane.abs() > KICK / 2, 0.0, membrane)
    kind = int(module.reset_mechanism_val)
    if delayed(module) or kind == 2:
        return membrane
    theta = module.threshold.detach().double().cpu()
    shape = (len(population.calls), *population.calls[0].input.shape)
    membrane, spikes, past = membrane.reshape(shape), spikes.reshape(shape), torch.zeros(shape[1:], dtype=torch.float64)
    result = []
    for v, s in zip(membrane, spikes, strict=True):
        taken = s - (past - theta > 0).double()
        left = v - taken * (theta if kind == 0 else v)
        result.append(left)
        past = past if "mem" in population.forgets else left
    return torch.stack(result)


def _recomputed(value: Value, given: dict[int, Tensor]) -> Tensor | None:
    """A value from what is `given` by id; None where it hangs on a state that no file gives."""
    done, waiting = dict(given), [value]
    while waiting:
        node = waiting[-1]
        if id(node) in done:
            waiting.pop()
            continue
        if not node.neuron:
            done[id(node)] = node.tensor.cpu()
        elif isinstance(node.function, NeuronCall):
            return None
        elif missing := [child for child in leaves((node.args, node.kwargs)) if id(child) not in done]:
            waiting.extend(missing)
        else:
            args, kwargs = transform((node.args, node.kwargs), Value, lambda child: done[id(child)])
            done[id(node)] = again(node.function, args, kwargs, node.index)
    return done[id(value)]


def _float32(part: Part, watched: Watched, frames: Tensor, recording: Recording) -> FirstDifferences | None:
    """Where the same run in float32 parts from float64; None where the host or the graph computes otherwise."""
    plain = all(watched.compared.get(name) == name and not isinstance(p.module, snn.Alpha | snn.Lapicque)
                for name, p in watched.neurons.items())
    if not plain or watched.host or len(watched.streams) > 1 or part.usage.dtype() == torch.float64:
        return None
    if not torch.equal(frames.float().double(), frames):
        return None
    with recorded(part.usage, torch.float32) as run:
        calls = {name: run.recorder.calls.get(p.calls[0].name, []) for name, p in watched.neurons.items()}
        spikes = {}
        for name, population in watched.neurons.items():
            numbers = [call.number for call in population.calls]
            if max(numbers) >= len(calls[name]):
                return None
            spikes[name] = torch.stack([calls[name][number].spikes for number in numbers]).cpu()
    exact = Recording({name: recording.spikes[name] for name in recording.spikes if name in spikes}, recording.output,
                      recording.membrane)
    spikes = {name: values.reshape(exact.spikes[name].shape) for name, values in spikes.items()}
    return first_differences(watched.graph, frames, exact, spikes)


def _said(usage: Usage, watched: Watched) -> str:
    """What was run, and what of it is the host's."""
    how = f"called once a step, {watched.steps} steps" if usage.outside else \
        f"forward runs {watched.steps} steps itself"
    if usage.chain:
        how += "; compared with this chain of layers alone, not with a forward that the layers may belong to"
    text = f"run as you run it: {how}; membranes and all that forward returns agree too; Output gives " \
        f"{watched.readout.words}"
    if watched.readout.host:
        text += f" (the host does the rest: {', '.join(watched.readout.host)})"
    if watched.readout.others:
        text += f"; returned and not in Output (--result names another): {'; '.join(watched.readout.others[:6])}"
    if watched.host:
        text += f"; the host computes before the graph: {', '.join(watched.host)}"
    return text


