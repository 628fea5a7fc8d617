"""What A2SG's figures 3-5, 7 and A1 and its tables A1 and A2 show, of one run or of several side by side.

SGV is Var(d)/Mean(|d|) of the local gradient d at the last step (A2SG eq. 8), TGC the cosine of d[t] and d[t+1] (eq. 9,
mean over t), fisher the largest eigenvalue of a layer's Fisher matrix (eq. A8), RMD the distance (theta - mu)/sigma of
the membrane from the threshold (eq. A10) and, as in table A2, from the weights alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from eval.plots import drawable, logarithmic, picture
from export.model import Model
from export.recordings import Recordings, check_samples
from hardspike import HardspikeError, UsageError, shown
from targets.inputs import check_labels
from trainer.analysis import diagnostics
from trainer.analysis.variation import window_variation
from trainer.checkpoint import Checkpoint
from trainer.neurons.windows import Windows

COLUMNS = 3

Series = dict[str, tuple[list[float], list[float]]]  # layer -> x and y


@dataclass
class Panel:
    """One plot: a line a layer, or a bar a layer where `x` is empty."""

    title: str
    x: str
    y: str
    lines: Series
    dashed: Series = field(default_factory=dict)
    points: Series = field(default_factory=dict)
    log: bool = False


@dataclass(frozen=True)
class LayerGradients:
    """One layer; None where a quantity is not defined.

    Args:
        layer: its name.
        sgv, tgc: of the last epoch.
        width_last, width_before: of the window at T and at T-1.
        fisher: largest eigenvalue.
        mu, variance: of the membrane.
        l_kappa: L*kappa of theorem 2.
        cv_ratio: variation of the asymmetric window over that of the triangular one, h = 0.5, at the layer's mean width
            under a Gaussian membrane (`trainer.analysis.variation`).
        rmd, rmd_weights: relative membrane distance, from membranes and from weights.
        silent: share of neurons and samples without a spike, in [0, 1].
        weight_mean, weight_deviation: of the weights.
    """

    layer: str
    sgv: float | None
    tgc: float | None
    width_last: float | None
    width_before: float | None
    fisher: float | None
    mu: float | None
    variance: float | None
    l_kappa: float | None
    cv_ratio: float | None
    rmd: float | None
    rmd_weights: float | None
    silent: float | None
    weight_mean: float
    weight_deviation: float


@dataclass(frozen=True)
class Gradients:
    """A run.

    Args:
        layers: one a layer.
        panels: of the figure.
        method: of the training.
        source: name of the data.
        epoch: of the checkpoint.
        samples, steps: recordings that it was looked at on, and T.
        windows: whether the method has any.
        logged: whether membranes were logged over epochs.
    """

    layers: list[LayerGradients]
    panels: list[Panel]
    method: str
    source: str
    epoch: int
    samples: int
    steps: int
    windows: bool
    logged: bool


def measure(run: Path, samples: int, recordings: Recordings) -> Gradients:
    """Gradients, membranes, spikes and weights of each layer of a run.

    SGV, TGC and widths over epochs are there where the method has windows (a2sg), other quantities over epochs where
    the run was told to diagnose. The rest is computed from the checkpoint, in evaluation mode.

    Args:
        run: folder of a run, of which last.pt is taken, or a checkpoint.
        samples: recordings of the training part, drawn with a fixed seed; 0 for all.
        recordings: where they come from.

    Raises:
        UsageError: a graph, which holds no surrogate, or a network in integers; `samples` below 0.
        HardspikeError: the checkpoint or the recordings cannot be read, or do not fit each other.
    """
    check_samples(samples)
    model = Model.open(run / "last.pt" if (run / "last.pt").is_file() else run)
    stored = model.checkpoint
    if stored is None:
        raise UsageError(f"{run}: a graph holds no surrogate, and so no gradients; give the folder of a run or a "
                         "checkpoint (.pt)")
    if model.integers:
        raise UsageError(f"{run}: was trained in integers; gradients are looked at in floats: give the run that it "
                         "began from")
    recordings.announce(model)
    data = recordings.data(model)
    source = str(recordings.input) if recordings.input else recordings.config(model).name
    if not data.train.labelled:
        raise HardspikeError(f"{source}: says no classes, of which gradients follow; add `labels` (B,) to the file")
    check_labels(data.train.labels, stored.classes, f"{source}, {run}")
    index = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:samples or None]
    frames, labels = data.to_input(data.train.at(index)), data.train.labels[index]

    logged: dict[str, dict] = next((row["layers"] for row in stored.history
                                    if row["epoch"] == stored.epoch and "layers" in row), {})
    options = stored.config.a2sg
    windows = {name: Windows(options.window, _widths(values["widths"], data.steps, f"{run}: {name}"), options.height,
                             whole=options.metric == "membrane")
               for name, values in logged.items() if "widths" in values and name in stored.network.neurons()}
    layers = diagnostics.diagnose(stored.network, frames, windows, stored.config.seed)
    panels = _at_checkpoint(layers) + _over_epochs(stored, layers)
    if windows:
        grid = torch.linspace(options.width_min / 2, 1.5 * options.width_max, 59, dtype=torch.float64)
        panels = [_shapes(windows), *_curves(diagnostics.width_curves(stored.network, frames, labels, windows, grid),
                                             grid), *panels]
    return Gradients([_row(stored, name, logged.get(name, {}) | values) for name, values in layers.items()],
                     [panel for panel in panels if panel.lines], stored.config.method, source, stored.epoch,
                     len(labels), data.steps, bool(windows),
                     any("fisher" in values for row in stored.history for values in row.get("layers", {}).values()))


def _widths(logged: list[float], steps: int, where: str) -> torch.Tensor:
    """(T,) half-widths of a layer's windows."""
    if len(logged) != steps or not all(0 < width < math.inf for width in logged):
        raise HardspikeError(f"{where}: was trained with windows of widths {shown(logged)}, one a step, where these "
                             f"recordings have {steps} steps; give recordings of as many (--steps)")
    return torch.tensor(logged, dtype=torch.float64)


