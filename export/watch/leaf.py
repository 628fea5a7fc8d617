"""Which modules a recording takes whole."""

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from export.watch.values import transform


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is taken whole: one of torch's or snnTorch's that has no other inside."""
    kind = type(module).__module__.split(".")
    return (kind[0] in ("torch", "snntorch") and not list(module.children()) and not isinstance(
        module, nn.Sequential | nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict)) \
        or isinstance(module, nn.RNNBase | nn.MultiheadAttention | nn.TransformerEncoderLayer) \
        or is_fake_quantizer(module) or (kind[0] == "snntorch" and not isinstance(module, snn.SpikingNeuron))


def is_fake_quantizer(module: Any) -> bool:
    """Whether it rounds as a quantised network will (`torch.ao.quantization.FakeQuantizeBase`)."""
    return any(kind.__name__ == "FakeQuantizeBase" for kind in type(module).__mro__)


def in_single_precision(forward: Callable, dtype: torch.dtype) -> Callable:
    """A forward that takes float32 alone, in a run in `dtype`."""
    def run(*args, **kwargs):
        with torch._C.DisableTorchFunction():
            args, kwargs = transform((args, kwargs), Tensor, lambda t: t.float() if t.dtype == torch.float64 else t)
            result = forward(*args, **kwargs)
            return transform(result, Tensor, lambda t: t.to(dtype) if t.dtype == torch.float32 else t)

    return run
