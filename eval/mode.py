"""What ran where, as a value, and its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One of the ways that a model can run.

    Args:
        target: that ran its graph, by name; None: the network itself, in PyTorch.
        smooth: with surrogate spikes, between 0 and 1, instead of hard ones; of a network alone.
        chip: whose integers the graph holds, by the name of its target; None: floats.
        bits: of a weight, where the integers were made for this run.
        calibration: the kind that the model was calibrated by after training.
    """

    target: str | None = None
    smooth: bool = False
    chip: str | None = None
    bits: int | None = None
    calibration: str | None = None

    @property
    def on_chip(self) -> bool:
        """Whether a chip's integers ran in that chip's own arithmetic."""
        return self.chip is not None and self.target == self.chip

    def same_network(self, other: "Mode") -> bool:
        """Whether both ran one and the same network: the same weights and thresholds, in floats or in integers."""
        return (self.smooth, self.chip, self.bits, self.calibration) == (
            other.smooth, other.chip, other.bits, other.calibration)


SURROGATE = Mode(smooth=True)
HARD = Mode()


def words(mode: Mode, exported: bool = False) -> str:
    """A mode in words, for tables and sentences: what tells any two modes of a model apart.

    `exported`: for a table in which where a graph runs says nothing, but that it is one.
    """
    if mode.target is None:
        text = "surrogate" if mode.smooth else "hard"
    elif exported:
        text = "exported" + (f", {mode.target}" if mode.chip else "")
    else:
        text = f"{mode.target}" + (f" of {mode.chip}" if mode.chip and not mode.on_chip else "")
    text += f", {mode.bits} bits" if mode.bits else ""
    return text + (f", calibrated ({mode.calibration})" if mode.calibration else "")


def brief(modes: list[Mode]) -> list[str]:
    """One model's graphs on several targets: the target alone, with `(int)` behind the second of two that it ran."""
    floats = {mode.target for mode in modes if mode.chip is None}
    return [f"{mode.target}" + (" (int)" if mode.chip and mode.target in floats else "") for mode in modes]