def _row(stored: Checkpoint, name: str, values: dict) -> LayerGradients:
    sigma, widths = values.get("membrane_deviation"), values.get("widths")
    ratio = None
    if widths and sigma:  # a layer without any input has no density to compare under
        theta = stored.network.neurons()[name].threshold.mean().item()
        asy, tri = (window_variation(window, sum(widths) / len(widths), values["membrane_mean"], sigma, theta)
                    for window in ("asy", "tri"))
        ratio = asy / tri
    found = LayerGradients(
        name, values.get("sgv"), _mean(values["tgc"]) if "tgc" in values else None, widths and widths[-1],
        widths[-2] if widths and len(widths) > 1 else None, values["fisher"], values.get("membrane_mean"),
        sigma and sigma**2, values.get("l_kappa"), ratio, values.get("rmd"), values.get("rmd_weights"),
        values["spikes"][0] if "spikes" in values else None, values["weight_mean"], values["weight_deviation"])
    nothing: dict[str, Any] = {key: None for key, value in vars(found).items()
                               if isinstance(value, float) and math.isnan(value)}
    return replace(found, **nothing)


def _mean(values: list[float]) -> float:
    """Mean of what is no NaN (an empty window's metric)."""
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def _curves(curves: dict[str, dict], grid: torch.Tensor) -> list[Panel]:
    """Figure 3, with the run's own widths."""
    def nearest(name: str, values: list[float], t: int) -> tuple[list[float], list[float]]:
        width = curves[name]["widths"][t]
        return [width], [values[(grid - width).abs().argmin()]]

    sgv = {name: curve["sgv"] for name, curve in curves.items()}
    tgc = {name: curve["tgc"][-1] for name, curve in curves.items() if curve["tgc"]}
    return [
        Panel(title, "width b (membrane)", y, {name: (grid.tolist(), values) for name, values in found.items()},
              points={name: nearest(name, values, t) for name, values in found.items()}, log=t == -1)
        for title, y, found, t in (("SGV over b, t = T; dots: in use (fig. 3a, c)", "SGV (gradient)", sgv, -1),
                                   ("TGC over b, t = T-1; dots: in use (fig. 3b, d)", "TGC (cosine)", tgc, -2))]


def _shapes(windows: dict[str, Windows]) -> Panel:
    """Figure A1: each layer's window at the last step."""
    widest = max(window.widths[-1].item() for window in windows.values())
    z = torch.linspace(-1.2 * widest, 1.2 * widest, 241, dtype=torch.float64)
    return Panel("window at t = T (fig. A1)", "u - theta (membrane)", "derivative that stands in",
                 {name: (z.tolist(), window.derivative(-1, z).tolist()) for name, window in windows.items()})


def _at_checkpoint(layers: dict[str, dict]) -> list[Panel]:
    """Figures 5c and 7, table A1."""
    def density(values: dict) -> tuple[list[float], list[float]]:
        (low, high), counts = values["weight_range"], values["weight_counts"]
        bin_width = (high - low) / len(counts) or 1.0
        return ([low + (index + 0.5) * bin_width for index in range(len(counts))],
                [count / sum(counts) / bin_width for count in counts])

    spikes = {name: values["spikes"] for name, values in layers.items() if "spikes" in values}
    return [
        Panel("Fisher matrix (fig. 5c)", "", "largest eigenvalue",
              {name: ([], [values["fisher"]]) for name, values in layers.items()}),
        Panel("spikes of a neuron (table A1)", "spikes per sample", "neurons and samples (%)",
              {name: (list(range(len(shares))), [100 * share or math.nan for share in shares])
               for name, shares in spikes.items()}, log=True),
        Panel("weights (fig. 7)", "weight", "density", {name: density(values) for name, values in layers.items()}),
    ]


