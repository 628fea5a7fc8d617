"""The three questions that a report's reader comes with, answered in a sentence each from its numbers: will the chip do
what training promised, at what cost, and what breaks first."""

from collections.abc import Iterator

from eval.energy.measure import TOTAL, Energy
from eval.energy.price_tables import chip_prices
from eval.mode import words
from eval.report.finding import Finding
from eval.report.layers import Layers
from eval.report.readiness import (
    CLEAR,
    basis,
    change,
    chip_name,
    faults,
    floats,
    guesses,
    listed,
    no_better,
    on_chip,
    points_lost,
    remedy,
    too_much,
    trained,
)
from eval.report.runs import Accuracy
from eval.report.verdict import FRAGILE, SHOWN, coarser, guessing
from eval.robustness.curves import unit
from eval.robustness.measure import Robustness, severity_key
from eval.statistics import holm
from targets.chips import CHIPS

PROMISE, COST, BREAKS = ("Will the chip do what training promised?", "At what cost?", "What breaks first?")


def answers(found: Finding) -> list[tuple[str, str]]:
    """(question, answer) each."""
    return [(PROMISE, _promise(found)), (COST, _joined(_costs(found))), (BREAKS, _joined(_breaks(found)))]


def _joined(parts: Iterator[str]) -> str:
    text = "; ".join(parts)
    return f"{_capital(text)}." if text else "Not known; see the end of the page."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _promise(found: Finding) -> str:
    """Yes or no, both accuracies, the test of their difference, and what to do where something better was tried."""
    before, chip = trained(found), on_chip(found)
    if chip is None:
        refused = any(one.chip for one in found.missing)
        return "No chip that was asked for holds it." if refused else "Not judged: no chip is among the targets."
    to_do = remedy(found)
    return f"{_decided(found, before, chip)}{_capital(_numbers(found, before, chip))}." + (
        f" To do: {to_do}." if to_do else "")


def _decided(found: Finding, before: Accuracy, chip: Accuracy) -> str:
    """What the numbers that follow it amount to."""
    if found.cores and found.cores.violations:
        why = "; ".join(too_much(found.cores)) or found.cores.violations[0].removeprefix("error: ")
        return f"No: {why}. In its arithmetic: "
    if guesses(before, found):
        return f"Training promised nothing yet: {no_better(before, found)}. "
    if not faults(found, chip):
        return "" if before is chip else "Yes. "
    return "No. "


def _numbers(found: Finding, before: Accuracy, chip: Accuracy) -> str:
    """Both accuracies, what is lost between them, and the test that this rests on."""
    between = f"on the chip 95 % lie between {100 * chip.low:.1f} and {100 * chip.high:.1f} %"
    if before is chip:
        return (f"{words(chip.mode)} gives {100 * chip.accuracy:.1f} % of {found.samples} recordings ({between}); what "
                "training promised is not in the file: give the run's folder")
    lost = points_lost(found, before, chip)
    change_words = "the same" if abs(lost) < SHOWN else f"{abs(lost):.1f} points {'less' if lost > 0 else 'more'}"
    origin = "as it was trained" if before.mode.target is None else "in floats"
    return (f"{words(before.mode)}, {origin}, gives {100 * before.accuracy:.1f} %, {words(chip.mode)} "
            f"{100 * chip.accuracy:.1f} %: {change_words} ({basis(change(found, before, chip), found.samples)}; "
            f"{between})")


def _costs(found: Finding) -> Iterator[str]:
    cores, chip = found.cores, on_chip(found)
    if cores and cores.violations:
        yield f"{cores.chip} does not hold it, so that all costs there are a what-if"
    elif cores:
        yield (f"about {cores.cores} of {cores.available} cores of {cores.chip}, {cores.estimate}; "
               f"{cores.memory / 1000:,.1f} kB of synapses, an estimate")
    yield from _energy(found, chip)
    row = chip or trained(found)
    yield f"{_spikes(found, row):,.0f} spikes in {found.steps} steps a recording (mean of {found.samples})"
    if chip:
        yield "how long the chip takes is not public"


def _spikes(found: Finding, row: Accuracy) -> float:
    """Of a recording, over all layers of the run."""
    run = next((run for run in found.runs if run.mode == row.mode), None)
    return sum(run.spikes.values()) if run and run.spikes else row.spikes


