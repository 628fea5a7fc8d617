"""States of neurons that forward reads, as nodes of the graph; those that it makes anew in every step, in words."""

import nir
import numpy as np

from export.freeze.assembly import Assembly
from export.freeze.layers import Piece, to_array
from export.freeze.neurons import delayed
from export.watch.steps import Population
from hardspike import HardspikeError

_NODES = {"syn": "synapse", "syn_exc": "excite", "syn_inh": "inhibit"}


def nodes_of(assembly: Assembly, population: Population, piece: Piece, role: str) -> tuple[str, ...]:
    """The nodes whose outputs sum to a state as the neuron returns it; none where it is inside of a NIR neuron."""
    name, module = population.name, population.module
    if role != "mem":
        node, sign = f"{name}_{_NODES.get(role, role)}", f"{name}_{role}"
        if role == "syn_inh" and node in piece.nodes and sign not in assembly.nodes:
            assembly.add(sign, Piece({sign: nir.Scale(np.full(piece.shape, -1.0))}, piece.shape), (node,))
        return (sign if role == "syn_inh" else node,) if node in piece.nodes else ()
    nodes = piece.membrane
    if not nodes and isinstance(piece.nodes.get(name), nir.Threshold) and not piece.compared:  # what is compared
        nodes = tuple(source for source, target in assembly.edges if target == name)
    kind = next(key for key, value in module.reset_dict.items() if value == int(module.reset_mechanism_val))
    if delayed(module) or kind == "none" or not nodes:
        return nodes
    if kind == "zero":
        return ()
    left = f"{name}_left"
    if left not in assembly.nodes:  # the threshold is off in the step of the spike already
        theta = np.broadcast_to(to_array(module.threshold), (1, *population.shape()))[0].reshape(piece.shape)
        assembly.add(left, Piece({left: nir.Scale(-theta)}, piece.shape), (name,))
    return (*nodes, left)


def forgets(population: Population) -> bool:
    """Whether every state is made anew in every step."""
    return bool(population.forgets) and population.forgets >= population.calls[0].states.keys()


def forgotten(populations: list[Population]) -> list[str]:
    """What to know of states that are made anew in every step."""
    whole = [p.name for p in populations if forgets(p)]
    notes = [f"{', '.join(whole)}: states are made anew in every step, so each step is on its own (a reset inside the "
             "loop?)"] if whole else []
    return notes + [f"{p.name}: its '{role}' is made anew in every step (a state that is not handed back?)"
                    for p in populations if p.name not in whole for role in sorted(p.forgets)]


def flatten(piece: Piece, population: Population) -> None:
    """Parameters of a picture of neurons in a row, as their input comes."""
    shape = population.shape()
    for name, node in piece.nodes.items():
        if isinstance(node, nir.Conv1d | nir.Conv2d):
            raise HardspikeError(f"layer '{population.name}': its recurrent convolution '{name}' needs a picture, and "
                                 "its input had to be flattened; use layers that NIR has for pictures before it")
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.shape == shape:
                setattr(node, key, value.reshape(-1))
    piece.shape = (int(np.prod(shape)),)
