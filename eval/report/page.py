"""The report as one HTML file: sections of plots, tables and words around the numbers."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files

import jinja2
import yaml
from markupsafe import Markup, escape

from eval.mode import words
from eval.plots import SVG_DASHES
from eval.report import figures
from eval.report.blocks import split, svg
from eval.report.costs import cores, energy, neurobench, operations, timings
from eval.report.finding import Finding
from eval.report.membranes import EDGE, NEAR, ZONE
from eval.report.runs import common
from eval.report.tables import shown
from eval.report.verdict import against, compare
from eval.robustness.measure import severity_key

MOST_CLASSES = 25
"""A confusion matrix of more classes is a list of the most frequent errors."""


def render(content: dict, found: list[Finding]) -> str:
    """The page of what `hardspike eval report` found: HTML that refers to nothing outside.

    Args:
        content: what its .json file holds, with pictures.
        found: the same as values.
    """
    package = files("eval.report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_words)
    template = environment.from_string((package / "page.html").read_text())
    models = content["models"]
    first = models[0]
    facts = [f"{content['data']}, test part: {first['samples']} recordings of {first['steps']} steps{_fewer(first)}",
             *(f"{model['file']}: {model['kind']}, {model['parameters']:,} parameters" for model in models)]
    return template.render(
        title=" and ".join(model["label"] for model in models), facts=facts, models=models,
        comparison=against(*found) if len(found) == 2 else "",
        style=Markup((package / "page.css").read_text()),
        sections=[section for section in _sections(content, found) if section["blocks"]],
        footer=f"Made {content['made']} by `{content['command']}`. The same numbers: {content['json']}.")


def _fewer(model: dict) -> str:
    """What was measured on another number of recordings than accuracy."""
    counts = {"counts and energy": model.get("operations", {}).get("samples"),
              "corruptions": model.get("corruptions", {}).get("samples"),
              "layers disturbed": model.get("layers", {}).get("samples"),
              "membranes": (model.get("membranes") or [{}])[0].get("samples")}
    others: dict[int, list[str]] = {}
    for what, count in counts.items():
        if count and count != model["samples"]:
            others.setdefault(count, []).append(what)
    said = "; ".join(f"{', '.join(what)} on {count}" for count, what in others.items())
    return f" ({said})" if said else ""


def _words(value):
    """Text for the page: `5 %` stays on one line, what stands in backticks is code; files and pictures as they are."""
    if type(value) is not str or "\n" in value:
        return value
    escaped = str(escape(value)).replace(" %", "\N{NO-BREAK SPACE}%")
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _sections(content: dict, found: list[Finding]) -> Iterator[dict]:
    models = content["models"]
    masked = any("segments" in model for model in models)
    how = ("Shares of right pixels. Intervals are of a bootstrap over recordings (95 %). Change is in points against "
           "the first row; lost and won are recordings with fewer and with more right pixels, p the sign test on them."
           if masked else
           "Intervals are exact binomial (Clopper-Pearson, 95 %). Change is in points against the first row; lost and "
           "won are the recordings behind it, p the exact McNemar test on them.")
    yield _section("accuracy", "Accuracy", _accuracy(models, found),
                   f"Every mode on the same recordings. {how} Spikes are those of one recording{_apart(models)}.")
    yield _section("segments", "Classes of pixels", split(models, "segments", _segments),
                   "Intersection over union of each class, pixels of all recordings together, and its mean over the "
                   "classes that are there or are predicted.")
    yield _section("layers", "Layer by layer", split(models, "layers", _layers),
                   "The graph that is deployed. Above: what each layer costs. Below: how near its membranes are to the "
                   "threshold, and points of accuracy lost when that layer alone is disturbed.")
    smooth = any("phi" in layer for model in models for layer in model.get("membranes", []))
    yield _section("membranes", "Where the gap comes from" if smooth else "Membranes and thresholds",
                   split(models, "membranes", _membranes),
                   "How far membranes are from their threshold when spikes are hard." + (
                       " Where the smooth function φ is neither 0 nor 1, hard spikes give something else than training "
                       "saw." if smooth else ""))
    yield _section("sample", "One recording through all layers", split(models, "sample", _sample))
    yield _section("confusion", "Confusion", split(models, "confusion", _confusion))
    yield _section("corruptions", "Corruptions and faults", _corruptions(models))
    yield _section("operations", "Operations", operations(models),
                   "Counted on recorded spikes and true fan-out, for one recording on average. SynOps are events times "
                   "their source's synapses; MACs and ACs leave out weights of 0.")
    yield _section("neurobench", "NeuroBench", split(models, "neurobench", neurobench),
                   "The metrics of NeuroBench 2.3 that follow from counts, for one recording on average. A footprint "
                   "of integers is every weight in whole bytes and once, however often a convolution uses it; the "
                   "memory of cores, further down, holds each synapse by itself. MembraneUpdates are an upper bound: "
                   "every neuron in every step.")
    yield _section("energy", "Energy", energy(models),
                   "Counts times published prices. Each price says what it rests on; none was measured on this "
                   "network. Weights of 8 bits or fewer are priced by the tables for 8-bit integers where the source "
                   "has one, the network's and its ANN's alike, so energies compare within a table only.")
    yield _section("cores", "Cores and memory", split(models, "cores", cores))
    yield _section("timing", "Latency and throughput", timings(models),
                   "The deployed graph on this machine, as `hardspike targets bench` measures: simulators, not the "
                   "chip, whose steps no public number gives in seconds. Latency of one recording alone; recordings a "
                   "second when all run at once.")
    yield _section("parity", "Parity of targets", _parities(models),
                   "Spikes that differ between two runs, over all layers and recordings. Integers and floats differ "
                   "rightly, since integers round leaks and weights; runs of one integer graph have to be equal. A run "
                   "in float32 may part from reference where a membrane lies within rounding of its threshold.")
    yield _section("training", "Training", _training(models))
    yield _section("reproduce", "To reproduce it", _reproduce(content))
    yield _section("missing", "Not in this report", split(models, "missing", lambda number, missing: [
        {"points": missing}] if missing else []))


def _section(name: str, title: str, blocks: list[dict], lead: str = "") -> dict:
    return {"id": name, "title": title, "blocks": blocks, "lead": lead}


def _accuracy(models: list[dict], found: list[Finding]) -> list[dict]:
    blocks: list[dict] = [{"figures": [svg(figures.accuracy(models))], "layout": "wide",
                           "legend": _models_legend(models)}]
    if len(models) == 2:
        rows = [{"mode": words(mode), f"{found[0].label} %": 100 * one.accuracy,
                 f"{found[1].label} %": 100 * other.accuracy, **asdict(change)}
                for mode, one, other, change in compare(*found)]
        extra = {f"{model['label']} %": (f"{model['label']} %", "{:.1f}") for model in models}
        names = {"mode": ("mode", ""), **extra, "change": ("change", "{:+.1f}"), "lost": ("lost", "{}"),
                 "won": ("won", "{}"), "p": ("p", "{:.2g}")}
        blocks.append({"table": shown("compare", rows, names),
                       "caption": f"{models[1]['label']} against {models[0]['label']} on the same recordings"})
    if len(models) == 1:
        return [{**blocks[0], "table": shown("accuracy", models[0]["accuracy"]), "beside": True}]
    return blocks + split(models, "accuracy", lambda _, rows: [{"table": shown("accuracy", rows)}])


def _apart(models: list[dict]) -> str:
    """Layers that only some runs have, and whose spikes a column for all of them leaves out."""
    names = [layer for model in models for layer in only_some(model["runs"])]
    return f", without {', '.join(dict.fromkeys(names))}, which are cells of the graph and no layers of the network" \
        if names else ""


def only_some(runs: list[dict]) -> list[str]:
    """Layers that a run has and another one has not."""
    shared = set(common(run["spikes"] for run in runs))
    return list(dict.fromkeys(layer for run in runs for layer in run["spikes"] if layer not in shared))


def _models_legend(models: list[dict]) -> list[dict]:
    """Colours of the models, where there are two."""
    return [{"colour": number, "dash": "", "name": model["label"]} for number, model in enumerate(models, 1)
            ] if len(models) > 1 else []


def _membranes(number: int, layers: list[dict]) -> list[dict]:
    first = layers[0]
    smooth = "phi" in first
    text = (f"{first['samples']} recordings. Filled: share of the membranes. Near: within {NEAR:g} θ of the threshold. "
            f"Beyond: outside of ±{EDGE:g} θ. "
            "Rate: spikes a neuron and step. Silent: neurons that never fired.")
    if smooth:
        text += (f" Line: φ. Shaded, in between: {ZONE[0]:g} < φ < {ZONE[1]:g}. |φ − H|: what replacing φ by the hard "
                 "step changes in a neuron's output, on average: a layer's own part in the gap.")
    pictures = [svg(figures.membranes(number, place, layer)) for place, layer in enumerate(layers)]
    return [{"text": text, "figures": pictures},
            {"table": shown("membranes", layers)}]


def _segments(number: int, found: dict) -> list[dict]:
    classes = {key: (key.removesuffix(" %"), "{:.1f}") for key in found["rows"][0] if key.startswith("IoU")}
    pictures = [svg(panel) for place, picture in enumerate(found["pictures"])
                for panel in figures.segments(number, place, picture, len(classes))]
    return [{"table": shown("segments", found["rows"])},
            {"summary": "The same by class", "details": shown("segments by class", found["rows"], {
                "mode": ("mode", ""), **classes})},
            {"text": f"The first {len(found['pictures'])} test recordings ({found['mode']}): what goes in, the classes "
                     "that are there, and those that the network gives. A number stands on the pixels of its class; "
                     "white pixels count nowhere.", "figures": pictures, "layout": "narrow"}]


def _sample(number: int, sample: dict) -> list[dict]:
    right = "rightly" if sample["label"] == sample["prediction"] else "wrongly"
    pictures = [figures.events(number, sample)] if sample["events"] else []
    pictures += [figures.raster(number, place, layer, sample["steps"]) for place, layer in enumerate(sample["layers"])]
    colours = "Orange is OFF, blue ON. " if sample["events"] else ""
    spikes = ", ".join(f"{layer['layer']} {layer['total']:,}" for layer in sample["layers"])
    return [{"text": f"Test recording {sample['id']} of class {sample['label']}, {right} taken for class "
                     f"{sample['prediction']} ({sample['mode']}). {colours}Spikes: {spikes}.",
             "figures": [svg(p) for p in [*pictures, figures.scores(number, sample)]], "layout": "narrow"},
            {"summary": "The same as numbers: spikes of the layers", "details": shown("sample", sample["layers"])},
            {"summary": "The same as numbers: scores", "details": shown("scores", [
                {"class": place, "score": score} for place, score in enumerate(sample["scores"])])}]


def _layers(number: int, found: dict) -> list[dict]:
    energies = {f"{name} nJ": (f"{name} (nJ)", "{:,.0f}") for name in found["tables"]}
    losses = {name: (name, "{:+.1f}") for name in found["disturbances"]}
    rows = found["rows"]
    memory = {"memory %": ("memory %", "{:.1f}")}
    nearness = {"margin": ("margin (θ)", "{:.3g}"), "near %": ("near %", "{:.1f}")}
    lost = [{key: row[key] if key in ("layer", *nearness) or row.get(key) is None else 0.0 - row[key]
             for key in ("layer", *nearness, *losses) if key in row} for row in rows]
    return [{"table": shown("layers", rows, {**energies, **memory}),
             "caption": f"Counts and energy of a recording, mean of {found['counted']}; memory: share of the synapses' "
                        "bytes on the cores"},
            {"table": shown("layer losses", lost, {"layer": ("layer", ""), **nearness, **losses}),
             "caption": f"Margin: 1 % of the membranes come nearer to the threshold than this; near: within {NEAR:g} "
                        f"θ. Behind: points of accuracy won or lost on {found['samples']} recordings against "
                        f"{found['accuracy %']:.1f} %. In a chain, a silent layer leaves nothing to read."}]


def _confusion(number: int, found: dict) -> list[dict]:
    matrix = found["matrix"]
    count = sum(map(sum, matrix))
    wrong = count - sum(row[index] for index, row in enumerate(matrix))
    caption = f"{found['mode']}: {wrong} of {count} recordings wrong. Rows: true class; columns: what it was taken for."
    if len(matrix) > MOST_CLASSES:
        errors = sorted(((n, row, column) for row, line in enumerate(matrix) for column, n in enumerate(line)
                         if n and row != column), reverse=True)[:MOST_CLASSES]
        return [{"text": caption,
                 "points": [f"class {row} taken for {column}: {n} times" for n, row, column in errors]}]
    rows = []
    for index, line in enumerate(matrix):
        total = max(1, sum(line))
        rows.append({"name": index, "cells": [
            {"text": n or "", "share": n / total if n else None,
             "kind": "none" if not n else "right" if index == column else "wrong"} for column, n in enumerate(line)]})
    return [{"text": caption, "matrix": {"columns": range(len(matrix)), "rows": rows}}]


def _corruptions(models: list[dict]) -> list[dict]:
    with_curves = [model for model in models if "corruptions" in model]
    if not with_curves:
        return []
    lines = []
    for number, model in enumerate(with_curves):
        for place, mode in enumerate(model["corruptions"]["modes"]):
            two = len(with_curves) > 1
            lines.append({"colour": 1 + (number if two else place % 6), "dash": SVG_DASHES[place % 4],
                          "name": f"{model['label']}, {mode}" if two else mode})
    blocks = [{"legend": lines, "figures": [svg(figure) for figure in figures.corruptions(with_curves)]}]

    def table(_: int, found: dict) -> list[dict]:
        extra = {key: (key, "{:.1f}") for key in map(severity_key, found["severities"])}
        left_out = [f"Without {one['corruption'].replace('_', ' ')} of {one['mode']}: {one['reason']}"
                    for one in found["left_out"]]
        return [{"points": left_out}, {"summary": "All numbers: accuracy % over severity", "details": shown(
            "corruptions", found["rows"], {**extra, "mean": ("mean", "{:.1f}"), "area": ("area", "{:.3f}")})}]

    samples = with_curves[0]["corruptions"]["samples"]
    return [*blocks, *split(models, "corruptions", table),
            {"note": f"{samples} recordings, corrupted alike for every mode; severity 0 is their clean accuracy."}]


def _parities(models: list[dict]) -> list[dict]:
    """Nothing where no model has two runs to compare."""
    return split(models, "runs", _parity) if any(len(_compared(model["runs"])) > 1 for model in models) else []


def _compared(runs: list[dict]) -> list[dict]:
    return [run for run in runs if run["differs"]]


def _parity(number: int, runs: list[dict]) -> list[dict]:
    runs = _compared(runs)
    if len(runs) < 2:
        return [{"text": "No two runs give spikes to compare."}]
    rows: list[dict] = []
    for run in runs:
        cells = []
        for other in runs:
            count, apart = run["differs"][other["mode"]], run["apart"].get(other["mode"], 0)
            related = run["exact"] and run["graph"] == other["graph"]
            text = f"{count - apart:,}" + (f" + {apart:,}" if apart else "")
            cells.append({"text": "" if run is other else "=" if not count else text, "share": None,
                          "kind": "none" if run is other else "same" if not count else "other" if related else ""})
        rows.append({"name": f"{len(rows) + 1}  {run['mode']}", "cells": cells})
    layers = ", ".join(only_some(runs))
    behind = f" Counted in the layers that all runs have; behind +: in {layers}, which only some have." \
        if layers else ""
    return [{"text": f"= is equal, spike for spike. Columns have the rows' numbers.{behind}",
             "matrix": {"columns": range(1, len(runs) + 1), "rows": rows}}]


def _training(models: list[dict]) -> list[dict]:
    trained = [model for model in models if model.get("training")]
    if not trained:
        return []
    return [{"figures": [svg(figure) for figure in figures.training(trained)]},
            *split(models, "training",
                    lambda _, rows: [{"summary": "All epochs", "details": shown("training", rows)}])]


def _reproduce(content: dict) -> list[dict]:
    columns = []
    for model in content["models"]:
        lines = [f"{model['file']}: SHA-256 {model['sha256']}",
                 f"recordings with labels: SHA-256 {model['recordings']}"]
        if model["chip graph"]:
            lines.append(f"graph in integers made for the chip: SHA-256 {model['chip graph']}")
        parts: list[dict] = [{"points": lines}]
        if "config" in model:
            lines.append(f"epoch {model['epoch']}" + _theory(model["theory"]))
            parts.append({"summary": "Configuration (hardspike fit --config FILE)",
                          "code": yaml.safe_dump(model["config"], sort_keys=False)})
        columns.append({"label": model["label"], "parts": parts})
    program = [f"made {content['made']}", f"commit {content['commit'] or 'not known: installed, not checked out'}",
               f"program, all its files: SHA-256 {content['program']}"]
    versions = "\n".join([*program, *(f"{name} {version}" for name, version in content["versions"].items())])
    common = {"label": "", "parts": [{"summary": "Versions", "code": versions, "open": True}]}
    return [{"split": columns}, {"split": [common]}]


def _theory(theory: dict) -> str:
    """What SAST's theory says of a run, where the run has noted it."""
    try:
        aligned = "yes" if theory["theory_aligned"] else f"no ({theory['why_not']})"
        return (f"; phi(-theta) {theory['phi(-theta)']:.3g}, contraction q {theory['q_loose']:.3g} loose, "
                f"{theory['q_tight']:.3g} tight; theory-aligned: {aligned}")
    except (KeyError, TypeError, ValueError):
        return ""
