"""Accuracy on corrupted input and with faults, the same for every model and mode."""

import math
from dataclasses import dataclass
from pathlib import Path

from scipy.integrate import trapezoid

from eval.mode import Mode, words
from eval.options import Stress
from eval.plots import drawable, picture
from eval.robustness.corruptions import CORRUPTIONS, check_severity
from eval.robustness.curves import Counted, Curve, LeftOut, count_all, possible, unit
from eval.robustness.faults import FAULTS
from eval.subject import Subject
from hardspike import HardspikeError, UsageError, choice
from hardspike import words as split_words
from targets.table import load_targets
from targets.target import Target


@dataclass(frozen=True)
class RobustnessRow:
    """A model in one mode under one corruption or fault.

    Args:
        corruption: or fault, by name.
        model: its file.
        mode: how it ran.
        accuracy: in %, one a severity.
        mean: of those.
        area: under the curve over the range of severities, in [0, 1]; None for a single severity.
        epoch: after which the weights were kept; None for a graph.
        fired, arrived: spikes of the hidden layers a recording, what their neurons gave and what came to the next
            layers, one a severity; None where nothing is done to spikes.
    """

    corruption: str
    model: Path
    mode: Mode
    accuracy: list[float]
    mean: float
    area: float | None
    epoch: int | None = None
    fired: list[float] | None = None
    arrived: list[float] | None = None


@dataclass(frozen=True)
class Robustness:
    """Accuracy over severity.

    Args:
        rows: one a corruption, model and mode.
        left_out: what could not be run, with the reason.
        inputs: corruption -> SHA-256 of the recordings, one a severity.
        severities: ascending.
        samples: recordings.
    """

    rows: list[RobustnessRow]
    left_out: list[LeftOut]
    inputs: dict[str, list[str]]
    severities: list[float]
    samples: int

    @property
    def of_inputs(self) -> list[str]:
        """Those of `inputs` that change the input."""
        return [name for name in self.inputs if name in CORRUPTIONS]


def known() -> dict:
    """All corruptions and faults by name."""
    return {**CORRUPTIONS, **FAULTS}


def measure(subjects: list[Subject], stress: Stress) -> Robustness:
    """Accuracy of models on the same recordings over the severity of corruptions and faults.

    All models and modes get the same corrupted recordings and the same faults. What was computed before is read from
    the cache.

    Raises:
        UsageError: an unknown name, or a number out of its range.
        HardspikeError: nothing of what was asked for can be run; labels are not known.
    """
    names, grid, targets = check(stress)
    for subject in subjects:
        assert len(subject.labels)  # raises where they are not known or do not fit
    able, left_out = possible(names, [(subject, mode) for subject in subjects for mode in subject.modes(targets)])
    if not able:
        raise HardspikeError("; ".join(map(refusal, left_out)))
    counted, hashes = count_all(able, names, grid, stress.seed)
    count = len(subjects[0].part)
    rows = [_row(curve, grid, found, count) for curve, found in zip(able, counted, strict=True)]
    return Robustness(rows, left_out, hashes, grid, count)


def check(stress: Stress) -> tuple[list[str], list[float], list[Target]]:
    """The names, severities and targets that are asked for.

    Raises:
        UsageError: one is unknown, or out of its range.
    """
    return _names(stress.corruptions), severities_of(stress.severities), load_targets(stress.targets)


def _names(corruptions: str) -> list[str]:
    if corruptions == "all":
        return list(known())
    names = [choice("corruption", name, known()) for name in split_words(corruptions)]
    if not names:
        raise UsageError(f"corruptions are missing; known: {', '.join(known())}, or all")
    return names


def severities_of(text: str) -> list[float]:
    """The severities in `text`, numbers joined by commas, ascending, each once.

    Raises:
        UsageError: there is none, or one that is no number in [0, 1].
    """
    try:
        grid = sorted({float(word) for word in split_words(text)})
    except ValueError as error:
        raise UsageError(f"severities '{text}': numbers joined by commas, such as 0,0.1,0.3") from error
    for severity in grid:
        check_severity(severity)
    if not grid:
        raise UsageError("severities are missing; give numbers joined by commas, such as 0,0.1,0.3")
    return grid


def severity_key(severity: float) -> str:
    """What a severity is called in a table."""
    return f"{severity:.10g}"


def refusal(one: LeftOut) -> str:
    """What was left out, in words."""
    curve = one.curve
    return f"{curve.corruption} of {curve.subject.model.path} ({words(curve.mode)}) is left out: {one.reason}"


def _row(curve: Curve, grid: list[float], found: list[Counted], count: int) -> RobustnessRow:
    accuracy = [100 * one.right / count for one in found]
    area = float(trapezoid(accuracy, grid)) / (grid[-1] - grid[0]) / 100 if len(grid) > 1 else None
    fired, arrived = ([value / count for one in found if (value := getattr(one, key)) is not None] or None
                      for key in ("fired", "arrived"))
    return RobustnessRow(curve.corruption, curve.subject.model.path, curve.mode, accuracy,
                         sum(accuracy) / len(accuracy), area, curve.subject.epoch, fired, arrived)


def draw(found: Robustness, path: Path, title: str) -> None:
    """One panel a corruption, one line a model and mode, as a .svg file.

    Raises:
        HardspikeError: the file cannot be written.
    """
    rows, names, grid = found.rows, list(found.inputs), found.severities
    columns = min(4, len(names))
    series = list(dict.fromkeys((row.model, row.mode) for row in rows))
    places = list(dict.fromkeys(mode for _, mode in series))
    lines = {}
    with picture(path, (3.2 * columns, 2.6 * math.ceil(len(names) / columns) + 0.8)) as figure:
        panels = figure.subplots(math.ceil(len(names) / columns), columns, sharey=True, squeeze=False).ravel()
        for index, (panel, corruption) in enumerate(zip(panels, names, strict=False)):
            for row in rows:
                if row.corruption == corruption:
                    run = row.model, row.mode
                    lines[run], = panel.plot(grid, row.accuracy, marker=".",
                                             color=f"C{series.index(run)}",
                                             label=drawable(f"{row.model}, {words(row.mode)}"),
                                             linestyle=("-", "--", ":", "-.")[places.index(row.mode) % 4])
            panel.set(title=corruption, xlabel=f"severity ({unit(corruption)})", ylim=(0, 102),
                      ylabel="" if index % columns else "accuracy (%)")
            panel.grid(alpha=0.3)
        for panel in panels[len(names):]:
            panel.remove()
        figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=2, fontsize="small")
        figure.suptitle(drawable(title))
