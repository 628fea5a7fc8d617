"""`python -m eval robustness`: accuracy on corrupted input and with faults, the same for every model and mode."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nir
from scipy.integrate import trapezoid
from torch import Tensor

from eval.cache import cached, fingerprint
from eval.models import CHUNK, Mode, modes, open_on_same_data
from eval.robustness.corruptions import CORRUPTIONS, check_severity, corrupt
from eval.robustness.faults import FAULTS, inject
from hardspike import HardspikeError, UsageError, atomic_path, nearest, print_table, progress
from targets.commands import load_target
from trainer.checkpoint import Checkpoint
from trainer.data import Data, Split
from trainer.data.spikes_file import SPLITS

KNOWN = {**CORRUPTIONS, **FAULTS}
Run = tuple[Path, Checkpoint | nir.NIRGraph, Mode]
"""A model's file, what is in it, and one of its modes."""
NETWORK_BATCH = 128
"""Recordings at a time, as `trainer.evaluate` takes them: float32 rounds alike, so that severity 0 is `eval accuracy`.
"""


@dataclass(frozen=True)
class Curves:
    """Accuracy over severity.

    Args:
        rows: what `robustness` returns.
        left_out: what could not be run: corruption, model, mode and the reason, a dict each.
        inputs: corruption -> severity -> SHA-256 of the recordings.
        severities: ascending.
        data: name of the source.
        samples: recordings of the split.
        steps: T.
    """

    rows: list[dict]
    left_out: list[dict[str, str]]
    inputs: dict[str, dict[str, str]]
    severities: list[float]
    data: str
    samples: int
    steps: int


def robustness(*models: Path, corruptions: str = "all", severities: str = "0,0.05,0.1,0.2,0.3,0.5",
               split: str = "test", targets: str = "reference", samples: int = 0, seed: int = 0,
               name: str | None = None, path: Path | None = None, json: Path | None = None, csv: Path | None = None,
               plot: Path | None = None) -> list[dict]:
    """Accuracy over the severity of corruptions and faults, with its mean and the area under the curve.

    All models and modes get the same corrupted recordings, whose SHA-256 is printed, and the same faults. Corruptions
    of the input: event_drop, time_jitter, bin_drop, background_noise, dead_pixels, stuck_pixels, hot_pixels; faults of
    the network: spike_deletion, stuck_neurons, weight_noise. Severity 0 is the clean accuracy. What was computed
    before is read from the cache.

    Args:
        models: checkpoints (.pt), which run with surrogate and with hard spikes, and graphs (.nir)
        corruptions: names joined by commas, or all
        severities: numbers in [0, 1] joined by commas; corruptions.py and faults.py say what each counts
        split: train, validation or test
        targets: where float graphs run, joined by commas; a quantised graph runs in its chip's integers
        samples: recordings, evenly spread over the split; 0 for all
        seed: of the corruptions and faults
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table and the hashes
        csv: file for the table
        plot: .svg file for the curves

    Returns:
        one row a corruption, model and mode: accuracy in % at each severity (keys as in `severities`), their mean, and
        the area under the curve over the range of severities, in [0, 1]; None for a single severity.
    """
    if plot and plot.suffix != ".svg":
        raise UsageError(f"{plot}: is written as .svg; name it {plot.with_suffix('.svg').name}")
    found = curves(*models, corruptions=corruptions, severities=severities, split=split, targets=targets,
                   samples=samples, seed=seed, name=name, path=path)
    left_out = [_refusal(one) for one in found.left_out]
    title = (f"{found.data}, {split}: accuracy % over severity; {found.samples} recordings, T={found.steps}, seed "
             f"{seed}; mean and area over the severities")
    shown = [{"corruption": corruption, **{severity: value[:8] for severity, value in hashes.items()}}
             for corruption, hashes in found.inputs.items() if corruption in CORRUPTIONS]
    print_table(found.rows, title, json, {"data": found.data, "split": split, "samples": found.samples, "seed": seed,
                                          "inputs": found.inputs, "left_out": left_out}, csv)
    if shown:
        print_table(shown, "inputs, the same for every model and mode: SHA-256 (--json has it in full)")
    for line in left_out:
        print(line)
    if plot:
        _plot(found, plot, f"{found.data}, {split}, {found.samples} recordings")
    return found.rows


