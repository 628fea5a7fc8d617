"""Why no graph holds an operation, in one line, and what to do instead."""

from typing import TYPE_CHECKING

from torch import nn

from export.freeze.convert import advice
from export.watch.fold import Apply, Fixed
from export.watch.leaf import is_fake_quantizer

if TYPE_CHECKING:
    from export.watch.graph import Builder

LINEAR_MODULES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Conv3d, nn.Upsample, nn.Unflatten, nn.AdaptiveAvgPool1d,
                  nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad2d,
                  nn.ReplicationPad2d, nn.CircularPad1d,
                  nn.CircularPad2d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.ZeroPad1d, nn.PixelShuffle,
                  nn.PixelUnshuffle, nn.ChannelShuffle, nn.Fold, nn.Unfold, nn.SyncBatchNorm, nn.InstanceNorm1d,
                  nn.InstanceNorm2d)
"""Layers that are linear (InstanceNorm with running statistics alone) and have no node of their own: matrices, where
they are small enough."""
_TRY = {**dict.fromkeys(("relu", "relu_", "sigmoid", "tanh", "gelu", "leaky_relu", "softmax", "clamp", "abs"),
                        "put a spiking neuron in its place and train again"),
        **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "norm"),
                        "its factors depend on the input: use BatchNorm and train again"),
        **dict.fromkeys(("max", "amax", "topk", "sort"), "train with sums or averages instead; of spikes, pool them"),
        "batch_norm": "use nn.BatchNorm with running statistics"}
_LARGER = {"maximum", "max", "fmax", "amax", "logical_or", "bitwise_or", "or"}


def why(builder: "Builder", expr: Apply, text: str) -> str:
    """Why no graph holds an operation, in one line."""
    words, head = builder.folder.words(expr.values[0]), builder.folder.head(expr.values[0])
    if isinstance(expr.function, nn.Module):
        if is_fake_quantizer(expr.function):
            text = text or ("rounds currents, which no sum of weights does; leave it to weights (and to spikes), and "
                            "quantise the graph for a chip: hardspike export quantise")
        return f"{head}: {text or f'NIR has no such operation; {advice(expr.function)}'}"
    if text:
        return f"{head}: {text}" + (f" ({_TRY[words]})" if words in _TRY else "")
    if words in _LARGER:
        return (f"{head}: takes the larger of signals that are not all spikes of neurons, which no sum of weights "
                "does; NIR has no such operation: add them, or give each to a neuron first (snn.Leaky(beta=0.0, "
                "threshold=0.5, reset_mechanism='none') hands spikes on)")
    if sum(not isinstance(child, Fixed) for child in expr.children()) > 1:
        return (f"{head}: multiplies signals with one another, which no sum of weights does; NIR has no such "
                "operation: use linear layers and neurons, and train again")
    return f"{head}: {words} has no form in NIR; {_TRY.get(words, 'keep to layers (modules), sums and factors')}"
