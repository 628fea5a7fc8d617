"""Networks of the kinds that snnTorch's users write: OWN[name] = (build, expected), build() -> (network, inputs).

`expected` is None where the network is exported as it is, else a part of the reason why it is refused. inputs are what
forward takes; the values are random spikes or currents.
"""

from tests.export.own import calls, forms, layers, loops, pictures, projects, refused, sequences, states, studies, traps
from tests.export.own.base import OWN, B, T, Two, loud, spikes

__all__ = ["OWN", "B", "T", "Two", "calls", "forms", "layers", "loops", "loud", "pictures", "projects", "refused",
           "sequences", "spikes", "states", "studies", "traps"]
