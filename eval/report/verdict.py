"""What the numbers of a report say, in words, by rules that stand here.

Whether a model is ready for a chip rests on its integer graph alone: its accuracy there, whether all runs of that graph
in integer arithmetic give the same spikes, and whether the chip holds it. What floats do is said beside it.
"""

from collections.abc import Iterator

from eval.energy.measure import TOTAL, Energy
from eval.mode import Mode, words
from eval.report.finding import Finding, Verdict
from eval.report.readiness import (
    CLEAR,
    LOSS,
    OTHERWISE,
    basis,
    calibrated,
    change,
    chip_name,
    faults,
    floats,
    hard,
    on_chip,
    points_lost,
    silent_layers,
    unequal,
)
from eval.report.runs import Accuracy, Run, compared
from eval.robustness.curves import unit
from eval.robustness.measure import Robustness, RobustnessRow, severity_key
from eval.statistics import McNemar, interval
from hardspike import few
from targets.reference import REFERENCE

FRAGILE = 10.0
"""Points that a corruption, or a further width of weights, may cost before it is named."""
SHOWN = 0.05
"""Points: a smaller difference is none once it is rounded."""
SEVERITY = 0.1
"""At which severity corruptions are compared."""

Points = Iterator[tuple[str, str]]
"""(good, bad or note, sentence) each."""


def judge(found: Finding) -> Verdict:
    """Headline and points.

    Ready: `readiness.faults` finds nothing. The mode that was trained and the chip, in integers, are both better than
    guessing; the chip loses at most `readiness.LOSS` points against training and against floats, and does not do
    something else; all runs of its integer graph give the same spikes, and the chip holds it.
    """
    chip = on_chip(found)
    points = [*_accuracy(found, chip), *_gap(found), *_calibrated(found), *_bits(found), *_integers(found.runs),
              *_floats(found.runs), *_same(found), *_cores(found), *_corruptions(found), *_energy(found)]
    if chip is None:
        refused = [one.reason for one in found.missing if one.chip]
        if refused:
            return Verdict("not ready", f"Not ready for a chip: {refused[0].removeprefix(f'{found.file}: ')}", points)
        return Verdict("open", "Not judged: no chip among the targets", points)
    against, name = faults(found, chip), chip_name(chip)
    weights = f"with weights of {chip.mode.bits} bits" if chip.mode.bits else "as it is"
    headline = f"Ready for {name} {weights}" if not against else f"Not ready for {name}: {'; '.join(against)}"
    return Verdict("not ready" if against else "ready", headline, points)


def _accuracy(found: Finding, chip: Accuracy | None) -> Points:
    row = chip or hard(found) or found.accuracy[0]
    if of := row.pixels:
        yield "note", (f"{words(row.mode)}: mean intersection over union {100 * of.miou:.1f} % (95 %: "
                       f"{100 * of.miou_low:.1f} to {100 * of.miou_high:.1f}) on {found.samples} test recordings; "
                       f"{100 * row.accuracy:.1f} % of their pixels are classified rightly.")
        return
    yield "note", (f"{words(row.mode)}: {100 * row.accuracy:.1f} % of {found.samples} test recordings are classified "
                   f"rightly (95 %: {100 * row.low:.1f} to {100 * row.high:.1f}).")


def _gap(found: Finding) -> Points:
    row = hard(found)
    if row is None or row.change is None:
        return
    gap, test = -row.change.change, basis(row.change, found.samples)
    if found.training and found.training.hard:
        better = "as good" if abs(gap) < SHOWN else f"{abs(gap):.1f} points {'better' if gap > 0 else 'worse'}"
        yield "note", f"It was trained with hard spikes; the smooth network, which nobody trained, is {better}."
    elif gap > LOSS:
        yield "bad", f"Hard thresholds cost {gap:.1f} points against the smooth network ({test})."
        yield from _differences(found)
    else:
        what = "cost nothing" if abs(gap) < SHOWN else f"{'cost' if gap > 0 else 'win'} {abs(gap):.1f} points"
        yield "good" if -gap <= OTHERWISE else "note", f"Hard thresholds {what} against the smooth network ({test})."


def _differences(found: Finding) -> Points:
    """Which layer's output hard thresholds change most; that is no cause yet, since layers hear each other."""
    layers = found.membranes or []
    whole = sum(layer.difference or 0.0 for layer in layers)
    if whole:
        worst = max(layers, key=lambda layer: layer.difference or 0.0)
        yield "note", (f"Of what hard thresholds change in the layers' outputs, |φ − H|, the largest part, "
                       f"{100 * (worst.difference or 0.0) / whole:.0f} %, is that of {worst.layer}: "
                       f"{100 * (worst.in_zone or 0.0):.0f} % of its membranes lie where a smooth neuron is neither on "
                       f"nor off, and at rest it gives {worst.phi_at_rest:.2g} spikes a step.")