def _over_epochs(stored: Checkpoint, layers: dict[str, dict]) -> list[Panel]:
    """Figures 4, 5a, 5b, 5d, 5e and table A2's RMD; of membranes the checkpoint alone where none were logged."""
    def series(key: str, pick: Callable = float) -> Series:
        found: Series = {}
        for name, values in layers.items():
            points = [(row["epoch"], pick(row["layers"][name][key])) for row in stored.history
                      if key in row.get("layers", {}).get(name, {})]
            if not points and key in values:
                points = [(stored.epoch, pick(values[key]))]
            if not all(math.isnan(value) for _, value in points):
                found[name] = [float(x) for x, _ in points], [y for _, y in points]
        return found

    def square(sigma: float) -> float:
        return sigma**2

    variance, l_kappa = series("membrane_deviation", square), series("l_kappa")
    fourth = (("L*kappa; crosses: sigma^2 (fig. 4)", l_kappa, variance) if l_kappa else
              ("sigma^2 (fig. 4)", variance, {}))
    return [
        Panel(fourth[0], "epoch", "membrane^2", *fourth[1:]),
        Panel("SGV (fig. 5a)", "epoch", "SGV (gradient)", series("sgv"), log=True),
        Panel("TGC, mean over t (fig. 5b)", "epoch", "TGC (cosine)", series("tgc", _mean)),
        Panel("width at t = T (fig. 5d)", "epoch", "b (membrane)", series("widths", lambda widths: widths[-1])),
        Panel("width at t = T-1 (fig. 5e)", "epoch", "b (membrane)",
              series("widths", lambda widths: widths[-2] if len(widths) > 1 else math.nan)),
        Panel("relative membrane distance (eq. A10)", "epoch", "RMD", series("rmd")),
    ]


def draw(found: dict[str, Gradients], title: str, path: Path) -> None:
    """The figure as a .svg file: of one run all panels, of several a column a run and a row a panel, on one scale.

    Args:
        found: what the run is called -> the run.

    Raises:
        HardspikeError: the file cannot be written.
    """
    import matplotlib

    layers = list(dict.fromkeys(row.layer for one in found.values() for row in one.layers))
    shades = matplotlib.colormaps["viridis"](torch.linspace(0, 0.9, len(layers)).numpy())
    colors = dict(zip(layers, shades, strict=True))
    if len(found) == 1:
        panels: list[Panel | None] = [*next(iter(found.values())).panels]
        columns, heads = COLUMNS, [""] * len(panels)
    else:
        titles = list(dict.fromkeys(panel.title for one in found.values() for panel in one.panels))
        panels = [next((panel for panel in one.panels if panel.title == wanted), None)
                  for wanted in titles for one in found.values()]
        columns, heads = len(found), [f"{name}\n" for name in found] * len(titles)
    rows = math.ceil(len(panels) / columns)
    label = f"{title}. Panels: " + "; ".join(dict.fromkeys(panel.title for panel in panels if panel))
    handles: dict[str, Any] = {}
    with picture(path, (4.4 * columns, 3.0 * rows + 0.8), label) as figure:
        places = figure.subplots(rows, columns, squeeze=False, sharey="row" if len(found) > 1 else "none").ravel()
        for place, panel, head in zip(places, panels, heads, strict=False):
            if panel:
                handles |= _fill(place, panel, colors, drawable(head))
            else:
                place.set_axis_off()
        for place in places[len(panels):]:
            place.remove()
        legend: Any = {"loc": "outside lower center", "ncols": min(len(layers), 8)}
        figure.legend(handles=[handles[name] for name in layers if name in handles], **legend)
        figure.suptitle(drawable(title))


def _fill(place, panel: Panel, colors: dict, head: str) -> dict:
    """One panel, `head` above its title; gives the handles of its lines for the legend."""
    handles = {}
    for position, (name, (x, y)) in enumerate(panel.lines.items()):
        if panel.x:
            handles[name], = place.plot(x, y, color=colors[name], label=drawable(name),
                                        marker="." if len(x) < 40 else None)
        else:
            place.bar(position, y, color=colors[name])
    if not panel.x:
        place.set_xticks(range(len(panel.lines)), [drawable(name) for name in panel.lines],
                         rotation=90 if len(panel.lines) > 6 else 0)
    for name, (x, y) in panel.dashed.items():
        place.plot(x, y, color=colors[name], linestyle="--", marker="x" if len(x) < 40 else None)
    for name, (x, y) in panel.points.items():
        place.plot(x, y, "o", color=colors[name])
    place.set(title=head + panel.title, xlabel=panel.x, ylabel=panel.y)
    if panel.log:
        place.set_yscale("log", nonpositive="mask")
        logarithmic(place.yaxis)
    if panel.x == "epoch":
        place.set_xlim(left=0.5)
    if panel.x:
        place.locator_params("x", nbins=6, integer=panel.x in ("epoch", "spikes per sample"))
    place.grid(alpha=0.3)
    return handles