def _energy(found: Finding, chip: Accuracy | None) -> Iterator[str]:
    """By the chip's own prices, where they are public, and by those that price an ANN, too."""
    if found.energy is None:
        return
    own = {table.name for table in found.energy.tables if table.chip}
    anns = {row.table for row in found.energy.rows if row.mode is None}
    totals = [row for row in found.energy.rows if row.term == TOTAL and row.nanojoules and row.mode
              and row.table in own | anns]
    totals = [row for row in totals if row.mode == totals[-1].mode]
    mean = f"(mean of {found.energy.samples})"
    if chip:
        yield _published(chip, [row for row in totals if row.table in own], mean)
    others = [(row.nanojoules or 0) / 1000 for row in totals if row.table in anns]
    if others:
        text = f"{min(others):.3g}" + (f" to {max(others):.3g}" if min(others) < max(others) else "")
        yield (f"with the prices of a general 45 nm process, {text} µJ a recording {mean}, without and with data "
               "movement")
        if bits := coarser(totals[-1].mode):
            yield bits


def _published(chip: Accuracy, totals: list[Energy], mean: str) -> str:
    """Energy by the chip's own prices, or why there is none."""
    name, table = chip_name(chip), chip_prices(CHIPS[f"{chip.mode.chip}"])
    if table is None:
        return f"no price for {name} is published"
    if not totals:
        return f"the published prices of {name} give no total here; see the end of the page"
    return (f"{(totals[0].nanojoules or 0) / 1000:.3g} µJ a recording {mean} by the published prices of {name} "
            f"({table.name}: {totals[0].evidence}, dynamic energy of its cores and mesh alone)")


def _breaks(found: Finding) -> Iterator[str]:
    """Further widths of weights and corruptions that cost more than `FRAGILE` points, and the layer that bears
    least."""
    chip = on_chip(found)
    row = chip or trained(found)
    if guesses(row, found):
        yield f"nothing can break of what guesses ({words(row.mode)}: {no_better(row, found)})"
        return
    if chip:
        yield from _widths(found, chip)
    if found.corruptions:
        yield from _corruptions(found, found.corruptions)
    if found.layers:
        yield _layers(found.layers)


def _widths(found: Finding, chip: Accuracy) -> Iterator[str]:
    """Widths of weights, beside the one that is judged, that cost more than `FRAGILE` points."""
    base = floats(found)
    for row in found.accuracy:
        if base and row.mode.on_chip and row is not chip and (points := points_lost(found, base, row)) > FRAGILE:
            yield (f"weights of {row.mode.bits} bits on {row.mode.target} cost {points:.1f} points against floats "
                   f"({basis(change(found, base, row), found.samples)})")


def _corruptions(found: Finding, curves: Robustness) -> Iterator[str]:
    """The corruption that costs more than `FRAGILE` points at the least severity."""
    deployed = list(dict.fromkeys(row.mode for row in curves.rows))[-1]
    rows = [row for row in curves.rows if row.mode == deployed]
    count = f"{curves.samples} recordings, drawn once"
    if 0.0 not in curves.severities:
        return
    if guessing(curves, rows, found.classes):
        yield f"{curves.samples} recordings are too few to see what corruptions break"
        return
    clean = curves.severities.index(0.0)
    drops = [(severity, row.accuracy[clean] - row.accuracy[place], row) for row in rows
             for place, severity in enumerate(curves.severities) if severity]
    fatal = [drop for drop in drops if drop[1] > FRAGILE]
    if fatal:
        severity, points, row = min(fatal, key=lambda drop: (drop[0], -drop[1]))
        yield (f"{row.corruption.replace('_', ' ')}, at severity {severity_key(severity)} ({unit(row.corruption)}), "
               f"costs {points:.1f} points ({count})")
    elif drops:
        yield (f"no corruption up to severity {severity_key(curves.severities[-1])} costs more than {FRAGILE:g} points "
               f"({count})")


def _layers(layers: Layers) -> str:
    """The layers that lose most when they alone are disturbed, where chance does not explain it: p of McNemar's test
    against the undisturbed graph, corrected for all disturbances (Holm)."""
    tried = [(loss, layer.layer) for layer in layers.layers for loss in layer.losses
             if loss.points is not None and loss.disturbance != "silent"]
    p = holm([loss.p for loss, _ in tried])
    clear = [(loss, layer) for (loss, layer), each in zip(tried, p, strict=True)
             if each is not None and each < CLEAR and (loss.points or 0.0) > 0]
    if not clear:
        return f"of the layers disturbed alone, none stands out ({layers.samples} recordings)"
    most = max(loss.points or 0.0 for loss, _ in clear)
    worst = [f"{layer} ({loss.disturbance})" for loss, layer in clear if loss.points == most]
    return (f"of the layers disturbed alone, {listed(worst)} bear{'s' * (len(worst) == 1)} least: {most:.1f} points "
            f"lost ({layers.samples} recordings)")
