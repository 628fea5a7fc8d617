"""Options of commands; without torch, for `--help`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RandomEvents:
    """Events drawn at random, where no recordings are given.

    Args:
        samples: of them, or of --input, evenly spread; 0 for all of --input, and for 64 random ones
        steps: time steps of a sample
        density: share of places that have an event in a step
    """

    samples: int = 0
    steps: int = 32
    density: float = 0.05
