"""t-SNE of the features before the readout (A2SG fig. 6), with a number beside each picture.

A feature is how often a neuron of the last hidden layer spiked in the steps 1 to t, over t: what the readout, which
takes means over time, has been given by then. The paper does not say what its features are. What t-SNE draws depends on
its perplexity and its first positions, and distances between its clusters say nothing; the silhouette of the features
themselves, by true class and Euclidean distance, does: 1 where classes are compact and apart, 0 where they overlap,
below 0 where recordings lie nearer to another class.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import networkx as nx
import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from eval.mode import Mode, words
from eval.plots import drawable, labels, picture
from eval.subject import Subject, batch, runs
from hardspike import HardspikeError, UsageError, about, progress
from targets.graph import plan
from targets.loihi.layers import LINEAR

LEAST = 4
"""Recordings."""


@dataclass(frozen=True)
class Features:
    """One model up to one step.

    Args:
        model: its file.
        mode: how it ran.
        layer: the last hidden one.
        step: t, from 1.
        silhouette: of the features, by true class, in [-1, 1].
        of_map: of the map's positions.
        silent: share of recordings without a spike there, in [0, 1].
        positions: (N, 2), of the map.
    """

    model: Path
    mode: Mode
    layer: str
    step: int
    silhouette: float
    of_map: float
    silent: float
    positions: np.ndarray


def measure(subjects: list[Subject], perplexity: float = 30.0, seed: int = 0) -> list[Features]:
    """Features of every model with hard spikes after the first step and after the last, mapped and judged.

    Args:
        subjects: models on the same recordings.
        perplexity: of t-SNE, about how many neighbours a recording has.
        seed: of its first positions.

    Raises:
        UsageError: `perplexity` is not positive, or not below the number of recordings.
        HardspikeError: labels are not known or do not fit; there are too few recordings or classes; a model has no
            hidden layer.
    """
    classes = subjects[0].labels.unique().numel()
    count = len(subjects[0].part)
    if count < LEAST or not 2 <= classes < count:
        raise HardspikeError(f"{subjects[0].source}: {count} recordings of {classes} classes; a silhouette takes "
                             f"{LEAST} recordings, two classes and two recordings of one of them: give more --samples")
    if not 0 < perplexity < count:
        raise UsageError(f"perplexity {perplexity:g}: must be positive and below the number of recordings, {count}")
    found = []
    for subject in progress(subjects, "features"):
        mode = next(mode for mode in subject.modes() if not mode.smooth)
        with about(subject.model.path):
            layer = last_hidden(subject)
            spikes = _spikes(subject, mode, layer)
        truth = subject.labels.numpy()
        for step in sorted({1, len(spikes)}):
            features = spikes[:step].mean(0).numpy()
            tsne = TSNE(perplexity=perplexity, init="random", random_state=seed, n_jobs=1)
            positions = tsne.fit_transform(features)
            found.append(Features(subject.model.path, mode, layer, step, float(silhouette_score(features, truth)),
                                  float(silhouette_score(positions, truth)), float((features == 0).all(1).mean()),
                                  positions))
    return found


def last_hidden(subject: Subject) -> str:
    """The last layer of neurons before the readout.

    Raises:
        HardspikeError: there is none.
    """
    stored = subject.model.checkpoint
    if stored:
        hidden = list(stored.network.neurons())
        if stored.network.readout == "spikes":  # the last ones are the output
            hidden.pop()
    else:
        layout = plan(subject.model.graph)
        ways = nx.DiGraph((edge.source, edge.target) for edge in layout.edges)
        loops = {name: group for group in layout.groups for name in group}
        hidden = [name for name in layout.spiking()  # a layer that hears itself is not behind itself
                  if any(isinstance(layout.nodes[later], LINEAR) for later in nx.descendants(ways, name)
                         if later not in loops[name])]
    if not hidden:
        raise HardspikeError("no layer of neurons before the readout, and so no features")
    return hidden[-1]


def _spikes(subject: Subject, mode: Mode, layer: str) -> torch.Tensor:
    """(T, N, neurons) float32."""
    run, size, found = runs(subject.model, mode), batch(mode, len(subject.part)), []
    for start in range(0, len(subject.part), size):
        _, record = run(subject.given(subject.part.at(slice(start, start + size)), mode))
        found.append(record[layer].flatten(2).float().cpu())
    return torch.cat(found, 1)


def alternative(found: list[Features]) -> str:
    """What the figure shows, in words."""
    names = dict(zip((models := list(dict.fromkeys(one.model for one in found))), labels(models), strict=True))
    each = "; ".join(f"{names[one.model]} up to step {one.step}: {one.silhouette:.2f}" for one in found)
    return f"Maps by t-SNE of what the readout gets, coloured by class. Silhouettes of the features: {each}."


def draw(found: list[Features], truth: torch.Tensor, title: str, path: Path) -> None:
    """A column a model and a row a step, as a .svg file with `alternative` in it.

    Args:
        truth: (N,) classes.

    Raises:
        HardspikeError: the file cannot be written.
    """
    series = list(dict.fromkeys((one.model, one.mode) for one in found))
    names = labels([model for model, _ in series])
    steps = sorted({one.step for one in found})
    colors = matplotlib.colormaps["tab10" if truth.max() < 10 else "turbo"]
    with picture(path, (3.2 * len(series) + 0.8, 3.2 * len(steps) + 0.8), alternative(found)) as figure:
        places = figure.subplots(len(steps), len(series), squeeze=False)
        for one in found:
            column = series.index((one.model, one.mode))
            place = places[steps.index(one.step)][column]
            for label in truth.unique().tolist():
                here = one.positions[(truth == label).numpy()]
                place.scatter(here[:, 0], here[:, 1], s=6, color=colors(label / max(truth.max().item(), 9)),
                              label=str(label))
            place.set(title=drawable(f"{names[column]}, {words(one.mode)}\nt = {one.step}, silhouette "
                                     f"{one.silhouette:.2f}"), xticks=[], yticks=[])
        handles, texts = places[0][0].get_legend_handles_labels()
        if len(texts) <= 20:
            figure.legend(handles, texts, loc="outside right center", title="class")
        figure.suptitle(drawable(title))
