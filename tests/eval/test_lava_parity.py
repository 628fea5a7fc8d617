"""The target loihi2 against the real Lava simulator, every spike of every layer of random networks."""

import numpy as np
import pytest
import torch

from targets import loihi2
from targets.lava import runner
from targets.lava.netx import write_net
from targets.lava.setup import setup
from tests import lava_naive

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module", autouse=True)
def environment():
    return setup()


def mismatches(graph, spikes, path):
    write_net(graph, path)
    ours, theirs = loihi2.run(graph, spikes).spikes, runner.run(path, spikes).spikes
    assert list(ours) == list(theirs) and any(record.any() for record in ours.values())
    return sum(int((ours[name] != theirs[name].reshape(ours[name].shape)).sum()) for name in ours)


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 50))])
def test_random_networks_spike_alike(seed, tmp_path):
    rng = np.random.default_rng(100 + seed)
    shape = [(2, 9, 11), (1, 12, 7), (16,), (4, 6, 6), (3, 10, 10)][seed % 5]
    layers = lava_naive.random_layers(rng, shape)
    spikes = torch.from_numpy((rng.random((16, 5, *shape)) < rng.uniform(0.1, 0.6)).astype(np.uint8))
    assert mismatches(lava_naive.to_nir(layers, shape), spikes, tmp_path / "model.net") == 0


def test_a_wrapping_current_and_a_saturating_voltage_spike_alike(tmp_path):
    rng = np.random.default_rng(5)
    layers = lava_naive.extreme_layers(rng, 12)
    spikes = torch.from_numpy((rng.random((200, 2, 12)) < 0.9).astype(np.uint8))
    assert mismatches(lava_naive.to_nir(layers, (12,)), spikes, tmp_path / "model.net") == 0
