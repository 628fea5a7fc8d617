"""Which converter a module has, and what to do about one that has none."""

from collections.abc import Callable

import snntorch as snn
import torch
from torch import nn

from export.freeze import layers, levels, neurons, pooling
from export.freeze.layers import Layer, Piece, refusal
from trainer.layers.attention import Attention
from trainer.neurons.levels import LevelLeaky

CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {
    **layers.CONVERTERS, **pooling.CONVERTERS, **neurons.CONVERTERS, LevelLeaky: levels.level_neuron}

_ADVICE = {
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d),
                    "its factors depend on the input: use BatchNorm and train again"),
    **dict.fromkeys((nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softmax),
                    "put a spiking neuron in its place"),
    **dict.fromkeys((snn.SLSTM, snn.SConv2dLSTM),
                    "its gates multiply signals: use snn.RLeaky or RSynaptic and train again"),
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell),
                    "its gates multiply signals: use snn.RLeaky or RSynaptic and train again"),
    torch.jit.ScriptModule: "it is compiled (torch.jit): put in the module that it was made from",
    Attention: "it multiplies spike trains with one another, which no synapse does: write the stages before it "
               "(`hardspike export nir RUN --conv_stages`, a graph that quantise and c take), or the whole network as "
               "ONNX (`hardspike export onnx RUN`)",
    nn.Upsample: "no node enlarges a picture: write the layers under it (`hardspike export nir RUN --conv_stages`), or "
                 "the whole network as ONNX (`hardspike export onnx RUN`)",
    nn.Bilinear: "it multiplies signals: use nn.Linear on both, side by side, and train again",
    nn.MultiheadAttention: "attention multiplies signals: use linear layers and neurons",
    snn.LeakyParallel: "it runs all steps at once with a rectified membrane and no reset: use nn.Linear and snn.Leaky "
                       "(reset_mechanism='none'), and train again",
    snn.AssociativeLeaky: "it multiplies signals: use snn.RLeaky or RSynaptic and train again",
    snn.LinearLeaky: "it runs all steps at once: use nn.Linear and snn.Leaky with beta=exp(beta - 1) and "
                     "reset_mechanism='none', step by step, which spikes alike",
    snn.StateLeaky: "it runs all steps at once: use snn.Leaky with beta=exp(beta - 1) and reset_mechanism='none', step "
                    "by step, which spikes alike",
    snn.DeltaLeaky: "it fires at changes of the membrane: use snn.Leaky and train again",
}


def convert(layer: Layer) -> Piece:
    """The nodes of one module.

    Raises:
        HardspikeError: no converter, or a setting that has no exact form in NIR.
    """
    kind = next((kind for kind in type(layer.module).__mro__ if kind in CONVERTERS), None)
    if kind is None:
        raise refusal(layer, f"NIR has no such operation; {advice(layer.module)}")
    for child in type(layer.module).__mro__[:type(layer.module).__mro__.index(kind)]:
        changed = [key for key in vars(child) if not key.startswith("__") and hasattr(kind, key)]
        if changed or child in _ADVICE:
            raise refusal(layer, f"changes {', '.join(changed) or 'forward'} of {kind.__name__}, and what that does is "
                                 f"not known here; use {kind.__name__} itself, or add a converter in "
                                 "export/freeze/layers.py")
    return CONVERTERS[kind](layer)


def require_known(layer: Layer) -> None:
    """Refuse a neuron of snnTorch that has no form, before what it does is looked at.

    Raises:
        HardspikeError: it has none.
    """
    kinds = type(layer.module).__mro__
    if isinstance(layer.module, snn.SpikingNeuron | snn.LeakyParallel) and (
            not any(kind in CONVERTERS for kind in kinds) or any(kind in _ADVICE for kind in kinds)):
        raise refusal(layer, f"NIR has no such operation; {advice(layer.module)}")


def advice(module: nn.Module) -> str:
    """What to use instead of a module that has no converter."""
    return next((_ADVICE[kind] for kind in type(module).__mro__ if kind in _ADVICE),
                "replace it by layers that NIR holds, or add a converter in export/freeze/layers.py")
