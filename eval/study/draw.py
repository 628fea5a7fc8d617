"""A study's figures: every seed a point; accuracy over the severity of corruptions, with bands."""

from itertools import product
from pathlib import Path

import numpy as np

from eval.plots import DASHES, picture, printable
from eval.study.runs import StudyRun

PANELS = {"surrogate": "surrogate accuracy, %", "hard": "hard accuracy, %", "gap": "surrogate - hard, points"}
MODES = ("surrogate", "hard")


def draw_runs(runs: list[StudyRun], path: Path, title: str) -> None:
    """Surrogate and hard accuracy and the gap of each variant: a point a seed, a line at the median (SAST table III).

    Raises:
        HardspikeError: the file cannot be written.
    """
    names = list(dict.fromkeys(run.variant for run in runs))
    with picture(path, (1.5 + 3.2 * len(PANELS), 1.2 + 0.32 * len(names))) as figure:
        for axes, (key, label) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True):
            for place, name in enumerate(names):
                values = [run.values[key] for run in runs if run.variant == name]
                offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
                axes.plot(values, place + np.asarray(offsets), "o", color="C0", markersize=4, alpha=0.7)
                axes.plot([np.median(values)] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.2)
            axes.set_xlabel(label)
            axes.grid(axis="x", alpha=0.4)
            axes.set_yticks(range(len(names)), [printable(name) for name in names])
        axes.invert_yaxis()
        figure.suptitle(printable(title))


def draw_curves(runs: list[StudyRun], severities: list[float], path: Path, title: str) -> None:
    """Accuracy over severity, a row a corruption and a column a mode: mean over seeds, and a standard deviation either
    way (SAST fig. 2).

    Raises:
        HardspikeError: the file cannot be written.
    """
    names = list(dict.fromkeys(run.variant for run in runs))
    corruptions = list(dict.fromkeys(corruption for corruption, _ in runs[0].curves))
    with picture(path, (4.2 * len(MODES), 0.8 + 0.1 * len(names) + 2.8 * len(corruptions))) as figure:
        panels = figure.subplots(len(corruptions), len(MODES), sharey="row", squeeze=False)
        for (row, corruption), (column, mode) in product(enumerate(corruptions), enumerate(MODES)):
            axes = panels[row, column]
            for index, name in enumerate(names):
                curves = np.array([run.curves[corruption, mode] for run in runs if run.variant == name])
                mean = curves.mean(0)
                axes.plot(severities, mean, color=f"C{index % 10}", linestyle=DASHES[index // 10 % len(DASHES)],
                          label=printable(name))
                if len(curves) > 1:
                    half = curves.std(0, ddof=1)
                    axes.fill_between(severities, mean - half, mean + half, color=f"C{index % 10}", alpha=0.12)
            axes.set(title=printable(f"{corruption}, {mode}"), xlabel="severity",
                     ylabel="" if column else "accuracy, %")
            axes.grid(alpha=0.4)
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.suptitle(printable(title))
