"""`python -m eval gradients`: what A2SG's figures 3-5 and 7 and its tables A1 and A2 show, of one run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from hardspike import HardspikeError, UsageError, atomic_path, print_table
from trainer.analysis import diagnostics
from trainer.analysis.variation import window_variation
from trainer.checkpoint import Checkpoint, load
from trainer.data import load as load_data
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


def gradients(run: Path, out: Path | None = None, samples: int = 32, path: Path | None = None,
              json: Path | None = None) -> list[dict]:
    """Gradients, membranes, spikes and weights of each layer of a run: drawn, and the last values as a table.

    SGV, TGC and widths over epochs are there where the method has windows (a2sg), other quantities over epochs where
    the run was told to `--diagnose`; what is missing is named. The rest is computed from the checkpoint, in evaluation
    mode, on recordings of its training part. SGV is Var(d)/Mean(|d|) of the local gradient d at the last step (A2SG eq.
    8), TGC the cosine of d[t] and d[t+1] (eq. 9, mean over t), fisher the largest eigenvalue of a layer's Fisher matrix
    (eq. A8), RMD the distance (theta - mu)/sigma of the membrane from the threshold (eq. A10) and, as in table A2, from
    the weights alone. CV asy/tri compares the variation of both windows, h = 0.5, at the layer's mean width under a
    Gaussian membrane: theorem 2 has it below 1 where L*kappa > sigma^2, and is wrong (trainer.analysis.variation).

    Args:
        run: folder of a run, of which last.pt is taken, or a checkpoint
        out: .svg file for the figure; gradients.svg in the run's folder by default
        samples: recordings of the training part
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table

    Returns:
        one row a layer; None where a quantity is not defined.
    """
    if samples < 1:
        raise UsageError(f"samples {samples}: must be 1 or more")
    out = out or (run if run.is_dir() else run.parent) / "gradients.svg"
    if out.suffix != ".svg":
        raise UsageError(f"--out {out}: the figure is written as .svg; name it so")
    stored = load(run / "last.pt" if run.is_dir() else run)
    config = replace(stored.config.data, path=path or stored.config.data.path)
    data = load_data(config)
    if data.shape != stored.shape:
        raise HardspikeError(f"{run}: takes frames {stored.shape}, {config.name} gives {data.shape}")
    index = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:samples]
    frames, labels = data.to_input(data.train.at(index)), data.train.labels[index]

    logged = next((row["layers"] for row in stored.history if row["epoch"] == stored.epoch and "layers" in row), {})
    options = stored.config.a2sg
    windows = {name: Windows(options.window, torch.tensor(values["widths"], dtype=torch.float64), options.height)
               for name, values in logged.items() if "widths" in values}
    layers = diagnostics.diagnose(stored.network, frames, windows, stored.config.seed)
    rows = [_row(stored, name, logged.get(name, {}) | values) for name, values in layers.items()]
    panels = _at_checkpoint(layers) + _over_epochs(stored, layers)
    if windows:
        grid = torch.linspace(options.width_min / 2, 1.5 * options.width_max, 59, dtype=torch.float64)
        panels = _curves(diagnostics.width_curves(stored.network, frames, labels, windows, grid), grid) + panels

    title = f"{run}: {stored.config.method} on {config.name}, epoch {stored.epoch}; {len(labels)} recordings"
    print_table(rows, title, json, {"figure": str(out)})
    if not windows:
        print(f"SGV, TGC and widths left out: {stored.config.method} has no windows; a2sg has")
    elif data.steps == 1:
        print("TGC and the width at T-1 left out: a single step has no neighbour in time")
    if not any("fisher" in values for row in stored.history for values in row.get("layers", {}).values()):
        print("membranes over epochs left out: the run logged none; `python -m trainer fit --diagnose 1` does")
    _draw([panel for panel in panels if panel.lines], list(layers), title, out)
    print(out)
    return rows


def _row(stored: Checkpoint, name: str, values: dict) -> dict:
    sigma, widths = values.get("membrane_deviation"), values.get("widths")
    ratio = silent = None
    if "spikes" in values:
        silent = 100 * values["spikes"][0]
    if widths and sigma:  # a layer without any input has no density to compare under
        theta = stored.network.layers[name].threshold.mean().item()
        asy, tri = (window_variation(window, sum(widths) / len(widths), values["membrane_mean"], sigma, theta)
                    for window in ("asy", "tri"))
        ratio = asy / tri
    row = {
        "layer": name, "SGV": values.get("sgv"), "TGC": _mean(values["tgc"]) if "tgc" in values else None,
        "width T": widths and widths[-1], "width T-1": widths[-2] if widths and len(widths) > 1 else None,
        "fisher": values["fisher"], "mu": values.get("membrane_mean"), "sigma^2": sigma and sigma**2,
        "L*kappa": values.get("l_kappa"), "CV asy/tri": ratio, "RMD": values.get("rmd"),
        "RMD of weights": values.get("rmd_weights"), "silent %": silent,
        "mu_w": values["weight_mean"], "sigma_w": values["weight_deviation"],
    }
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


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
        found = {}
        for name, values in layers.items():
            points = [(row["epoch"], pick(row["layers"][name][key])) for row in stored.history
                      if key in row.get("layers", {}).get(name, {})]
            if not points and key in values:
                points = [(stored.epoch, pick(values[key]))]
            if not all(math.isnan(value) for _, value in points):
                found[name] = tuple(map(list, zip(*points, strict=True)))
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


def _draw(panels: list[Panel], layers: list[str], title: str, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(4.4 * COLUMNS, 3.0 * rows + 0.8), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    shades = matplotlib.colormaps["viridis"](torch.linspace(0, 0.9, len(layers)).numpy())
    colors = dict(zip(layers, shades, strict=True))
    handles = {}
    for place, panel in zip(places, panels, strict=False):
        for name, (x, y) in panel.lines.items():
            if panel.x:
                handles[name], = place.plot(x, y, color=colors[name], label=name,
                                            marker="." if len(x) < 40 else None)
            else:
                place.bar(name, y, color=colors[name])
                place.tick_params("x", rotation=90 if len(layers) > 6 else 0)
        for name, (x, y) in panel.dashed.items():
            place.plot(x, y, color=colors[name], linestyle="--", marker="x" if len(x) < 40 else None)
        for name, (x, y) in panel.points.items():
            place.plot(x, y, "o", color=colors[name])
        place.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        if panel.log:
            place.set_yscale("log", nonpositive="mask")
        if panel.x == "epoch":
            place.set_xlim(left=0.5)
        if panel.x:
            place.locator_params("x", nbins=6, integer=panel.x in ("epoch", "spikes per sample"))
        place.grid(alpha=0.3)
    for place in places[len(panels):]:
        place.remove()
    figure.legend(handles=[handles[name] for name in layers if name in handles], loc="outside lower center",
                  ncols=min(len(layers), 8))
    figure.suptitle(title)
    with matplotlib.rc_context({"svg.hashsalt": "hardspike", "svg.fonttype": "none"}), atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
