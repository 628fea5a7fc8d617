"""What a chip holds, each number with where it comes from. A number that was never published is None, not a guess."""

from dataclasses import dataclass

DAVIES = "Davies et al. 2018, Loihi"
NENGO_BLOCK = "nengo-loihi 1.1, block.py"
NENGO_DISCRETIZE = "nengo-loihi 1.1, builder/discretize.py"
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


_SHARED = {
    "weight_min": Limit(-128, LAVA_DENSE), "weight_max": Limit(127, LAVA_DENSE),
    "bias": Limit(4095, f"{LAVA_LIF}: 13-bit mantissa, exponent 6"), "threshold": Limit(2**17 - 1, LAVA_LIF),
    "delay": Limit(62, NETX)}

LOIHI1 = Limits(
    chip="Loihi 1", cores=Limit(128, DAVIES), neurons=Limit(1024, DAVIES), input_axons=Limit(4096, NENGO_BLOCK),
    output_axons=Limit(4096, NENGO_BLOCK), synapse_bits=Limit(16384 * 64, NENGO_BLOCK),
    synapses=Limit(None, "no limit beside the cores'"), decay=Limit(4095, f"{NENGO_BLOCK}: 12 bits"),
    per_neuron=False, subtracts=False, graded=False, **_SHARED)

LOIHI2 = Limits(
    chip="Loihi 2", cores=Limit(128, BRIEF), neurons=Limit(8192, BRIEF), input_axons=Limit(None, NOT_PUBLIC),
    output_axons=Limit(None, NOT_PUBLIC), synapse_bits=Limit(None, NOT_PUBLIC), synapses=Limit(120_000_000, BRIEF),
    decay=Limit(4096, f"{NETX}: the simulator; the chip's own is not public"),
    per_neuron=True, subtracts=True, graded=True, **_SHARED)
