"""Options that several commands share; without torch, for `--help`."""

from dataclasses import dataclass

from hardspike import OutFile, OutText, UsageError


@dataclass(frozen=True)
class Quantisation:
    """How a float graph becomes one of integers.

    Args:
        target: a chip that takes integers; `hardspike targets list` names them
        bits: of a weight, 2 to 8; without it 8, or those that the network was trained in
        scale: searched (on training recordings, by the spikes that differ) or max_abs (the largest weight fills the
            range)
        train_samples: training recordings to choose scales on, evenly spread; 0 for all

    Raises:
        UsageError: `train_samples` below 0.
    """

    target: str = "loihi2"
    bits: int | None = None
    scale: str = "searched"
    train_samples: int = 128

    def __post_init__(self):
        if self.train_samples < 0:
            raise UsageError(f"train_samples {self.train_samples}: must be 0 (all) or more")

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

    out: OutFile | None = None
    no_check: bool = False
    json: OutText | None = None
