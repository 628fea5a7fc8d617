"""A network of stock snnTorch neurons run step by step: what a graph made from it has to equal."""

import inspect
from collections.abc import Mapping
from functools import partial

import nir
import snntorch as snn
import torch
from torch import Tensor, nn

from export.check.parity import Parity, compare, in_chunks
from export.freeze.chain import inference_copy
from hardspike import HardspikeError
from targets import reference
from trainer.neurons.leaky import Leaky

OUTPUT_TOLERANCE = 1e-9
"""Of the largest output: float64 sums in another order differ by far less, another network by far more."""


def check_stepwise(network: nn.Module | Mapping[str, nn.Module], graph: nir.NIRGraph, samples: Tensor,
                   output: bool = True) -> Parity:
    """The stock network against `graph` on `reference`, both in float64: every layer's spikes, and the output.

    Args:
        network: forward does one time step, see `run_stepwise`.
        graph: as read back from the file.
        samples: (T, B, ...).
        output: compare the values of the output too, which say how a linear readout or a membrane does.

    Raises:
        HardspikeError: the network does not run, or the outputs differ.
    """
    def chunk(part: Tensor) -> Parity:
        recording = reference.run(graph, part)
        spikes, stock = run_stepwise(network, part)
        parity = compare("stock snnTorch (float64)", "reference", spikes, recording.spikes)
        if output and not parity.mismatches:
            theirs = recording.output.reshape(stock.shape)
            difference = float((stock - theirs).abs().max())
            if not difference <= OUTPUT_TOLERANCE * max(1.0, float(stock.abs().max())):
                raise HardspikeError(f"the output differs by {difference:.3g} though all spikes are equal; please "
                                     "report this network")
        return parity

    return in_chunks(samples, chunk)


@torch.inference_mode()
def run_stepwise(network: nn.Module | Mapping[str, nn.Module], samples: Tensor,
                 dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], Tensor]:
    """Spikes of every snnTorch neuron, name -> (T, B, ...) uint8, and the output (T, B, ...).

    Forward is called once a step with (B, ...). What it returns after the output is handed back to it in the next step
    where it has parameters for it (None in the first step where they have no default); neurons that get no state keep
    their own, which starts at zero.

    Raises:
        HardspikeError: forward fails on `samples`.
    """
    network, samples = inference_copy(network).to("cpu", dtype), samples.to("cpu", dtype)
    fired: dict[str, list[Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, Leaky):
            raise HardspikeError(f"layer '{name}' (trainer.neurons.leaky.Leaky): runs all steps at once; export its "
                                 "checkpoint with hardspike export nir, or build the network of snnTorch's own neurons")
        neuron = isinstance(module, snn.SpikingNeuron)
        if neuron or not list(module.children()):
            module.register_forward_pre_hook(partial(_cast, dtype))  # snnTorch's spikes are float32 whatever goes in
        if neuron:
            module.register_forward_hook(partial(_record, fired.setdefault(name, [])))
    _, *parameters = inspect.signature(network.forward).parameters.values()
    states = [None if p.default is p.empty else p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    outputs = []
    try:
        for step in samples:
            result = network(step, *states)
            output, *rest = result if isinstance(result, tuple | list) else (result,)
            states = rest if len(rest) == len(states) else states
            outputs.append(output.to(dtype))
    except Exception as error:  # the user's own code
        raise HardspikeError(f"{type(network).__name__}: forward fails on a step of shape {tuple(samples.shape[1:])} "
                             f"({' '.join(str(error).split())}); it has to take one time step (B, ...), with every "
                             "state after it") from error
    fired = {name: spikes for name, spikes in fired.items() if spikes}
    if not fired:
        raise HardspikeError(f"{type(network).__name__}: forward runs no snnTorch neuron, so there are no spikes to "
                             "compare; put in snn.Leaky, Synaptic, RLeaky or RSynaptic")
    return {name: torch.stack(spikes) for name, spikes in fired.items()}, torch.stack(outputs)


def _cast(dtype: torch.dtype, module: nn.Module, inputs: tuple) -> tuple:
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def _record(fired: list[Tensor], module: nn.Module, inputs: tuple, result: Tensor | tuple) -> None:
    spikes = result[0] if isinstance(result, tuple) else result
    fired.append((spikes != 0).to(torch.uint8))  # graded spikes are carried as a factor after the spike
