"""What fewer bits cost on a chip, against the float hard network, and what they save."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from eval.energy.measure import total
from eval.energy.price_tables import PriceTable
from eval.footprint import footprint
from eval.mode import Mode
from eval.operations.measure import Operations, count_target
from eval.plots import picture, printable
from eval.subject import Subject
from export.freeze.integers import TRAINED
from export.model import model_file
from export.passes.bias_cells import require_no_negative
from export.passes.lower import fold
from export.passes.quantise import SCALES, quantise
from hardspike import HardspikeError, UsageError, about, progress
from targets import metadata
from targets.chips import limits_of
from targets.graph import Graph
from targets.reference import REFERENCE
from targets.target import Target


@dataclass(frozen=True)
class Quantised:
    """A model in integers of one width.

    Args:
        model: its file; None for the mean over models.
        bits: of a weight.
        scale: searched or max_abs, of a float network; trained, of one that learned in these integers.
        floats: accuracy of the float graph on `reference`, in [0, 1]; of a trained network, that of the one that its
            training began from, where that is among the models; else None.
        integers: and of the integers on the chip.
        changed: share of the spikes that quantising changed, on the recordings that scales were chosen on; None for a
            trained network.
        epoch: after which the weights were kept; None for a graph and for the mean.
        silent: layers in which nothing fired on those recordings, before and after: that they did not change says
            nothing.
        memory: bytes of synapses.
        cores: of the chip.
        energy: nJ a sample; None without a table, or where it has no price for what is counted.
    """

    model: Path | None
    bits: int
    scale: str
    floats: float | None
    integers: float
    changed: float | None
    epoch: int | None = None
    memory: float | None = None
    cores: float | None = None
    energy: float | None = None
    silent: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """Accuracy lost, in [-1, 1]; negative where the integers are better."""
        return None if self.floats is None else self.floats - self.integers


def measure(subjects: list[Subject], chip: Target, bits: list[int], samples: int = 128,
            prices: PriceTable | None = None) -> list[Quantised]:
    """Every float model with every bit width, with searched scales and, as a control, max-abs scales; and every model
    that was trained in integers as it is.

    Args:
        chip: in whose integers.
        samples: training recordings to choose scales on; 0 for all.
        prices: of operations.

    Raises:
        UsageError: a model was quantised after training already.
        HardspikeError: NIR or the chip cannot hold it.
    """
    rows: list[Quantised] = []
    floats: dict[Path, float] = {}
    for subject in subjects:
        if not metadata.quantised(subject.model.graph):
            with about(subject.model.path):
                rows += _rows(subject, chip, bits, samples, prices)
            floats[subject.model.path.resolve()] = rows[-1].floats or 0.0
    for subject in subjects:
        if mark := metadata.quantised(subject.model.graph):
            if mark.scale != TRAINED:
                raise UsageError(f"{subject.model.path}: was quantised after training; give the float graph, or a "
                                 "checkpoint that was trained in integers")
            begun = subject.model.begun and _begun(subject.model.begun)
            rows.append(_row(subject, subject.model.graph, chip, mark.bits, TRAINED, prices,
                             floats.get(begun) if begun else None))
    return rows


def _begun(path: Path) -> Path | None:
    """The file that training began from; None where it is gone."""
    try:
        return model_file(path).resolve()
    except HardspikeError:
        return None


def _accuracy(subject: Subject, graph: Graph, mode: Mode) -> float:
    return replace(subject, model=replace(subject.model, checkpoint=None, given=graph)).accuracy(mode)


def _rows(subject: Subject, chip: Target, bits: list[int], samples: int, prices: PriceTable | None) -> list[Quantised]:
    graph = subject.model.float_graph()
    floats = _accuracy(subject, graph, Mode(REFERENCE.name))
    folded, frames = fold(graph), subject.data.to_input(subject.data.train.spread(samples).frames)
    require_no_negative(folded, frames)
    rows = []
    for width, scale in progress([(width, scale) for width in bits for scale in SCALES], "widths"):
        integer, layers = quantise(folded, frames, chip, width, scale)
        changed = sum(layer.mismatches for layer in layers) / max(1, sum(layer.spikes for layer in layers))
        silent = tuple(layer.layer for layer in layers if not layer.spikes and not layer.mismatches)
        rows.append(replace(_row(subject, integer, chip, width, scale, prices, floats), changed=changed, silent=silent))
    return rows


def _row(subject: Subject, graph: Graph, chip: Target, bits: int, scale: str, prices: PriceTable | None,
         floats: float | None) -> Quantised:
    """One integer graph on its chip."""
    mode, taken, energy = Mode(chip.name, chip=chip.name, bits=bits), footprint(graph, chip), None
    if prices:
        if prices.chip and prices.chip != chip.name:
            raise UsageError(f"prices {prices.name}: are {prices.chip}'s; {limits_of(chip).chip} is asked for")
        counted = count_target(graph, chip, subject.frames, chip if prices.chip else None)
        energy = total(Operations(subject.model.path, mode, *counted), prices)
    return Quantised(subject.model.path, bits, scale, floats, _accuracy(subject, graph, mode), None, subject.epoch,
                     taken.memory, taken.cores, energy)


def means(rows: list[Quantised]) -> list[Quantised]:
    """Means over models, one for each bit width and kind of scale."""
    groups: dict[tuple[int, str], list[Quantised]] = {}
    for row in rows:
        groups.setdefault((row.bits, row.scale), []).append(row)

    def mean(group: list[Quantised], key: str) -> float | None:
        values = [getattr(row, key) for row in group]
        return None if None in values else fmean(values)

    return [Quantised(None, bits, scale, mean(group, "floats"), fmean(row.integers for row in group),
                      mean(group, "changed"), None, mean(group, "memory"), mean(group, "cores"), mean(group, "energy"))
            for (bits, scale), group in groups.items()]


def draw(rows: Iterable[Quantised], path: Path, title: str) -> None:
    """Accuracy over bits: a point a model, a line through the means of each kind of scale, and the floats' mean.

    Raises:
        HardspikeError: the file cannot be written.
    """
    rows = list(rows)
    with picture(path, (5.2, 3.6)) as figure:
        axes = figure.subplots()
        for index, scale in enumerate(dict.fromkeys(row.scale for row in rows)):
            own = [row for row in rows if row.scale == scale]
            axes.plot([row.bits for row in own], [100 * row.integers for row in own], "o", color=f"C{index}", alpha=0.5,
                      markersize=4)
            middle = sorted(means(own), key=lambda row: row.bits)
            axes.plot([row.bits for row in middle], [100 * row.integers for row in middle], color=f"C{index}",
                      label=printable(scale))
        if floats := {row.model: row.floats for row in rows if row.floats is not None and row.scale != TRAINED}:
            axes.axhline(100 * fmean(floats.values()), color="black", linewidth=0.8, linestyle=":", label="floats")
        axes.set(xlabel="bits of a weight (2: ternary)", ylabel="accuracy, %", title=printable(title))
        axes.set_xticks(sorted({row.bits for row in rows}))
        axes.grid(axis="y", alpha=0.4)
        axes.legend()
