"""The line about readers after an export, held against the readers themselves, file by file.

snnTorch's is installed with the tests; spikingjelly's is tried where it is, sc-neurocore's where its environment is.
"""

import contextlib
import importlib
import io

import nir
import pytest
import snntorch as snn
import torch
from torch import nn

from export.formats.nir import write_checked
from export.formats.readers import readers
from hardspike import HardspikeError
from targets import reference
from targets.graph import read
from targets.readers.runner import read_by
from targets.readers.setup import python_of
from targets.readers.table import READERS
from tests.export.own.base import Two, loud, spikes


def leaky(beta=0.9, **options) -> snn.Leaky:
    return snn.Leaky(beta, **{"reset_mechanism": "zero", "init_hidden": True, **options})


def zero(kind, *values, **options) -> snn.SpikingNeuron:
    return kind(*values, **{"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True, **options})


def dense(neuron) -> tuple:
    return loud(nn.Sequential(nn.Linear(20, 16), neuron, nn.Linear(16, 5), leaky())), spikes(20)


def picture(*layers, size: int) -> tuple:
    return loud(nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, 5), leaky()), 5.0), spikes(2, 6, 6)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.la, self.b, self.lb = nn.Linear(20, 20), leaky(), nn.Linear(20, 20), leaky()
        loud(self)

    def forward(self, x):
        x = self.la(self.a(x))
        return self.lb(self.b(x) + x)


class Loops(Two):
    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk, mem1 = self.lif1(self.fc1(step), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


FILES = {
    "dense": lambda: dense(leaky()),
    "no bias": lambda: (loud(nn.Sequential(nn.Linear(20, 16, bias=False), leaky(), nn.Linear(16, 5), leaky())),
                        spikes(20)),
    "no leak": lambda: dense(leaky(1.0)),
    "no memory": lambda: dense(leaky(0.0)),
    "thresholds": lambda: dense(leaky(threshold=torch.rand(16) + 0.3)),
    "leaks": lambda: dense(leaky(torch.rand(16))),
    "synaptic": lambda: dense(zero(snn.Synaptic, 0.6, 0.8)),
    "recurrent": lambda: dense(zero(snn.RLeaky, 0.8, linear_features=16)),
    "recurrent one to one": lambda: dense(zero(snn.RLeaky, 0.8, V=torch.rand(16), all_to_all=False)),
    "delayed zero": lambda: dense(snn.RSynaptic(0.6, 0.8, linear_features=16, reset_mechanism="zero",
                                                init_hidden=True)),
    "subtract": lambda: dense(leaky(reset_mechanism="subtract")),
    "not delayed subtract": lambda: dense(leaky(reset_mechanism="subtract", reset_delay=False)),
    "BatchNorm": lambda: (loud(nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), leaky(), nn.Linear(16, 5),
                                             leaky())), spikes(20)),
    "linear readout": lambda: (loud(nn.Sequential(nn.Linear(20, 16), leaky(), nn.Linear(16, 5))), spikes(20)),
    "membrane readout": lambda: (loud(nn.Sequential(nn.Linear(20, 16), leaky(), nn.Linear(16, 5), leaky(
        reset_mechanism="none", output=True))), spikes(20)),
    "convolution": lambda: picture(nn.Conv2d(2, 4, 3), leaky(), size=64),
    "average": lambda: picture(nn.Conv2d(2, 4, 3), leaky(), nn.AvgPool2d(2), size=16),
    "padded average": lambda: picture(nn.Conv2d(2, 4, 3), leaky(), nn.AvgPool2d(2, padding=1), size=36),
    "stride and padding": lambda: picture(nn.Conv2d(2, 4, 3, stride=2, padding=1), leaky(), size=36),
    "dilation": lambda: picture(nn.Conv2d(2, 4, 3, dilation=2), leaky(), size=16),
    "same": lambda: picture(nn.Conv2d(2, 4, 3, padding="same"), leaky(), size=144),
    "groups": lambda: picture(nn.Conv2d(2, 4, 3, groups=2), leaky(), size=64),
    "kernel that is not square": lambda: picture(nn.Conv2d(2, 4, (3, 5)), leaky(), size=32),
    "pooled spikes": lambda: picture(nn.Conv2d(2, 4, 3), leaky(), nn.MaxPool2d(2), size=16),
    "one dimension": lambda: (loud(nn.Sequential(nn.Conv1d(2, 4, 3), leaky(), nn.Flatten(), nn.Linear(32, 5), leaky())),
                              spikes(2, 10)),
    "residual": lambda: (Residual(), spikes(20)),
    "a loop in forward": lambda: (Loops(reset_mechanism="zero"), spikes(20)),
}
QUICK = ("dense", "no leak", "no memory", "synaptic", "recurrent", "convolution", "leaks")


def stock(importer, path, x: torch.Tensor) -> torch.Tensor:
    """What a reader's network gives, one sample at a time."""
    out = []
    for sample in range(x.shape[1]):
        with contextlib.redirect_stdout(io.StringIO()):
            network, state, steps = importer(nir.read(path)), None, []
        for step in x[:, sample:sample + 1]:
            given, state = network(step, state)
            steps.append(given.detach().reshape(-1))
        out.append(torch.stack(steps))
    return torch.stack(out, 1)


def keeps(importer, path, x: torch.Tensor, wanted: torch.Tensor) -> bool:
    try:
        given = stock(importer, path, x).double()
    except Exception:  # whatever a reader says to a file that it does not take
        return False
    return torch.allclose(given.reshape(wanted.shape), wanted, atol=1e-4)


def assert_line_is_right(name: str, reader: str, importer, path) -> None:
    torch.manual_seed(0)
    network, x = FILES[name]()
    write_checked(network, x, path)
    graph = read(path)
    line, wanted = readers(graph), reference.run(graph, x[:, :2]).output
    assert keeps(importer, path, x[:, :2], wanted) == (reader in line.partition(" keep")[0]), line


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
                                  for name in FILES])
def test_stock_snntorch_does_what_the_line_says(name, tmp_path):
    from snntorch.import_nir import import_from_nir
    assert_line_is_right(name, "snnTorch", import_from_nir, tmp_path / "a.nir")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_stock_spikingjelly_does_what_the_line_says(name, tmp_path):
    pytest.importorskip("spikingjelly")
    importer = importlib.import_module("spikingjelly.activation_based.nir_exchange").import_from_nir
    assert_line_is_right(name, "spikingjelly", importer, tmp_path / "a.nir")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_sc_neurocore_does_what_the_line_says(name, tmp_path):
    try:
        python_of(READERS["sc-neurocore"])
    except HardspikeError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    network, x = FILES[name]()
    write_checked(network, x, tmp_path / "a.nir")
    graph = read(tmp_path / "a.nir")
    wanted, given = reference.run(graph, x[:, :2]).output, read_by(READERS["sc-neurocore"], graph, x[:, :2]).output
    keeps = given is not None and torch.allclose(given.reshape(wanted.shape), wanted, atol=1e-4)
    assert keeps == ("sc-neurocore" in readers(graph).partition(" keep")[0]), readers(graph)
