"""The plots of the report, each from the plain numbers that `eval.report.plain` gives."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from eval.plots import DASHES, FAINT, INK, OFF, ON, SERIES, drawable, plot
from eval.report.membranes import BINS, EDGE, ZONE
from eval.robustness.measure import severity_key
from trainer.data.samples import IGNORED


def accuracy(models: list[dict]) -> str:
    """Every mode with its interval, modes from top to bottom, models in their colours."""
    modes = list(dict.fromkeys(row["mode"] for model in models for row in model["accuracy"]))

    def draw(axes: Axes) -> None:
        for number, model in enumerate(models):
            rows = model["accuracy"]
            y = [modes.index(row["mode"]) + 0.16 * (2 * number - len(models) + 1) for row in rows]
            x = [row["accuracy %"] for row in rows]
            reach = [[row["accuracy %"] - row["low %"] for row in rows],
                     [row["high %"] - row["accuracy %"] for row in rows]]
            axes.errorbar(x, y, xerr=reach, fmt="o", color=SERIES[number], capsize=3, linewidth=1.4)
        axes.set(yticks=range(len(modes)), yticklabels=list(map(drawable, modes)), ylim=(len(modes) - 0.5, -0.5),
                 xlabel="accuracy (%)")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    label = "; ".join(f"{model['label']}, {row['mode']}: {row['accuracy %']:.1f} %"
                      for model in models for row in model["accuracy"])
    return plot("accuracy", "Accuracy, 95 % intervals", label, draw, (4.4, 0.8 + 0.26 * len(modes)), spread=False)


def training(models: list[dict]) -> list[str]:
    """Accuracy, loss and spikes over the epochs, and the slope where it was annealed."""
    panels = [("Validation accuracy", "accuracy (%)",
               {"surrogate": "surrogate_accuracy", "hard": "hard_accuracy"}, 100),
              ("Loss", "cross-entropy (nats)", {"training": "train_loss", "validation, hard": "hard_loss"}, 1),
              ("Spikes, hard network", "spikes per recording", {"hard": "spikes_per_sample"}, 1)]
    if any(len({row["slope"] for row in model["training"]}) > 1 for model in models):
        panels.append(("Slope of the spike function", "slope (1/membrane unit)", {"slope": "slope"}, 1))
    found = []
    for index, (title, unit, lines, factor) in enumerate(panels):
        def draw(axes: Axes, unit=unit, lines=lines, factor=factor) -> None:
            for number, model in enumerate(models):
                epochs = [row["epoch"] for row in model["training"]]
                for place, (mode, key) in enumerate(lines.items()):
                    values = [factor * row[key] for row in model["training"]]
                    name = mode if len(models) == 1 else f"{model['label']}, {mode}"
                    _line(axes, epochs, values, number if len(models) > 1 else place, place, name)
            axes.set(xlabel="epoch", ylabel=unit)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if axes.get_xlim()[1] - axes.get_xlim()[0] < 1:  # of one epoch
                axes.set_xlim(*(round(sum(axes.get_xlim()) / 2) + side for side in (-1, 1)))
            if len(lines) * len(models) > 1:
                axes.legend(frameon=False, fontsize=8, handlelength=1.8)
        found.append(plot(f"training{index}", title, f"{title} over epochs", draw))
    return found


def corruptions(models: list[dict]) -> list[str]:
    """One panel a corruption, one line a model and mode; the page has their legend."""
    found = []
    severities = models[0]["corruptions"]["severities"]
    units = {name: unit for model in models for name, unit in model["corruptions"]["units"].items()}
    for place, (corruption, unit) in enumerate(units.items()):
        def draw(axes: Axes, corruption=corruption, unit=unit) -> None:
            for number, model in enumerate(models):
                rows = [row for row in model["corruptions"]["rows"] if row["corruption"] == corruption]
                for row in rows:
                    place = model["corruptions"]["modes"].index(row["mode"])
                    _line(axes, severities, [row[severity_key(severity)] for severity in severities],
                          number if len(models) > 1 else place, place, row["mode"])
            axes.set(xlabel=f"severity ({unit})", ylabel="accuracy (%)", ylim=(0, 103))
        title = corruption.replace("_", " ").capitalize()
        found.append(plot(f"corruption{place}", title, f"Accuracy over the severity of {title}", draw))
    return found


def _line(axes: Axes, x: list, y: list, colour: int, dash: int, name: str) -> None:
    """A line; its dots are rings that grow with `dash`, so that none hides another at the same place."""
    axes.plot(x, y, color=SERIES[colour % len(SERIES)], linestyle=DASHES[dash % len(DASHES)],
              marker="o" if len(x) < 12 else None, markersize=3 + 3 * (dash % len(DASHES)),
              fillstyle="none" if dash % len(DASHES) else "full", label=drawable(name))


def membranes(number: int, place: int, layer: dict) -> str:
    """A layer's distances from the threshold, with the smooth function over the same axis."""
    edges = np.linspace(-EDGE, EDGE, BINS + 1)

    def draw(axes: Axes) -> None:
        axes.stairs(100 * np.array(layer["histogram"]), edges, fill=True, color=SERIES[0], alpha=0.55)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set(xlabel="distance (u - θ)/θ", ylabel="membranes (% in a bin)", xlim=(-EDGE, EDGE))
        if "phi" in layer:
            phi, centres = np.array(layer["phi"]), (edges[1:] + edges[:-1]) / 2
            inside = centres[(phi > ZONE[0]) & (phi < ZONE[1])]
            if len(inside):
                half = EDGE / BINS
                axes.axvspan(inside[0] - half, inside[-1] + half, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
            right = axes.twinx()
            right.plot(centres, phi, color=SERIES[1])
            right.set(ylim=(0, 1.04), yticks=(0, 0.5, 1))
            right.set_ylabel("φ (spikes)", color=SERIES[1])
            right.spines["right"].set_visible(True)

    return plot(f"membranes{number}-{place}", layer["layer"],
                f"Distance of membranes from the threshold in layer {layer['layer']}", draw)


def events(number: int, sample: dict) -> str:
    """ON and OFF events of a recording, summed over time."""
    off, on = (np.array(sample["events"][key], dtype=float) for key in ("off", "on"))
    total = np.maximum(off + on, 1)[..., None]
    colour = (off[..., None] * np.array(to_rgb(OFF)) + on[..., None] * np.array(to_rgb(ON))) / total
    strength = np.sqrt((off + on) / max(1, (off + on).max()))[..., None]  # faint pixels stay visible

    def draw(axes: Axes) -> None:
        axes.imshow(np.concatenate([colour, strength], -1), interpolation="none", aspect="equal")
        axes.set(xlabel="x (pixels)", ylabel="y (pixels)")
        for side in axes.spines.values():
            side.set_visible(True)

    return plot(f"events{number}", f"Events, all {sample['steps']} steps",
                f"{off.sum():.0f} OFF and {on.sum():.0f} ON events", draw, (2.6, 3.0), spread=False)


def segments(number: int, place: int, picture: dict, classes: int) -> list[str]:
    """What goes in, the truth and the prediction of a recording."""
    frame = np.array(picture["frame"])
    shown = frame.transpose(1, 2, 0) if len(frame) == 3 else frame.mean(0)  # three channels are colours
    name = picture["id"]

    def draw(axes: Axes) -> None:
        axes.imshow(shown, cmap="gray", interpolation="none", vmin=0, vmax=1)
        axes.set(xlabel="x (pixels)", ylabel="y (pixels)")

    panels = [plot(f"segment{number}-{place}-input", name, f"Recording {name}: what goes in", draw, (2.6, 2.9),
                   spread=False)]
    return panels + [_classes(f"segment{number}-{place}-{what}", what, f"Recording {name}, {what}",
                              np.array(picture[what]), classes) for what in ("truth", "prediction")]


def _classes(name: str, title: str, label: str, mask: np.ndarray, classes: int) -> str:
    """Pixels in the colours of their classes, with a number on each class."""
    present = [each for each in np.unique(mask) if each != IGNORED]
    colours = colormaps["tab20"](np.arange(classes) % 20)
    painted = np.where((mask == IGNORED)[..., None], 1.0, colours[np.where(mask == IGNORED, 0, mask)])

    def draw(axes: Axes) -> None:
        axes.imshow(painted, interpolation="none")
        for each in present:
            rows, columns = np.nonzero(mask == each)
            middle = len(rows) // 2  # a pixel of the class, where its mean may be none
            axes.text(columns[middle], rows[middle], str(each), ha="center", va="center", fontsize=8, color="black",
                      bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})
        axes.set(xlabel="x (pixels)", ylabel="y (pixels)")

    counted = max(1, int((mask != IGNORED).sum()))
    shares = ", ".join(f"class {each} {100 * (mask == each).sum() / counted:.1f} %" for each in present)
    return plot(name, title, f"{label}: {shares or 'no class'} of the pixels", draw, (2.6, 2.9), spread=False)


