"""Runs a `.net` file in Intel's Lava simulator: starts `worker` in the Lava environment and reads its spikes."""

import json
import math
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hardspike import HardspikeError, progress, scratch_folder
from targets import hdf5
from targets.inputs import check_spikes, computable
from targets.lava.net_file import KIND, NetFile, copied, described
from targets.lava.processes import describe
from targets.lava.setup import WORKER, required
from targets.loihi.layers import Network
from targets.loihi.readout import read_out
from targets.recording import Recording

_LONGEST = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of the folder in which the simulator's processes make their sockets; a socket's path has 107 at most."""


def run(net: Path, spikes: Tensor, timeout: float = 3600, folder: Path | None = None) -> Recording:
    """Run `net` on `spikes` (T, B, *input) of 0 and 1; every sample starts from state zero.

    The spikes of every layer come without the latency of Lava's layers, as if a spike crossed all layers within its
    step, in (C, H, W) order.

    Args:
        timeout: seconds after which the simulator is ended.
        folder: of the Lava environment, where it is not the default one.

    Raises:
        HardspikeError: there is no Lava environment, the file or the spikes are refused, the simulator fails or
            takes too long.
    """
    net = Path(net)
    required(folder)
    content = hdf5.read(net, KIND)
    network, spikes = described(net, content), computable(spikes)
    _check(net, network, spikes)
    with scratch_folder() as scratch:
        copy = scratch / net.name
        hdf5.write(copy, lambda made: copied(content, made))  # what was looked at, and nothing else
        found = _simulate("run", copy, network.layers, spikes, timeout, folder, str(net))
    last = found[list(network.layers)[-1]].double()
    if network.readout is None:
        return Recording(found, last)
    weight, bias = (torch.from_numpy(values) for values in network.readout)
    return Recording(found, last.flatten(2) @ weight.T + bias)


def run_processes(network: Network, spikes: Tensor, timeout: float = 3600, folder: Path | None = None) -> Recording:
    """Run any integer network on `spikes` (T, B, *Input) of 0 and 1, as `run`, built of Lava's processes.

    Args:
        timeout: seconds after which the simulator is ended.
        folder: of the Lava environment, where it is not the default one.

    Raises:
        HardspikeError: there is no Lava environment, Lava does not compute the network or the spikes exactly, the
            simulator fails or takes too long.
    """
    required(folder)
    spikes = check_spikes(network.plan, computable(spikes))
    _require_events(spikes)
    with scratch_folder() as scratch:
        path = scratch / "graph.npz"
        layers = describe(network, len(spikes), path)
        shapes = {name: layer.shape for name, layer in layers.items()}
        found = _simulate("processes", path, shapes, spikes, timeout, folder, "graph")
    result = Recording(found, torch.empty(0))
    result.output = read_out(network, spikes, result)
    return result


def _simulate(command: str, path: Path, shapes: dict[str, tuple[int, ...]], spikes: Tensor, timeout: float,
              folder: Path | None, label: str) -> dict[str, Tensor]:
    """Start the worker on a file; spikes of every layer (T, B, *shape). `label` begins an error."""
    steps, samples = spikes.shape[:2]
    with scratch_folder(_LONGEST) as scratch:
        source, result, log = (scratch / name for name in ("spikes.npy", "layers.npz", "log"))
        np.save(source, spikes.cpu().numpy().astype(np.uint8))
        words = [str(required(folder).python), str(WORKER), command, str(path.absolute()), str(source), str(result)]
        total = steps * samples + len(shapes)
        with open(log, "w+") as file:
            bar = progress((), f"Lava {path.name}", total=total, unit="step")
            status = _work(words, str(scratch), file, timeout, bar)
            file.seek(0)
            if status != 0:
                raise HardspikeError(f"{label}: {_cause(status, file.read(), timeout)}")
        recorded = np.load(result)
        return {name: torch.from_numpy(recorded[str(i)]).reshape(steps, samples, *shape)
                for i, (name, shape) in enumerate(shapes.items(), start=1)}


def _check(net: Path, network: NetFile, spikes: Tensor) -> None:
    shape = tuple(spikes.shape)
    if len(shape) < 2 or 0 in shape or math.prod(shape[2:]) != math.prod(network.input_shape):
        raise HardspikeError(f"spikes of shape {shape} do not fit {net}, which takes "
                             f"(T, B, {', '.join(map(str, network.input_shape))})")
    _require_events(spikes)


def _require_events(spikes: Tensor) -> None:
    if ((spikes != 0) & (spikes != 1)).any():
        raise HardspikeError(f"spikes go up to {spikes.max().item():g}, down to {spikes.min().item():g}; Lava takes an "
                             "event as 1 and loses how many there were: clip them to 0 and 1")


def _work(command: list[str], scratch: str, log: IO, timeout: float, bar: tqdm) -> int | None:
    """Run the worker to its end; its exit status, or None when it was ended for being late.

    The simulator is a dozen processes that wait for each other: whatever goes wrong, all of them have to go.
    """
    outside = {"PYTHONPATH", "PYTHONHOME"}
    environment = {key: value for key, value in os.environ.items() if key not in outside}
    environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": scratch}  # multiprocessing leaves its folder when it is ended
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                               text=True, start_new_session=True)
    reader = threading.Thread(target=_follow, args=(process.stdout, bar))
    reader.start()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode != 0:
            _end(process)
        reader.join()
        bar.close()


def _follow(lines: IO, bar: tqdm) -> None:
    with lines:
        for line in lines:
            if line.startswith("step "):
                bar.update(int(line.removeprefix("step ")) - bar.n)


def _end(process: subprocess.Popen) -> None:
    """End what is left of the worker's group: politely, so that shared memory is freed, then by force."""
    for name in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 2
        signalled = False
        while time.monotonic() < deadline:
            try:
                os.killpg(process.pid, 0 if signalled else name)
            except ProcessLookupError:
                return
            signalled = True
            process.poll()
            time.sleep(0.02)


def _cause(status: int | None, said: str, timeout: float) -> str:
    """The worker's failure in one line."""
    if status is None:
        return f"Lava was ended after {timeout:g} s; run fewer samples or give it more time (timeout)"
    for line in reversed(said.splitlines()):
        try:
            return f"Lava stops: {json.loads(line)['error']}"
        except (ValueError, TypeError, KeyError):
            continue
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
    return f"Lava ended with status {status}: {last}"
