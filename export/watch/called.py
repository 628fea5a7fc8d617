"""Export of what was only called: `with record() as run: net(x)`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import snntorch as snn
from torch import Tensor, nn

from export.watch.between import Between, Change
from export.watch.recorder import STATES
from export.watch.snapshot import find_modules
from export.watch.usage import Given, Usage, unwrapped
from export.watch.values import tensors, transform
from hardspike import HardspikeError


@dataclass
class Called:
    """The calls of networks inside of `with record()`, in order: the network, what it got, what was set before it.

    `others`: modules without neurons, as losses are.
    """

    networks: list[nn.Module] = field(default_factory=list)
    calls: list[tuple[tuple, dict]] = field(default_factory=list)
    given: dict[int, tuple[Tensor, Given]] = field(default_factory=dict)
    changes: dict[int, list[Change]] = field(default_factory=dict)
    between: Between | None = None
    others: list[nn.Module] = field(default_factory=list)

    def note(self, network: nn.Module, args: tuple, kwargs: Mapping) -> bool:
        """Keep what a call gets: copies, or what an earlier call gave; whether it is a network's."""
        def keep(tensor: Tensor) -> Any:
            known = self.given.get(id(tensor))
            return known[1] if known else tensor.detach().clone()

        if not any(isinstance(module, snn.SpikingNeuron) for module in find_modules(network).values()):
            self.others.append(network)
            return False
        if not self.calls:
            _require_rest(network)
            self.between = Between(unwrapped(network))
        elif changes := self.between.begins():
            self.changes[len(self.calls)] = changes
        self.networks.append(network)
        self.calls.append(transform((tuple(args), dict(kwargs)), Tensor, keep))
        return True

    def gave(self, result: Any) -> None:
        """Remember what the last call gave, in case that it is handed back."""
        for path, tensor in tensors(result):
            self.given.setdefault(id(tensor), (tensor, Given(len(self.calls) - 1, path)))
        self.between.ends()

    def usage(self) -> Usage:
        """How the network was run.

        Raises:
            HardspikeError: none was called, or several.
        """
        networks = self.networks or self.others
        if not self.calls and len({id(network) for network in networks}) < 2:
            raise HardspikeError("record: no network with neurons was called; call yours inside of the with")
        if len({id(network) for network in networks}) > 1:
            names = ", ".join(dict.fromkeys(type(network).__name__ for network in networks))
            raise HardspikeError(f"record: several modules were called ({names}); a graph is one network's: put them "
                                 "into one module, and call that")
        network, changes = unwrapped(self.networks[0]), {0: self.between.back(), **self.changes}
        if len(self.calls) == 1:
            return Usage(network, *self.calls[0], changes=changes)
        return Usage(network, (), outside=True, calls=self.calls, changes=changes)


def _require_rest(network: nn.Module) -> None:
    """Refuse a first call that begins with what an earlier one left: a graph begins at rest.

    Raises:
        HardspikeError: a neuron holds a state.
    """
    for name, module in network.named_modules():
        if isinstance(module, snn.SpikingNeuron) and module.init_hidden:
            for role in STATES:
                state = getattr(module, role, None)
                if isinstance(state, Tensor) and state.numel() and bool(state.detach().any()):
                    raise HardspikeError(f"record: layer '{name}' ({type(module).__name__}) still holds the "
                                         f"'{role}' of an earlier run, and a graph begins at rest; call "
                                         "utils.reset(network) first")


@contextmanager
def record() -> Iterator[Called]:
    """Watch which network is called with what; `export.formats.nir.write_checked(run, path=...)` writes it.

        with record() as run:
            for step in x:
                out, state = net(step, state)
        write_checked(run, path="net.nir")
    """
    called, depth, plain = Called(), [0], nn.Module.__call__

    def call(module: nn.Module, *args, **kwargs):
        if depth[0]:
            return plain(module, *args, **kwargs)
        noted = called.note(module, args, kwargs)
        depth[0] += 1
        try:
            result = plain(module, *args, **kwargs)
        finally:
            depth[0] -= 1
        if noted:
            called.gave(result)
        return result

    nn.Module.__call__ = call
    try:
        yield called
    finally:
        nn.Module.__call__ = plain
