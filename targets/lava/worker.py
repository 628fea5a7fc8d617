"""Runs a `.net` file in Lava's fixed-point CPU simulator. A script of the Lava environment, which `runner` starts.

    python worker.py check                 prints the versions of what it needs, as JSON
    python worker.py run NET SPIKES OUT    SPIKES: .npy (T, S, *input) of 0 and 1; OUT: .npz, spikes of each layer
    python worker.py processes DESCRIPTION SPIKES OUT    the same for any graph, as `processes.describe` writes it

Prints a line `step N` now and then. An error is one line of JSON on standard error, `{"error": ...}`, and exit
status 1. All samples go through in one run, state and buffers of every layer reset between them. It imports nothing
of hardspike, whose Python is newer.
"""

import dataclasses
import json
import os
import platform
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np

CHUNK = 64
"""Steps a call of Lava's `run`: what its channels to this process have to hold."""


def main(arguments):
    allow_unhashable_defaults()
    import_netx()
    if arguments == ["check"]:
        versions = {name: version(name) for name in ("lava-nc", "lava-dl", "numpy")}
        print(json.dumps({"python": platform.python_version(), **versions}))
    else:
        command, net, spikes, out = arguments
        {"run": simulate, "processes": simulate_processes}[command](net, np.load(spikes, mmap_mode="r"), out)


def allow_unhashable_defaults():
    """lava-nc 0.10.0 was written for Python 3.10, where any object may be the default of a dataclass field.

    From 3.11 on the default has to be hashable, and dataclasses with `__eq__` are not: give those of Lava
    `object.__hash__` (identity) while they are made.
    """
    if sys.version_info < (3, 11):  # noqa: UP036
        return
    process = dataclasses._process_class  # type: ignore[attr-defined]  # private: typeshed leaves it out

    def with_hash(cls, *options):
        made = process(cls, *options)
        if cls.__module__.split(".")[0] == "lava" and made.__hash__ is None:
            made.__hash__ = object.__hash__
        return made

    dataclasses._process_class = with_hash  # type: ignore[attr-defined]  # as above


def import_netx():
    """Import lava-dl's netx without torch, which it needs for two things that no `.net` file of ours has.

    `netx.hdf5` takes the parameters of resonate-and-fire neurons from slayer, `netx` itself imports
    `sequential_modules`: empty modules stand in. Lava's compiler asks for their `__file__` and executes every module
    beside it, so it says that of softlif, which is alone in its folder.
    """
    file = Path(__file__).parent / "softlif" / "__init__.py"
    for name in ("slayer", "slayer.neuron", "slayer.neuron.rf", "netx.sequential_modules"):
        module = types.ModuleType(f"lava.lib.dl.{name}")
        module.__file__, module.__path__ = str(file), []
        sys.modules[module.__name__] = module
    vars(sys.modules["lava.lib.dl.slayer.neuron.rf"])["neuron_params"] = None
    import lava.lib.dl.netx.hdf5  # noqa: F401


def simulate(net, spikes, out):
    """Run `net` on `spikes` (T, S, *input) and write the spikes of layer i as array `i`, (T, S, *shape), to `out`.

    Layer i (from 1) answers i steps late, so S samples of T steps take S * T + L steps, layer i's reset falls on
    step i + 1, i + 1 + T, ... (counted from 1), and its steps i ... i + S * T (counted from 0) are what it gives
    without latency.
    """
    from lava.proc.io.injector import Injector
    from softlif import network

    net = network(net, reset_interval=len(spikes), reset_offset=1)
    inlet = Injector(shape=net.inp.shape, buffer_size=CHUNK)
    inlet.out_port.connect(net.inp)
    record(inlet, net.inp.shape, [(layer.out, late) for late, layer in enumerate(net.layers, start=1)], spikes, out)