def curves(*models: Path, corruptions: str = "all", severities: str = "0,0.05,0.1,0.2,0.3,0.5", split: str = "test",
           targets: str = "reference", samples: int = 0, seed: int = 0, name: str | None = None,
           path: Path | None = None) -> Curves:
    """What `robustness` prints; arguments as there.

    Raises:
        UsageError: an unknown name, or a number out of its range.
        HardspikeError: a model or the recordings cannot be read, or nothing of what was asked for can be run.
    """
    names, grid, places = _names(corruptions), _grid(severities), _targets(targets)
    if split not in SPLITS:
        raise UsageError(f"split '{split}' is unknown{nearest(split, SPLITS)} (known: {', '.join(SPLITS)})")
    if samples < 0:
        raise UsageError(f"samples {samples}: must be 0 (all) or more")
    opened, config, data = open_on_same_data(models, name, path)
    part = getattr(data, split).spread(samples)
    runs = [(model, content, mode) for model, content in zip(models, opened, strict=True)
            for mode in modes(model, content, places)]
    for model, content, _ in runs:
        if isinstance(content, Checkpoint) and content.shape != data.shape:
            raise HardspikeError(f"{model}: takes frames {content.shape}, {config.name} gives {data.shape}")

    possible, left_out = _possible(names, runs)
    if not possible:
        raise HardspikeError("; ".join(map(_refusal, left_out)))
    right, hashes = _right_answers(possible, names, grid, data, part, seed)
    rows = [_row(mode, corruption, grid, [100 * right[corruption, model, mode.mode, severity] / len(part)
                                          for severity in grid]) for corruption, model, _, mode in possible]
    inputs = {corruption: {severity_key(severity): hashes[corruption, severity] for severity in grid}
              for corruption in names}
    return Curves(rows, left_out, inputs, grid, config.name, len(part), data.steps)


# ------------------------------------------------------------------------------------------- arguments


def _names(corruptions: str) -> list[str]:
    if corruptions == "all":
        return list(KNOWN)
    names = _words(corruptions)
    for name in names:
        if name not in KNOWN:
            raise UsageError(f"corruption '{name}' is unknown{nearest(name, KNOWN)} (known: {', '.join(KNOWN)})")
    if not names:
        raise UsageError(f"corruptions are missing; known: {', '.join(KNOWN)}, or all")
    return names


def _grid(severities: str) -> list[float]:
    try:
        grid = sorted({float(word) for word in _words(severities)})
    except ValueError as error:
        raise UsageError(f"severities '{severities}': numbers joined by commas, such as 0,0.1,0.3") from error
    for severity in grid:
        check_severity(severity)
    if not grid:
        raise UsageError("severities are missing; give numbers joined by commas, such as 0,0.1,0.3")
    return grid


def _targets(targets: str) -> tuple[str, ...]:
    names = _words(targets)
    for name in names:
        load_target(name)
    if not names or "lava" in names:
        raise UsageError(f"targets '{targets}': name at least one that runs graphs; lava runs .net files, and loihi2 "
                         "computes what it does")
    return tuple(names)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def severity_key(severity: float) -> str:
    """What a severity is called in a row."""
    return f"{severity:.10g}"


# ---------------------------------------------------------------------------------------------- curves


def _possible(names: list[str], runs: list[Run]) -> tuple[list[tuple[str, *Run]], list[dict[str, str]]]:
    """What can be run, and each fault that a model or a target cannot have."""
    possible, left_out = [], []
    for name in names:
        for model, content, mode in runs:
            try:
                if name in FAULTS:
                    inject(content, mode.mode, name, 0.0)
                possible.append((name, model, content, mode))
            except HardspikeError as error:
                left_out.append({"corruption": name, "model": str(model), "mode": mode.mode, "reason": str(error)})
    return possible, left_out


def _refusal(one: dict[str, str]) -> str:
    return f"{one['corruption']} of {one['model']} ({one['mode']}) is left out: {one['reason']}"


