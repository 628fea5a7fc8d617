"""What a chip holds, each number with where it comes from. A number that was never published is None, not a guess."""

from dataclasses import dataclass

DAVIES = "Davies et al. 2018, Loihi"
NENGO_BLOCK = "nengo-loihi 1.1, block.py"
BRIEF = "Intel, Loihi 2 technology brief 2021 (public, coarse)"
LAVA_LIF = "lava-nc 0.10, proc/lif/models.py"
LAVA_DENSE = "lava-nc 0.10, proc/dense: 8 bits with a sign"
NETX = "lava-dl 0.6, netx"
NOT_PUBLIC = "not public"


@dataclass(frozen=True)
class Limit:
    """A number and its source; `value` None: not published."""

    value: int | None
    source: str


@dataclass(frozen=True)
class Limits:
    """Ranges in the units of an integer graph: weights, biases and thresholds share one unit (Lava's `<< 6`)."""

    chip: str
    cores: Limit
    neurons: Limit
    """a core"""
    input_axons: Limit
    """a core"""
    output_axons: Limit
    """a core"""
    synapse_bits: Limit
    """a core"""
    synapses: Limit
    """a chip"""
    weight_min: Limit
    weight_max: Limit
    bias: Limit
    threshold: Limit
    decay: Limit
    delay: Limit
    per_neuron: bool
    """leak and threshold may differ inside a layer"""
    subtracts: bool
    """a neuron may subtract its threshold instead of returning to zero"""
    graded: bool
    """a spike may carry an integer instead of 1"""
