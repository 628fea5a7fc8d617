"""Runs a NIR file in somebody else's reader. A script of the reader's environment, which `runner` starts.

    python worker.py READER GRAPH.nir DT SPIKES.npy OUT.npy    SPIKES: (T, B, ...); OUT: (T, B, ...) of the Output

The graph is read and run as the reader's documentation has it, in float64 where the reader can. An error is one line
of JSON on standard error, `{"error": ...}`, and exit status 1. It imports nothing of hardspike.
"""

import json
import os
import sys

import numpy as np
import torch


def main(name, graph, dt, spikes, out):
    torch.set_num_threads(1)
    quiet = os.dup(1)
    os.dup2(2, 1)  # some readers print what they think
    frames = torch.from_numpy(np.load(spikes)).float()
    with torch.no_grad():
        found = READERS[name](graph, float(dt), frames)
    np.save(out, found.detach().double().numpy())
    os.dup2(quiet, 1)


def snntorch(path, dt, frames):
    """`import_from_nir`, then once a step with the state that it returns, one sample after the other."""
    import nir
    from snntorch.import_nir import import_from_nir

    samples = []
    for sample in range(frames.shape[1]):  # a batch axis would meet Flatten as an axis of the value
        network, state, steps = import_from_nir(nir.read(path)), None, []
        for frame in frames[:, sample]:
            given = network(frame, state)
            given, state = given if isinstance(given, tuple) else (given, None)
            steps.append(given)
        samples.append(torch.stack(steps))
    return torch.stack(samples, 1)


def spikingjelly(path, dt, frames):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return stepped(import_from_nir(path, dt=dt), frames)


def norse(path, dt, frames):
    import nir
    from norse.torch.utils.import_nir import from_nir

    return stepped(from_nir(nir.read(path), ignore_warnings=True, dt=dt), frames)


def sinabs(path, dt, frames):
    import nir
    from sinabs.nir import from_nir

    steps, samples = frames.shape[:2]
    network = from_nir(nir.read(path), num_timesteps=steps)
    whole = frames.transpose(0, 1).reshape(samples * steps, *frames.shape[2:])
    given = network(whole)
    given = given[0] if isinstance(given, tuple) else given
    return given.reshape(samples, steps, *given.shape[1:]).transpose(0, 1)


def rockpool(path, dt, frames):
    """Whole sequences, batch first; every module keeps the dt that the reader gave it."""
    import nir
    from rockpool.nn.modules.torch.nir import from_nir

    given = from_nir(nir.read(path))(frames.transpose(0, 1))
    return (given[0] if isinstance(given, tuple) else given).transpose(0, 1)


def spyx(path, dt, frames):
    """Channels last, as its layers are; a picture at the Output is turned back."""
    import jax.numpy as jnp
    import nir
    from spyx.nir import from_nir

    last = frames.movedim(2, -1) if frames.ndim == 5 else frames
    _, given = from_nir(nir.read(path), jnp.asarray(last.numpy()), dt=dt)
    given = torch.from_numpy(np.array(given))
    return given.movedim(-1, 2) if given.ndim == 5 else given


def sc_neurocore(path, dt, frames):
    """A step at a time, one sample after the other: it has no batch axis."""
    import nir
    from sc_neurocore.nir_bridge import from_nir

    samples = []
    for sample in range(frames.shape[1]):
        network = from_nir(nir.read(path), dt=dt)
        (inlet,), (outlet,) = network.input_nodes, network.output_nodes
        steps = [network.step({inlet: frame.double().numpy()})[outlet] for frame in frames[:, sample]]
        samples.append(torch.from_numpy(np.stack(steps)))
    return torch.stack(samples, 1)


def stepped(network, frames):
    """Once a step on the whole batch, the state handed on."""
    state, steps = None, []
    for frame in frames:
        given, state = network(frame, state)
        steps.append(given)
    return torch.stack(steps)


READERS = {"snntorch": snntorch, "spikingjelly": spikingjelly, "norse": norse, "sinabs": sinabs, "rockpool": rockpool,
           "spyx": spyx, "sc-neurocore": sc_neurocore}

if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        print(json.dumps({"error": f"{type(error).__name__}: {said}" if said else type(error).__name__}),
              file=sys.stderr)
        sys.exit(1)