def raster(number: int, place: int, layer: dict, steps: int) -> str:
    """Spikes of a layer: neurons over time steps."""
    picture = np.zeros((layer["shown"], steps, 4))
    for step, row in layer["spikes"]:
        picture[row, step] = (*to_rgb(ON), 1)
    every = layer["neurons"] / layer["shown"]
    unit = "neuron" if every == 1 else f"neuron (every {every:.3g}th)"

    def draw(axes: Axes) -> None:
        axes.imshow(picture, interpolation="none", aspect="auto", extent=(0.5, steps + 0.5, layer["neurons"], 0))
        axes.set(xlabel="time (steps)", ylabel=unit)

    return plot(f"raster{number}-{place}", layer["layer"], f"Raster of {layer['layer']}: {layer['total']} spikes", draw,
                (2.6, 3.0), spread=False)


def scores(number: int, sample: dict) -> str:
    """The readout's sums, class by class."""
    def draw(axes: Axes) -> None:
        classes = range(len(sample["scores"]))
        colours = [SERIES[0] if index == sample["prediction"] else FAINT for index in classes]
        axes.barh(classes, sample["scores"], color=colours)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set(xlabel="score (sum over time)", ylabel="class", ylim=(len(classes) - 0.5, -0.5))
        if len(classes) <= 12:
            axes.set_yticks(classes)

    return plot(f"scores{number}", "Readout", f"Scores; class {sample['prediction']} wins", draw, (2.6, 3.0),
                spread=False)


def bars(name: str, title: str, unit: str, rows: list[tuple[str, float]], number: int = 1,
         most: float | None = None) -> str:
    """Horizontal bars of (label, value).

    Args:
        number: of the model, from 1: it has its colour in every picture.
        most: the largest value of all pictures that are looked at together.
    """
    def draw(axes: Axes) -> None:
        axes.barh(range(len(rows)), [value for _, value in rows], color=SERIES[number - 1], height=0.6)
        axes.set(yticks=range(len(rows)), yticklabels=[drawable(label) for label, _ in rows], xlabel=unit,
                 ylim=(len(rows) - 0.4, -0.6))
        if most:
            axes.set_xlim(0, 1.05 * most)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    label = "; ".join(f"{label} {value:.4g}" for label, value in rows)
    return plot(name, title, f"{unit}: {label}", draw, (3.6, 0.9 + 0.26 * len(rows)), spread=False)
