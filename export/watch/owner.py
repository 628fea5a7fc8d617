"""Layers that are handed over as a chain and belong to a network: its forward may do more than one after the other."""

import gc

import torch
from torch import nn

from export.freeze.chain import Chain
from export.watch.choice import chosen
from export.watch.parts import few
from export.watch.usage import Usage, recorded
from hardspike import HardspikeError

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def require_chain(usage: Usage, inputs: object) -> None:
    """A chain spikes as the network does that its layers belong to, if they belong to one.

    Raises:
        HardspikeError: it does not, or that network does not run on these inputs.
    """
    owner = _owner(usage.network)
    if owner is None:
        return
    name = type(owner).__name__
    way_out = f"give the {name} itself (or copies of the layers, copy.deepcopy, if you mean them one after the other)"
    try:
        theirs = _spikes(few(chosen(owner, inputs, None)))
    except HardspikeError as error:
        raise HardspikeError(f"these layers belong to a {name}, and what its forward does cannot be compared with them "
                             f"({error}); {way_out}") from error
    mine = _spikes(few(usage))
    for key, spikes in mine.items():
        other = theirs.get(key)
        if other is None or other.numel() != spikes.numel() or not torch.equal(other.reshape(spikes.shape), spikes):
            layer = next(name for name, module in usage.network.named_modules() if id(module) == key)
            differ = "" if other is None or other.numel() != spikes.numel() else \
                f" ({int((other.reshape(spikes.shape) != spikes).sum())} spikes)"
            raise HardspikeError(f"these layers belong to a {name}, whose forward does not run them one after the "
                                 f"other: layer '{layer}' spikes otherwise{differ}; {way_out}")


def _spikes(usage: Usage) -> dict[int, torch.Tensor]:
    """Spikes by the id of the neuron."""
    with recorded(usage) as run:
        return {id(calls[0].module): torch.stack([call.spikes for call in calls]) for calls in
                run.recorder.calls.values()}


def _owner(chain: Chain) -> nn.Module | None:
    """The smallest living network, with a forward of its own, that holds all layers of a chain."""
    layers = {id(module) for module in chain.children()}
    found = []
    for candidate in gc.get_objects():
        if issubclass(type(candidate), nn.Module) and type(candidate) not in _CONTAINERS \
                and not isinstance(candidate, Chain):
            held = [id(module) for module in candidate.modules()]
            if layers < set(held):
                found.append((len(held), candidate))
    return min(found, key=lambda pair: pair[0])[1] if found else None