def _calibrated(found: Finding) -> Points:
    """What each calibration that the report tried wins or loses."""
    base = hard(found)
    said = [f"{row.mode.calibration} {_change(-points_lost(found, base, row))} ({100 * row.accuracy:.1f} %; "
            f"{basis(change(found, base, row), found.samples)})" for row in calibrated(found) if base]
    if said:
        yield "note", (f"Calibration after training, chosen on validation recordings, against the hard network: "
                       f"{'; '.join(said)}.")


def _bits(found: Finding) -> Points:
    """Each bit width on its chip against the same network in floats."""
    base = floats(found)
    chips = [row for row in found.accuracy if row.mode.on_chip]
    if base is None:
        return
    for row in chips:
        gained = -points_lost(found, base, row)
        kind = "good" if -gained <= LOSS else "bad" if row is chips[0] else "note"
        yield kind, (f"Weights of {row.mode.bits} bits on {row.mode.target}: {_change(gained)} against floats "
                     f"({basis(change(found, base, row), found.samples)}).")


def _change(points: float) -> str:
    return "no change" if abs(points) < SHOWN else f"{abs(points):.1f} points {'won' if points > 0 else 'lost'}"


# --------------------------------------------------------------------------------------------- equal spikes


def _integers(runs: list[Run]) -> Points:
    for one, other, count in unequal(runs):
        yield "bad", (f"{words(one.mode)} and {words(other.mode)} run the same integer graph, and {count} of their "
                      "spikes differ.")


def _floats(runs: list[Run]) -> Points:
    """Runs of the float network in float32 against float64."""
    place = next((index for index, run in enumerate(runs) if _is_exact(run.mode)), None)
    if place is None:
        return
    for run in runs:
        if run.mode.chip is not None or not run.differs[place]:
            continue
        said = f"{words(run.mode)} computes in float32, and {run.differs[place]} of its spikes differ from reference's"
        if run.beyond:
            yield "bad", f"{said}; {run.beyond} times it parts from them where rounding does not explain it."
        else:
            yield "note", f"{said}: wherever it parts from them, a membrane lies within rounding of its threshold."


def _is_exact(mode: Mode) -> bool:
    return mode.target == REFERENCE.name and mode.chip is None


def _same(found: Finding) -> Points:
    """Groups of runs of one network that give the same spikes."""
    runs = found.runs
    groups: list[list[int]] = []
    for index, run in enumerate(runs):
        group = next((group for group in groups if run.comparable and run.mode.same_network(runs[group[0]].mode)
                      and run.differs[group[0]] == 0), None)
        if group:
            group.append(index)
        elif run.comparable:
            groups.append([index])
    same = [" = ".join(words(runs[index].mode) for index in group) for group in groups if len(group) > 1]
    if same:
        yield "good", f"Spike for spike the same on every recording: {'; '.join(same)}."
    silent = silent_layers(found) if same else []
    if silent:
        yield "note", f"Silent in every run, so that nothing is known of them: {few(silent)}."


# ---------------------------------------------------------------------------------------- what else is known


def _cores(found: Finding) -> Points:
    cores = found.cores
    if cores is None:
        return
    for violation in cores.violations:
        yield "bad", f"{cores.chip} cannot hold it: {violation.removeprefix('error: ')}."
    if not cores.violations:
        kind = "note" if cores.unchecked else "good"
        yield kind, f"It takes about {cores.cores} of {cores.available} cores of {cores.chip}, {cores.estimate}."


def _corruptions(found: Finding) -> Points:
    """What hurts most at `SEVERITY`, in the last mode: the one that is deployed."""
    curves = found.corruptions
    if curves is None or not {0.0, SEVERITY} <= set(curves.severities):
        return
    clean, dirty = curves.severities.index(0.0), curves.severities.index(SEVERITY)
    deployed = list(dict.fromkeys(row.mode for row in curves.rows))[-1]
    rows = [row for row in curves.rows if row.mode == deployed]
    if guessing(curves, rows, found.classes):
        return  # guesses cannot be spoilt
    worst = max(rows, key=lambda row: row.accuracy[clean] - row.accuracy[dirty])
    before, after = worst.accuracy[clean], worst.accuracy[dirty]
    name, key = worst.corruption.replace("_", " "), severity_key(SEVERITY)
    if before - after > FRAGILE:
        yield "bad", (f"Fragile: {name} at severity {key} ({unit(worst.corruption)}) takes it from "
                      f"{before:.0f} to {after:.0f} % ({curves.samples} recordings).")
    else:
        yield "good", (f"Robust: no corruption of severity {key} costs more than {FRAGILE:g} points; the worst is "
                       f"{name} with {before - after:.1f} ({curves.samples} recordings).")


