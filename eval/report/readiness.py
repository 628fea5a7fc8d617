"""Whether a model is ready for its chip, and what keeps it from it: the rules that a report's headline rests on."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from eval.mode import words
from eval.report.finding import Cores, Finding
from eval.report.runs import Accuracy, Run, compared
from eval.statistics import McNemar
from targets.chips import CHIPS, limits_of

LOSS = 1.0
"""Points of accuracy that may be lost between training and chip, and between floats and integers."""
CLEAR = 0.05
"""p of the exact McNemar test from which a difference is not put down to chance."""
OTHERWISE = 10.0
"""Points, in either direction, from which the chip does something else than what was trained."""
FEW = 100
"""Recordings: with fewer, a network above guessing may be no worse than its test is small."""
SILENT = 0.5
"""Share of neurons that never fire from which they are named as what a guessing network suffers from."""


# ------------------------------------------------------------------------------------------ runs that count


def on_chip(found: Finding) -> Accuracy | None:
    """The run that is judged: the first one in a chip's own arithmetic."""
    return next((row for row in found.accuracy if row.mode.on_chip), None)


def chip_name(chip: Accuracy) -> str:
    """The chip of a run in words."""
    return limits_of(CHIPS[f"{chip.mode.chip}"]).chip


def hard(found: Finding) -> Accuracy | None:
    """The hard network as it is."""
    return next((row for row in found.accuracy if row.mode.target is None and not row.mode.smooth), None)


def trained(found: Finding) -> Accuracy:
    """The mode that the model was trained in, or the first one."""
    row = hard(found)
    return row if row and found.training and found.training.hard else found.accuracy[0]


def floats(found: Finding) -> Accuracy | None:
    """What the chip's integers stand for: the network with hard spikes in floats."""
    return next((row for row in found.accuracy if row.mode.chip is None and not row.mode.smooth), None)


def calibrated(found: Finding) -> list[Accuracy]:
    """The hard network after each calibration that the report tried; none of a model that was calibrated before."""
    base = hard(found)
    return [row for row in found.accuracy if base and row.mode.target is None and not row.mode.smooth
            and row.mode.calibration != base.mode.calibration]


def change(found: Finding, before: Accuracy, after: Accuracy) -> McNemar:
    """One run's answers against another's, recording by recording."""
    runs = {run.mode: run for run in found.runs}
    return compared(runs[before.mode], runs[after.mode], found.labels)


def points_lost(found: Finding, before: Accuracy, after: Accuracy) -> float:
    """Points of accuracy from one run to another: of whole recordings, so that one in a hundred is 1 and no more."""
    return -change(found, before, after).change


def unequal(runs: list[Run]) -> Iterator[tuple[Run, Run, int]]:
    """Runs of one integer graph, which integer arithmetic leaves no room to differ, that do."""
    for (first, one), (second, other) in combinations(enumerate(runs), 2):
        if one.mode.chip and one.mode.same_network(other.mode) and (count := one.differs[second]):
            assert other.differs[first] == count
            yield one, other, count


def guesses(row: Accuracy, found: Finding) -> bool:
    """Whether an accuracy cannot be told from guessing: its interval holds one over the number of classes."""
    return row.low <= 1 / max(1, found.classes)


# ---------------------------------------------------------------------------------------------------- words


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def basis(test: McNemar, count: int) -> str:
    """What a difference rests on, and whether chance gives it, too."""
    if not test.lost + test.won:
        return f"none of {count} recordings lost or won"
    return (f"{test.lost} of {count} recordings lost, {test.won} won, p = {test.p:.2g}"
            + ("" if test.p < CLEAR or test.lost == test.won else ", which chance can give too"))


def no_better(row: Accuracy, found: Finding) -> str:
    """Of an accuracy that `guesses`: what is not shown, and whether more recordings might show it."""
    if row.accuracy > 1 / max(1, found.classes) and found.samples < FEW:
        return f"too few test recordings ({found.samples}) to tell it from guessing among {found.classes} classes"
    return f"not clearly better than guessing among {found.classes} classes"


def too_much(cores: Cores) -> list[str]:
    """Every limit of a chip that a graph breaks, with its value and the chip's."""
    return [f"{excess.where}{excess.value:,} {excess.rule}, {cores.chip} holds {excess.most:,}"
            for excess in cores.excesses]


# --------------------------------------------------------------------------------------------------- faults


def faults(found: Finding, chip: Accuracy) -> list[str]:
    """What keeps a model from a chip, the cause that is known before what it does; nothing where it is ready."""
    weak = list(_weak(found, chip))
    return [*_held(found.cores), *(_silent(found, chip) if weak else ()), *weak, *_differing(found, chip)]


def _held(cores: Cores | None) -> Iterator[str]:
    if cores and cores.violations:
        yield from too_much(cores) or [f"the chip cannot hold it: {cores.violations[0].removeprefix('error: ')}"]


def _silent(found: Finding, chip: Accuracy) -> Iterator[str]:
    """Layers that never fire; of a network that guesses also that most of its neurons do not."""
    never = silent_layers(found)
    if never:
        yield f"{listed(never)} never fire{'s' * (len(never) == 1)}"
        return
    layers = found.margins or found.membranes or []
    neurons = sum(layer.neurons for layer in layers)
    share = sum(layer.silent * layer.neurons for layer in layers) / neurons if neurons else 0.0
    if share > SILENT and guesses(chip, found):
        yield f"{100 * share:.0f} % of its neurons never fire"


def silent_layers(found: Finding) -> list[str]:
    """Layers without a spike in every run with hard spikes."""
    runs = [run.spikes for run in found.runs if run.comparable]
    return [layer for layer in (runs[0] if runs else {}) if not any(spikes.get(layer) for spikes in runs)]


def _weak(found: Finding, chip: Accuracy) -> Iterator[str]:
    """What the accuracies say against it."""
    before, base = trained(found), floats(found)
    if guesses(chip, found):
        yield no_better(chip, found)
    elif guesses(before, found):
        yield f"{words(before.mode)}, which was trained: {no_better(before, found)}"
    lost = points_lost(found, before, chip)
    if lost > LOSS:
        test = change(found, before, chip)
        yield (f"{lost:.1f} points are lost between training and chip, more than {LOSS:g}"
               + (": it does something else than what was trained" if lost > OTHERWISE and test.p < CLEAR else
                  "" if test.p < CLEAR else ", though chance can give that too"))
    elif -lost > OTHERWISE and change(found, before, chip).p < CLEAR:
        yield f"{-lost:.1f} points better than {words(before.mode)}: it does something else than what was trained"
    if base and base is not before and (lost := points_lost(found, base, chip)) > LOSS:
        yield f"{lost:.1f} points are lost against floats, more than {LOSS:g}"


def _differing(found: Finding, chip: Accuracy) -> Iterator[str]:
    if any(one.mode.same_network(chip.mode) for one, *_ in unequal(found.runs)):
        yield "runs of its integer graph differ"


def remedy(found: Finding) -> str | None:
    """The calibration that the report tried that is clearly better than the hard network by more than `LOSS`."""
    base, rows = hard(found), calibrated(found)
    best = max(rows, key=lambda row: row.accuracy, default=None)
    if base is None or best is None:
        return None
    test = change(found, base, best)
    if test.change <= LOSS or test.p >= CLEAR:
        return None
    return (f"calibrate it (`hardspike eval calibrate --kind {best.mode.calibration}`): in floats that gives "
            f"{100 * best.accuracy:.1f} instead of {100 * base.accuracy:.1f} % ({test.won} recordings won, {test.lost} "
            f"lost, p = {test.p:.2g})")