def simulate_processes(description, spikes, out):
    """As `simulate`, for the layers and connections of a description, built of Lava's own processes and of wires."""
    from lava.lib.dl.netx.utils import optimize_weight_bits
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.proc.io.injector import Injector
    from lava.proc.lif.process import LIFReset
    from softlif import SoftLIF
    from wire import Wire

    arrays = np.load(opened(description), allow_pickle=False)
    net = json.loads(bytes(arrays["network"]).decode())
    interval, shape = net["interval"], tuple(net["input"])
    inlet = Injector(shape=shape, buffer_size=CHUNK)
    neurons = []
    for number, layer in enumerate(net["layers"]):
        kind = SoftLIF if layer["subtracts"] else LIFReset
        neurons.append(kind(shape=tuple(layer["shape"]), du=layer["iDecay"] - 1, dv=layer["vDecay"],
                            vth=layer["vThMant"], bias_mant=arrays[f"bias/{number}"], bias_exp=6,
                            reset_interval=interval, reset_offset=layer["late"] + 1))
    for number, c in enumerate(net["connections"]):
        port, late, given = inlet.out_port, 0, shape
        if c["source"] >= 0:
            port, late = neurons[c["source"]].s_out, net["layers"][c["source"]]["late"]
            given = tuple(net["layers"][c["source"]]["shape"])
        if c["late"] or c["delay"]:
            wire = Wire(shape=given, late=c["late"], source=late, delay=c["delay"], interval=interval)
            port.connect(wire.s_in)
            port = wire.s_out
        weight, target = arrays[f"weight/{number}"], neurons[c["target"]]
        if c["type"] == "conv":
            conv = Conv(weight=weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1), input_shape=tuple(c["from"]),
                        groups=c["groups"], **{key: c[key][::-1] for key in ("stride", "padding", "dilation")})
            reshaped(port, conv.s_in).connect(conv.s_in)
            reshaped(conv.a_out, target.a_in).connect(target.a_in)
        else:
            weight, bits, exponent, _ = optimize_weight_bits(weight)  # its sign modes are not numbered as Lava counts
            dense = Dense(weights=weight, num_weight_bits=bits, weight_exp=exponent)
            reshaped(port, dense.s_in).connect(dense.s_in)
            reshaped(dense.a_out, target.a_in).connect(target.a_in)
    record(inlet, shape, [(neuron.s_out, layer["late"]) for neuron, layer in zip(neurons, net["layers"], strict=True)],
           spikes, out)


def reshaped(port, to):
    """`port` in the shape of the port `to`."""
    return port if port.shape == to.shape else port.reshape(to.shape)


def opened(path):
    """A description stays open while its arrays are read."""
    return open(path, "rb")


def record(inlet, shape, outlets, spikes, out):
    """Run what hangs on `inlet` and write the spikes of every (port, steps late) of `outlets`, without latency."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
    from lava.proc.io.injector import Injector, PyLoihiInjectorModel

    steps, samples = spikes.shape[:2]
    ports, lates = zip(*outlets, strict=True)
    total = steps * samples + max(lates)
    extractors = [Extractor(shape=port.shape, buffer_size=CHUNK) for port in ports]
    for port, extractor in zip(ports, extractors, strict=True):
        port.connect(extractor.in_port)
    inlet.create_runtime(Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={
        Injector: PyLoihiInjectorModel, Extractor: PyLoihiExtractorModel}))
    recorded = [np.zeros((total, *port.shape), np.uint8) for port in ports]
    silence = np.zeros(shape)
    for start in range(0, total, CHUNK):
        chunk = range(start, min(start + CHUNK, total))
        for t in chunk:
            sample, step = divmod(t, steps)
            inlet.send(to_lava(spikes[step, sample], shape) if sample < samples else silence)
        run(inlet, RunSteps(num_steps=len(chunk)))
        for found, extractor in zip(recorded, extractors, strict=True):
            for t in chunk:
                found[t] = extractor.receive()
        print(f"step {chunk.stop}", flush=True)
    inlet.stop()
    arrays = {}
    for number, (late, found) in enumerate(zip(lates, recorded, strict=True), start=1):
        found = found[late:late + steps * samples].reshape(samples, steps, *found.shape[1:])
        arrays[str(number)] = np.swapaxes(found, 0, 1).transpose(0, 1, *range(found.ndim - 1, 1, -1))
    np.savez(out, **arrays)  # type: ignore[arg-type]  # numpy's stubs take any name for `allow_pickle`


def to_lava(frame, shape):
    """(C, H, W) as Lava's (W, H, C), or flat where the first layer is dense."""
    return (frame.reshape(shape) if len(shape) == 1 else frame.reshape(shape[::-1]).transpose(2, 1, 0)).astype(float)


def run(process, condition):
    """Lava's own error only says that there was one; the cause is in the simulator's processes."""
    try:
        process.run(condition)
    except RuntimeError:
        for actor in process.runtime._messaging_infrastructure.actors:
            if actor.exception:
                raise actor.exception[0] from None
        raise


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}), file=sys.stderr,
              flush=True)
        os._exit(1)  # a plain exit would wait for the simulator's processes, which wait for this one
