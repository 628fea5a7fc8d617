"""The real Lava simulator against its arithmetic written down plainly, and how its runs end."""

import _thread
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import h5py
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets.lava import runner
from targets.lava.setup import WORKER, setup
from tests import lava_naive

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module", autouse=True)
def environment():
    return setup()


def simulate(path, layers, shape, spikes):
    lava_naive.write(path, layers, shape)
    return [found.numpy() for found in runner.run(path, torch.from_numpy(spikes).bool()).spikes.values()]


@pytest.mark.parametrize("seed", range(6))
def test_every_spike_of_every_layer_is_as_written_down(seed, tmp_path):
    rng = np.random.default_rng(seed)
    shape = [(2, 9, 11), (1, 8, 8), (12,)][seed % 3]
    layers = lava_naive.random_layers(rng, shape)
    spikes = (rng.random((12, 7, *shape)) < 0.4).astype(np.uint8)
    expected, _ = lava_naive.run(layers, spikes)
    found = simulate(tmp_path / "model.net", layers, shape, spikes)
    assert all(record.any() for record in expected)
    assert [(a != b).sum() for a, b in zip(expected, found, strict=True)] == [0] * len(layers)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_current_wraps_and_voltage_saturates(reset, tmp_path):
    rng = np.random.default_rng(5)
    layers = [{**layer, "reset": reset} for layer in lava_naive.extreme_layers(rng, 12)]
    spikes = (rng.random((200, 2, 12)) < 0.9).astype(np.uint8)
    expected, extremes = lava_naive.run(layers, spikes)
    assert min(extremes.values()) > 0 and all(record.any() for record in expected)
    found = simulate(tmp_path / "model.net", layers, (12,), spikes)
    assert [(a != b).sum() for a, b in zip(expected, found, strict=True)] == [0, 0]


def test_a_sample_does_not_know_its_neighbours(tmp_path):
    rng = np.random.default_rng(1)
    layers = lava_naive.random_layers(rng, (1, 8, 8))
    spikes = (rng.random((9, 4, 1, 8, 8)) < 0.5).astype(np.uint8)
    together = simulate(tmp_path / "model.net", layers, (1, 8, 8), spikes)
    turned = simulate(tmp_path / "model.net", layers, (1, 8, 8), np.ascontiguousarray(spikes[:, ::-1]))
    alone = simulate(tmp_path / "model.net", layers, (1, 8, 8), spikes[:, 2:3])
    for a, b, c in zip(together, turned, alone, strict=True):
        assert (a == b[:, ::-1]).all() and (a[:, 2:3] == c).all()


def test_stock_netx_stops_at_a_subtracting_layer_and_loads_the_others(tmp_path, environment):
    rng = np.random.default_rng(0)
    layers = lava_naive.random_layers(rng, (12,))
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import worker; worker.import_netx(); "
            "from lava.lib.dl.netx.hdf5 import Network; print(len(Network(net_config=sys.argv[2]).layers))")
    for reset, expected in (("zero", (0, str(len(layers)))), ("subtract", (1, ""))):
        lava_naive.write(tmp_path / f"{reset}.net", [{**layer, "reset": reset} for layer in layers], (12,))
        result = subprocess.run([environment.python, "-c", code, WORKER.parent, tmp_path / f"{reset}.net"],
                                capture_output=True, text=True)
        assert (result.returncode, result.stdout.strip()) == expected


def test_softlif_in_a_lava_script(environment):
    """The lines of its docstring: v = 30, 60 > 50, then 60 + 30 - 50 = 40, 70 > 50, ..."""
    code = """if True:
        import sys; sys.path.insert(0, sys.argv[1])
        import numpy as np
        from softlif import SoftLIF
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc.dense.process import Dense
        from lava.proc.io.source import RingBuffer
        source = RingBuffer(data=np.ones((1, 1)))
        dense = Dense(weights=np.array([[30]]))
        neurons = SoftLIF(shape=(1,), du=4095, dv=0, vth=50)
        source.s_out.connect(dense.s_in)
        dense.a_out.connect(neurons.a_in)
        voltage = []
        for _ in range(6):
            neurons.run(RunSteps(num_steps=1), Loihi2SimCfg(select_tag="fixed_pt"))
            voltage.append(int(neurons.v.get()[0]) >> 6)
        neurons.stop()
        print(voltage)
    """
    result = subprocess.run([environment.python, "-c", code, WORKER.parent], capture_output=True, text=True)
    assert json.loads(result.stdout.splitlines()[-1]) == [0, 30, 60, 40, 70, 50], result.stderr


