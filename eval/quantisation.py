"""What fewer bits cost on a chip, against the float hard network."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from eval.mode import Mode
from eval.subject import Subject
from export.passes.bias_cells import require_no_negative
from export.passes.lower import fold
from export.passes.quantise import SCALES, quantise
from hardspike import progress
from targets.reference import REFERENCE
from targets.target import Target


@dataclass(frozen=True)
class Quantised:
    """A model in integers of one width.

    Args:
        model: its file; None for the mean over models.
        bits: of a weight.
        scale: searched or max_abs.
        floats: accuracy of the float graph on `reference`, in [0, 1],
        integers: and of the integers on the chip.
        changed: share of the spikes that quantising changed, on the recordings that scales were chosen on.
        epoch: after which the weights were kept; None for a graph and for the mean.
    """

    model: Path | None
    bits: int
    scale: str
    floats: float
    integers: float
    changed: float
    epoch: int | None = None

    @property
    def loss(self) -> float:
        """Accuracy lost, in [-1, 1]; negative where the integers are better."""
        return self.floats - self.integers


def measure(subjects: list[Subject], chip: Target, bits: list[int], samples: int = 128) -> list[Quantised]:
    """Every model with every bit width, with searched scales and, as a control, max-abs scales.

    Args:
        chip: in whose integers.
        samples: training recordings to choose scales on; 0 for all.

    Raises:
        UsageError: a model is quantised already.
        HardspikeError: NIR or the chip cannot hold it.
    """
    return [row for subject in subjects for row in _rows(subject, chip, bits, samples)]


def _rows(subject: Subject, chip: Target, bits: list[int], samples: int) -> list[Quantised]:
    graph = subject.model.float_graph()

    def accuracy(graph, mode: Mode) -> float:
        return replace(subject, model=replace(subject.model, checkpoint=None, given=graph)).accuracy(mode)

    floats = accuracy(graph, Mode(REFERENCE.name))
    folded, frames = fold(graph), subject.data.to_input(subject.data.train.spread(samples).frames)
    require_no_negative(folded, frames)
    rows = []
    for width, scale in progress([(width, scale) for width in bits for scale in SCALES], "widths"):
        integer, layers = quantise(folded, frames, chip, width, scale)
        changed = sum(layer.mismatches for layer in layers) / max(1, sum(layer.spikes for layer in layers))
        rows.append(Quantised(subject.model.path, width, scale, floats,
                              accuracy(integer, Mode(chip.name, chip=chip.name, bits=width)), changed, subject.epoch))
    return rows


def means(rows: list[Quantised]) -> list[Quantised]:
    """Means over models, one for each bit width and kind of scale."""
    groups: dict[tuple[int, str], list[Quantised]] = {}
    for row in rows:
        groups.setdefault((row.bits, row.scale), []).append(row)

    return [Quantised(None, bits, scale, fmean(row.floats for row in group), fmean(row.integers for row in group),
                      fmean(row.changed for row in group)) for (bits, scale), group in groups.items()]
