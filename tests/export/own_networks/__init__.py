"""Networks of the kinds that snnTorch's users write: OWN[name] = (build, expected), build() -> (network, inputs).

`expected` is None where the network is exported as it is, else a part of the reason why it is refused. inputs are what
forward takes; the values are random spikes or currents."""

from tests.export.own_networks import part1, part2, part3, part4  # each fills OWN
from tests.export.own_networks.common import OWN, B, T, Two, loud, own, spikes

__all__ = ["OWN", "B", "T", "Two", "loud", "own", "part1", "part2", "part3", "part4", "spikes"]