def broken(path):
    """130 groups overflow Lava's int8: an error inside one of the simulator's processes."""
    layer = {"weight": np.ones((130, 1, 3, 3), int), "bias": np.zeros(130, int), "reset": "zero", "groups": 130,
             "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "iDecay": 4096, "vDecay": 0, "vThMant": 9}
    lava_naive.write(path, [layer], (130, 4, 4))


def test_an_error_of_the_simulator_is_one_line(tmp_path):
    broken(tmp_path / "model.net")
    with pytest.raises(HardspikeError, match=r"model.net: Lava stops: Exception: Expected number of in_") as error:
        runner.run(tmp_path / "model.net", torch.zeros(3, 1, 130, 4, 4))
    assert "\n" not in str(error.value)


def shared_memory() -> set[str]:
    """Blocks and semaphores of this machine, without joblib's: those are of somebody else's processes."""
    return {name for name in os.listdir("/dev/shm") if "loky" not in name}


def test_a_long_folder_for_temporary_files_is_no_hindrance(tmp_path, monkeypatch):
    """As a cluster's scratch is: the simulator's sockets would not fit into it."""
    long = tmp_path / ("scratch" * 12)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    rng = np.random.default_rng(0)
    layers = lava_naive.random_layers(rng, (12,))
    spikes = (rng.random((9, 3, 12)) < 0.4).astype(np.uint8)
    found = simulate(tmp_path / "model.net", layers, (12,), spikes)
    assert [(a != b).sum() for a, b in zip(lava_naive.run(layers, spikes)[0], found, strict=True)] == [0] * len(layers)


@pytest.mark.parametrize("end", ["timeout", "interrupt"])
def test_nothing_is_left_of_a_run_that_is_ended(end, tmp_path, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(runner.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    rng = np.random.default_rng(0)
    lava_naive.write(tmp_path / "model.net", lava_naive.random_layers(rng, (2, 9, 11)), (2, 9, 11))
    spikes, shared = torch.zeros(100, 100, 2, 9, 11), shared_memory()
    if end == "timeout":
        with pytest.raises(HardspikeError, match="ended after 3 s"):
            runner.run(tmp_path / "model.net", spikes, timeout=3)
    else:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        timer = threading.Timer(3, _thread.interrupt_main)
        try:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                runner.run(tmp_path / "model.net", spikes)
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, before)
    time.sleep(2)  # until init has collected the simulator's processes
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0].pid, 0)
    assert os.listdir(tmp_path) == ["model.net"]
    assert shared_memory() <= shared


def test_bad_input_is_refused(tmp_path):
    path = tmp_path / "model.net"
    with pytest.raises(HardspikeError, match="no such file"):
        runner.run(path, torch.zeros(3, 1, 12))
    path.write_bytes(b"no HDF5")
    with pytest.raises(HardspikeError, match="not a readable network of lava-dl's netx"):
        runner.run(path, torch.zeros(3, 1, 12))
    with h5py.File(path, "w") as file:
        file["layer/0/type"] = b"dense"
    with pytest.raises(HardspikeError, match="of type input"):
        runner.run(path, torch.zeros(3, 1, 12))
    lava_naive.write(path, lava_naive.random_layers(np.random.default_rng(0), (12,)), (12,))
    with pytest.raises(HardspikeError, match=r"\(3, 1, 13\) do not fit .* takes \(T, B, 12\)"):
        runner.run(path, torch.zeros(3, 1, 13))
    with pytest.raises(HardspikeError, match=r"go up to 2, down to 0; .* clip them"):
        runner.run(path, torch.full((3, 1, 12), 2).index_fill(0, torch.tensor([0]), 0))
    with pytest.raises(HardspikeError, match="hardspike targets setup lava"):
        runner.run(path, torch.zeros(3, 1, 12), folder=tmp_path)