def _right_answers(possible: list[tuple[str, *Run]], names: list[str], grid: list[float], data: Data, part: Split,
                   seed: int) -> tuple[dict[tuple, int], dict[tuple, str]]:
    """Right answers by (corruption, model, mode, severity), hashes of the inputs by (corruption, severity)."""
    clean, recordings = fingerprint(part.frames), fingerprint(part.ids, part.labels, data.scale)
    files = {model: fingerprint(model) for _, model, _, _ in possible}

    @functools.lru_cache(maxsize=1)  # made where a result is not known yet, and one at a time: a split may be large
    def inputs(name: str, severity: float) -> Tensor:
        if name in FAULTS:
            return part.frames
        return corrupt(part.frames, part.ids, name, severity, int(data.scale), seed)

    def input_hash(name: str, severity: float) -> str:
        if name in FAULTS:
            return clean
        key = {"command": "corrupt", "frames": clean, "recordings": recordings, "draws": [seed, name, severity]}
        return cached(key, lambda: fingerprint(inputs(name, severity)))

    right, hashes = {}, {}
    with progress([], "robustness", total=len(possible) * len(grid)) as bar:
        for name in names:
            for severity in grid:
                hashes[name, severity] = input_hash(name, severity)
                for _, model, content, mode in (run for run in possible if run[0] == name):
                    fault = [seed, name, severity] if name in FAULTS else None
                    key = {"command": "robustness", "model": files[model], "mode": mode.mode, "fault": fault,
                           "inputs": hashes[name, severity], "recordings": recordings}
                    right[name, model, mode.mode, severity] = cached(key, functools.partial(
                        _count_right, content, mode, fault, functools.partial(inputs, name, severity), part, data))
                    bar.update()
    return right, hashes


def _count_right(content: Checkpoint | nir.NIRGraph, mode: Mode, fault: list | None, inputs: Callable[[], Tensor],
                 part: Split, data: Data) -> int:
    """Right answers on `inputs()` (N, T, ...), with a fault [seed, name, severity] or none."""
    frames, batch = inputs(), NETWORK_BATCH if isinstance(content, Checkpoint) else CHUNK
    faulty = inject(content, mode.mode, fault[1], fault[2], fault[0]) if fault else None
    right = 0
    for start in range(0, len(part), batch):
        some = slice(start, start + batch)
        x = data.to_input(frames[some])
        logits = faulty(x, part.ids[some]) if faulty else mode.run(x)[0]
        right += int((logits.argmax(1) == part.labels[some]).sum())
    return right


def _row(mode: Mode, corruption: str, grid: list[float], curve: list[float]) -> dict:
    area = float(trapezoid(curve, grid)) / (grid[-1] - grid[0]) / 100 if len(grid) > 1 else None
    return {"corruption": corruption, "model": mode.model, "mode": mode.mode,
            **{severity_key(severity): value for severity, value in zip(grid, curve, strict=True)},
            "mean": sum(curve) / len(curve), "area": area}


def _plot(found: Curves, path: Path, title: str) -> None:
    """One panel a corruption, one line a model and mode."""
    import matplotlib
    from matplotlib.figure import Figure

    rows, names, grid = found.rows, list(found.inputs), found.severities
    columns = min(4, len(names))
    figure = Figure(figsize=(3.2 * columns, 2.6 * math.ceil(len(names) / columns) + 0.8), layout="constrained")
    panels = figure.subplots(math.ceil(len(names) / columns), columns, sharey=True, squeeze=False).ravel()
    series = list(dict.fromkeys((row["model"], row["mode"]) for row in rows))
    places = list(dict.fromkeys(mode for _, mode in series))
    lines = {}
    for index, (panel, corruption) in enumerate(zip(panels, names, strict=False)):
        for row in rows:
            if row["corruption"] == corruption:
                run = row["model"], row["mode"]
                lines[run], = panel.plot(grid, [row[severity_key(severity)] for severity in grid], marker=".",
                                         color=f"C{series.index(run)}", label=", ".join(run),
                                         linestyle=("-", "--", ":", "-.")[places.index(row["mode"]) % 4])
        panel.set(title=corruption, xlabel=f"severity ({KNOWN[corruption].unit})", ylim=(0, 102),
                  ylabel="" if index % columns else "accuracy (%)")
        panel.grid(alpha=0.3)
    for panel in panels[len(names):]:
        panel.remove()
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(title)
    with matplotlib.rc_context({"svg.hashsalt": "hardspike", "svg.fonttype": "none"}), atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