def guessing(curves: Robustness, rows: list[RobustnessRow], classes: int) -> bool:
    """Whether the accuracy on the uncorrupted recordings behind `rows`, of one mode, cannot be told from guessing."""
    right = round(rows[0].accuracy[curves.severities.index(0.0)] / 100 * curves.samples)
    return interval(right, curves.samples)[0] <= 1 / max(1, classes)


def _energy(found: Finding) -> Points:
    """The network against the ANN of its layers, by every table that prices both: arithmetic alone says half of it.

    Of the last run, the one that is deployed: integers against integers, where there are any.
    """
    rows = found.energy.rows if found.energy else []
    totals = [row for row in rows if row.term == TOTAL and row.nanojoules]
    deployed = next((row.mode for row in reversed(totals) if row.mode), None)
    shares: dict[str, tuple[float, str]] = {}
    for ann in (row for row in totals if row.mode is None):
        own = next((row for row in totals if row.table == ann.table and row.mode == deployed), None)
        if own and own.nanojoules and ann.nanojoules and ann.table not in shares:
            ratio = own.nanojoules / ann.nanojoules
            shares[ann.table] = ratio, _priced(own, own.nanojoules / 1000, ratio, rows)
    if not shares or deployed is None:
        return
    ratios = [ratio for ratio, _ in shares.values()]
    end = (" So it saves energy by either count." if max(ratios) < 1 and len(ratios) > 1 else
           " So it saves energy by no count." if min(ratios) >= 1 else
           " So whether it saves energy hangs on what is counted." if max(ratios) >= 1 else "")
    yield "note", (f"Energy of {words(deployed)} against an ANN of the same layers, passed once: "
                   f"{'; '.join([*(text for _, text in shares.values()), *filter(None, [coarser(deployed)])])}.{end}")


def coarser(mode: Mode | None) -> str:
    """That weights of fewer bits than the price tables know are priced as more, where it is so."""
    bits = mode.bits or 8 if mode else 8
    return f"weights of {bits} bits are priced as those of 8, the fewest that the tables have" if bits < 8 else ""


def _priced(own: Energy, microjoules: float, ratio: float, rows: list[Energy]) -> str:
    moved = any(row.term == "reads" and row.table == own.table and row.nanojoules for row in rows)
    return (f"{microjoules:.3g} µJ a recording {'with data movement' if moved else 'of arithmetic'} "
            f"({own.evidence}, {own.table}), {ratio:.3g} times the ANN's")


def compare(one: Finding, other: Finding) -> list[tuple[Mode, Accuracy, Accuracy, McNemar]]:
    """The second model against the first, recording by recording, in every mode that both have.

    Returns:
        (mode, accuracy of each, `statistics.McNemar` between them).
    """
    theirs = {run.mode: run for run in other.runs}
    first, second = ({row.mode: row for row in model.accuracy} for model in (one, other))
    return [(run.mode, first[run.mode], second[run.mode], compared(run, theirs[run.mode], one.labels))
            for run in one.runs if run.mode in theirs]


def against(one: Finding, other: Finding) -> str:
    """Which of two models is better on the chip, by how much, and on which recordings that rests."""
    rows = [row for row in compare(one, other) if row[0].on_chip]
    if not rows:
        return "Which of the two is better on a chip is not known: they ran on none in the same mode."
    mode, first, second, test = rows[0]
    each = (f"{one.label} {100 * first.accuracy:.1f} %, {other.label} {100 * second.accuracy:.1f} % of "
            f"{one.samples} recordings")
    if abs(test.change) < SHOWN:
        better = "both are as good"
    else:
        better = f"{(other if test.change > 0 else one).label} is {abs(test.change):.1f} points better"
    return (f"On {words(mode)} {better}: {each}; {test.lost} are right with {one.label} alone, {test.won} with "
            f"{other.label} alone, p = {test.p:.2g}{'' if test.p < CLEAR else ', which chance can give too'}.")
