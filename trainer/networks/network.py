"""A network of named layers, run layer-major: each linear layer sees all time steps at once."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.layers.attention import Attention
from trainer.layers.norm import batch_norm
from trainer.layers.sparse import linear
from trainer.native import hooked
from trainer.networks.pyramid import PICTURE
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.spikes import Surrogate


class Network(nn.Module):
    """Named layers over (T, B, ...) frames.

    Linear layers and pooling are run once on T*B samples; `Leaky` layers scan over T.

    Args:
        layers: name -> module, in order.
        readout: "linear": the last layer is a linear readout of time-averaged spikes, behind which only a pyramid's
            upsampling may stand; "spikes": the last layer is a spiking one, whose spikes are counted.
        sums: name -> the earlier layers whose outputs sum to the layer's input, or are the arguments of an attention;
            all others take the output of the layer before them.
    """

    def __init__(self, layers: dict[str, nn.Module], readout: str, sums: dict[str, tuple[str, ...]] | None = None):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.readout = readout
        self.sums = sums or {}
        self.after = dict(pairwise(layers))

    def forward(self, frames: Tensor, record: dict[str, Tensor] | None = None,
                membranes: dict[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes) of frames (T, B, C, H, W), with a pyramid (B, classes, H, W).

        Spikes (T, B, ...) of each Leaky layer go into `record`, whole numbers of one with several thresholds; its
        membrane before the reset into `membranes`.
        """
        return self._through(list(self.layers), frames, record, membranes)

    def _through(self, names: list[str], x: Tensor, record: dict[str, Tensor] | None,
                 membranes: dict[str, Tensor] | None) -> Tensor:
        """`forward` of `x` (T, B, ...) through these layers, the last ones."""
        steps = len(x)
        summands = {source for sources in self.sums.values() for source in sources}
        outputs: dict[str, Tensor] = {}
        for name in names:
            layer = self.layers[name]
            given = [outputs[source] for source in self.sums.get(name, ())]
            if given and not isinstance(layer, Attention):
                x = reduce(torch.add, given)
            if isinstance(layer, Leaky):
                x, membrane = layer(x)
                if record is not None:
                    record[name] = x
                if membranes is not None:
                    membranes[name] = membrane
                if isinstance(layer, LevelLeaky) and layer.norm != 1:
                    x = x / layer.norm
            elif isinstance(layer, Attention):
                x = layer(*(each.flatten(0, 1) for each in given)).unflatten(0, (steps, -1))
            elif self.readout == "linear" and name == "readout":
                logits = linear(layer, x.mean(0))
                return self.layers[PICTURE](logits) if PICTURE in self.layers else logits
            elif self._read_as_it_lies(name) and name not in summands:
                continue
            elif isinstance(layer, _BatchNorm):
                x = batch_norm(layer, x.flatten(0, 1)).unflatten(0, (steps, -1))
            elif steps > 1 and x.stride(0) == 0:  # alike at all steps: a picture, and what is made of it
                x = linear(layer, x[0]).unsqueeze(0)
                x = x.expand(steps, *x.shape[1:])
            else:
                x = linear(layer, x.flatten(0, 1)).unflatten(0, (steps, -1))
            if name in summands:
                outputs[name] = x
        return x.sum(0)

    def _read_as_it_lies(self, name: str) -> bool:
        """Whether the layer flattens pictures for a dense layer, as `linear` does by itself at less cost."""
        layer = self.layers[name]
        return (type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1) and not hooked(layer)
                and name in self.after and type(self.layers[self.after[name]]) is nn.Linear)

    def first(self, names: list[str]) -> "Network":
        """The layers `names` alone, which are the first ones and end with neurons; the same parameters. Neurons that
        count to D give whole numbers there."""
        layers = {name: self.layers[name] for name in names}
        if isinstance(layers[names[-1]], LevelLeaky):
            layers[names[-1]] = copy.copy(layers[names[-1]])
            layers[names[-1]].norm = 1
        return Network(layers, "spikes", self.sums_of(names))

    def sums_of(self, names: list[str]) -> dict[str, tuple[str, ...]]:
        """`sums` of these layers."""
        return {name: sources for name, sources in self.sums.items() if name in names}

    @property
    def labels_pixels(self) -> bool:
        """Whether it gives classes of pixels."""
        return PICTURE in self.layers

    def neurons(self) -> dict[str, Leaky]:
        """The spiking layers by name, in order."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, Leaky)}

    def set_mode(self, hard: bool | None = None, surrogate: Surrogate | None = None) -> None:
        """Swap the spike function of every layer: H or phi (Definition II.6 of SAST), and which phi."""
        for neuron in self.neurons().values():
            neuron.hard = neuron.hard if hard is None else hard
            neuron.surrogate = surrogate or neuron.surrogate

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Evaluation mode (`nn.Module.eval`) within the block."""
        before = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(before)

    @contextmanager
    def mode(self, hard: bool) -> Iterator[None]:
        """Hard or smooth spikes within the block."""
        before = {neuron: neuron.hard for neuron in self.neurons().values()}
        self.set_mode(hard)
        try:
            yield
        finally:
            for neuron, value in before.items():
                neuron.hard = value
