"""The three questions that a report's reader comes with, answered in a sentence each from its numbers: will the chip do
what training promised, at what cost, and what breaks first."""

from collections.abc import Iterator

from eval.energy.measure import TOTAL
from eval.mode import words
from eval.report.finding import Finding
from eval.report.verdict import FRAGILE, on_chip, trained
from eval.robustness.curves import unit
from eval.robustness.measure import severity_key

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
    before, chip = trained(found), on_chip(found)
    if chip is None:
        refused = any(one.chip for one in found.missing)
        return "No chip that was asked for holds it." if refused else "Not judged: no chip is among the targets."
    lost = 100 * (before.accuracy - chip.accuracy)
    change = f"{abs(lost):.1f} points {'less' if lost > 0 else 'more'}" if abs(lost) >= 0.05 else "the same"
    if before is chip:
        return _capital(f"{words(chip.mode)} gives {100 * chip.accuracy:.1f} % of {found.samples} recordings; what "
                        "training promised is not in the file: give the run's folder.")
    return _capital(f"{words(before.mode)}, as it was trained, gives {100 * before.accuracy:.1f} %, "
                    f"{words(chip.mode)} {100 * chip.accuracy:.1f} %: {change} ({found.samples} recordings; on the "
                    f"chip 95 % lie between {100 * chip.low:.1f} and {100 * chip.high:.1f} %).")


def _costs(found: Finding) -> Iterator[str]:
    if cores := found.cores:
        yield (f"{cores.cores} of {cores.available} cores of {cores.chip} and {cores.memory / 1000:,.1f} kB of "
               "synapses (an estimate)")
    totals = [row for row in (found.energy.rows if found.energy else [])
              if row.term == TOTAL and row.nanojoules and row.mode]
    own = [row for row in totals if row.mode == totals[-1].mode]
    if own:
        least, most = (pick(row.nanojoules or 0.0 for row in own) / 1000 for pick in (min, max))
        yield f"{least:.3g} to {most:.3g} µJ a recording, as what is priced goes" if least < most else \
            f"{most:.3g} µJ a recording"
    chip = on_chip(found) or trained(found)
    yield f"{chip.spikes:,.0f} spikes in {found.steps} steps a recording"
    if found.timings:
        one = found.timings[0]
        yield (f"simulated here in {one.times.median:.3g} ms ({words(one.mode)}); how long the chip takes is not "
               "known")


def _breaks(found: Finding) -> Iterator[str]:
    """The corruption that costs more than `FRAGILE` points at the least severity, and the layer that bears least."""
    if curves := found.corruptions:
        deployed = list(dict.fromkeys(row.mode for row in curves.rows))[-1]
        rows = [row for row in curves.rows if row.mode == deployed]
        drops = [(severity, row.accuracy[0] - row.accuracy[place], row) for row in rows
                 for place, severity in enumerate(curves.severities) if place]
        fatal = [drop for drop in drops if drop[1] > FRAGILE]
        if fatal:
            severity, points, row = min(fatal, key=lambda drop: (drop[0], -drop[1]))
            yield (f"{row.corruption.replace('_', ' ')}, which at severity {severity_key(severity)} "
                   f"({unit(row.corruption)}) costs {points:.1f} points")
        elif drops:
            yield (f"no corruption up to severity {severity_key(curves.severities[-1])} costs more than {FRAGILE:g} "
                   "points")
    if found.layers:
        losses = [(loss.points, layer.layer, loss.disturbance) for layer in found.layers.layers
                  for loss in layer.losses if loss.points is not None and loss.disturbance != "silent"]
        if losses and max(losses)[0] > 0:
            points, name, disturbance = max(losses)
            yield f"of the layers disturbed alone, {name} bears least: {disturbance} there costs {points:.1f} points"
        elif losses:
            yield "no layer that is disturbed alone costs any accuracy"
