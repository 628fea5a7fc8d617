"""What a chip holds, each number with where it comes from. A number that was never published is None, not a guess."""

from dataclasses import dataclass

NOT_PUBLIC = "not public"


@dataclass(frozen=True)
class Limit:
    """A number and its source; `value` None: not published."""

    value: int | None
    source: str

    @property
    def known(self) -> int:
        """`value`, of a limit that is always published (see `Limits`)."""
        assert self.value is not None, self.source
        return self.value


@dataclass(frozen=True)
class Limits:
    """Ranges in the units of an integer graph: weights, biases and thresholds share one unit (Lava's `<< 6`).

    Raises:
        ValueError: one of `ALWAYS_PUBLISHED` is None: without it no graph can be quantised for the chip, or placed.
    """

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
    resets: tuple[str, ...]
    """what a spike may do to its neuron, of `targets.loihi.layers.RESETS`"""
    graded: bool
    """a spike may carry an integer instead of 1"""

    def __post_init__(self) -> None:
        missing = [name for name in ALWAYS_PUBLISHED if getattr(self, name).value is None]
        if missing:
            raise ValueError(f"{self.chip}: {', '.join(missing)}: a number is needed")


ALWAYS_PUBLISHED = ("cores", "neurons", "weight_min", "weight_max", "bias", "threshold", "decay", "delay")
"""Limits that every chip has to give."""
