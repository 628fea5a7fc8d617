"""Options that several commands share; without torch, for `--help`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Quantisation:
    """How a float graph becomes one of integers.

    Args:
        target: a chip that takes integers; `python -m targets list` names them
        bits: of a weight, 2 to 8; without it 8, or those that the network was trained in
        scale: searched (on training recordings, by the spikes that differ) or max_abs (the largest weight fills the
            range)
        samples: training recordings to choose scales on; 0 for all
    """

    target: str = "loihi2"
    bits: int | None = None
    scale: str = "searched"
    samples: int = 128

    @property
    def width(self) -> int:
        """Bits of a weight, of a network in floats."""
        return 8 if self.bits is None else self.bits


@dataclass(frozen=True)
class Output:
    """What is written.

    Args:
        out: file to write; default: the model's name with the format's suffix
        no_check: write without checking, and mark the file so
        json: file for the table of the check
    """

    out: Path | None = None
    no_check: bool = False
    json: Path | None = None
