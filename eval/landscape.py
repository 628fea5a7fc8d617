"""The loss around trained networks, side by side: A2SG's figure 1, the rise that it shows in numbers, and the Hessian.

`trainer.analysis.landscape` says what is measured, and of which network there is a Hessian.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.colors import LogNorm

from eval.options import View
from eval.plots import drawable, labels, picture
from eval.subject import Subject
from export.model import Model
from hardspike import UsageError, about, progress
from trainer.analysis import landscape, sharpness
from trainer.methods import METHODS

DIRECTIONS = 8
"""Random ones, of which a rise is the mean."""
PARTS = (0.25, 0.5, 1.0)
"""Of the reach, at which rises are measured."""
LEVELS, COLUMNS = 16, 3
LEAST = 1e-3
"""Nats, below which losses have one colour."""


@dataclass(frozen=True)
class Landscape:
    """One network.

    Args:
        model: its file.
        spikes: hard or surrogate: of the loss that is drawn.
        loss: at the network itself, nats.
        surface: its loss at the grid's points, rows along the second direction.
        rises: distance -> mean rise of the loss there (`trainer.analysis.landscape.rise`).
        smooth: loss of the smooth network of the same weights, whose Hessian is measured.
        eigenvalues: of that Hessian, the largest by magnitude; empty where none was asked for.
        residuals: of each, how far it is from an eigenvalue at most.
    """

    model: Path
    spikes: str
    loss: float
    surface: list[list[float]]
    rises: dict[float, float]
    smooth: float
    eigenvalues: list[float]
    residuals: list[float]

    @property
    def largest(self) -> float:
        """The largest loss of the surface."""
        return max(map(max, self.surface))


@dataclass(frozen=True)
class Landscapes:
    """Several networks on the same recordings.

    Args:
        networks: one each.
        grid: steps along both directions.
        layer: whose weights are moved; None for all.
    """

    networks: list[Landscape]
    grid: list[float]
    layer: str | None

    @property
    def alternative(self) -> str:
        """What the figure shows, in words."""
        of = f"the weights of layer {self.layer}" if self.layer else "all weights"
        names = labels([one.model for one in self.networks])
        each = "; ".join(f"{name} ({one.spikes} spikes) {one.loss:.3g} nats in the middle, {one.largest:.3g} at most"
                         for name, one in zip(names, self.networks, strict=True))
        return (f"Loss over two random directions of {of}, {self.grid[0]:g} to {self.grid[-1]:g} lengths of the "
                f"filters from each network: {each}.")


def ends(model: Path) -> Path:
    """Where a run's training ended: its last.pt; a checkpoint as it is."""
    return model / "last.pt" if (model / "last.pt").is_file() else model


def measure(subjects: list[Subject], view: View) -> Landscapes:
    """Surface, rises and the Hessian's top eigenvalues of every network, in float64, on the subjects' recordings.

    All networks have the same draws of directions, each made as long as its own filters.

    Raises:
        UsageError: a graph or a network in integers; a number out of its range.
        HardspikeError: there is no such layer; labels are not known or do not fit.
    """
    view.checked()
    for subject in subjects:
        _check(subject.model)
        assert len(subject.labels)  # raises where they are not known or do not fit
    grid = torch.linspace(-view.reach, view.reach, view.points, dtype=torch.float64).tolist()
    total = len(subjects) * view.points**2
    with progress([], "landscape", total=total) as bar:
        found = []
        for subject in subjects:
            with about(subject.model.path):
                found.append(_one(subject, view, grid, bar.update))
    return Landscapes(found, grid, view.layer)


def _check(model: Model) -> None:
    if model.checkpoint is None:
        raise UsageError(f"{model.path}: a graph, or a network in integers, has no smooth spikes and no loss to look "
                         "around in; give the folder of a run in floats, or its checkpoint (.pt)")


def _one(subject: Subject, view: View, grid: list[float], each) -> Landscape:
    stored = subject.model.trained
    network = sharpness.double(stored.network)
    frames, labels = subject.frames.double(), subject.labels
    hard = METHODS[stored.config.method].hard if view.spikes is None else view.spikes == "hard"
    generator = torch.Generator().manual_seed(view.seed)
    drawn = [landscape.filter_normalised(network, generator, view.layer) for _ in range(DIRECTIONS)]
    with network.mode(hard):
        here = sharpness.loss(network, frames, labels)
        surface = landscape.surface(network, frames, labels, (drawn[0], drawn[1]), grid, each)
        rises = {part * view.reach: landscape.rise(network, frames, labels, drawn, part * view.reach)
                 for part in PARTS}
    with network.mode(hard=False):
        smooth = sharpness.loss(network, frames, labels)
    top = landscape.Eigenvalues([], [])
    if view.eigenvalues:
        top = landscape.hessian_eigenvalues(network, frames, labels, view.eigenvalues, view.layer, view.seed)
    return Landscape(subject.model.path, "hard" if hard else "surrogate", here, surface, rises, smooth, top.values,
                     top.residuals)


def draw(found: Landscapes, title: str, path: Path) -> None:
    """Contours of every network in one colour scale, logarithmic, as a .svg file with `alternative` in it.

    Raises:
        HardspikeError: the file cannot be written.
    """
    finite = [value for one in found.networks for row in one.surface for value in row if math.isfinite(value)]
    low = max(min(finite, default=LEAST), LEAST)
    high = max(max(finite, default=1.0), low * 1.01)
    levels = torch.logspace(math.log10(low), math.log10(high), LEVELS, dtype=torch.float64).tolist()
    levels[0], levels[-1] = low, high
    columns = min(COLUMNS, len(found.networks))
    rows = math.ceil(len(found.networks) / columns)
    with picture(path, (3.6 * columns + 1.2, 3.4 * rows + 0.8), found.alternative) as figure:
        places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        filled = None
        names = labels([one.model for one in found.networks])
        for place, name, one in zip(places, names, found.networks, strict=False):
            values = torch.tensor(one.surface, dtype=torch.float64).clamp(low, high).nan_to_num(high)
            filled = place.contourf(found.grid, found.grid, values.numpy(), levels, norm=LogNorm(low, high))
            place.plot(0, 0, "+", color="white")
            place.set(title=drawable(f"{name}, {one.spikes}"), xlabel="d1 (lengths of filters)",
                      ylabel="d2 (lengths of filters)", aspect="equal")
        for place in places[len(found.networks):]:
            place.remove()
        assert filled is not None
        figure.colorbar(filled, ax=list(places[:len(found.networks)]), label="loss (nats)", ticks=levels[::3],
                        format="%.3g")
        figure.suptitle(drawable(title))
