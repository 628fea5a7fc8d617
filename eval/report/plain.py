"""A finding as plain values under the headings of tables: what the page, the .json file and the CSV files hold."""

from dataclasses import asdict
from typing import Any

from eval import rows
from eval.mode import words
from eval.operations.measure import Operations
from eval.report.finding import Cores, Finding
from eval.report.membranes import LayerMembranes
from eval.report.runs import Accuracy, Missing, Run
from eval.report.segments import Segments
from eval.report.timing import Timing
from eval.robustness.curves import unit
from eval.robustness.measure import Robustness


def plain(found: Finding) -> dict:
    """All about one model; a key a section, left out where the section is missing."""
    model: dict[str, Any] = {
        "label": found.label, "file": found.file, "kind": found.kind, "sha256": found.sha256,
        "recordings": found.recordings, "chip graph": found.chip_graph,
        "samples": found.samples, "steps": found.steps, "classes": found.classes, "labels": found.labels,
        "missing": _missing(found.missing), "parameters": found.parameters}
    if training := found.training:
        model |= {"training": training.history, "epoch": training.epoch, "trained_hard": training.hard,
                  "theory": training.theory, "config": training.config}
    model |= {"accuracy": [_accuracy(row) for row in found.accuracy], "runs": _runs(found.runs)}
    if found.confusion:
        model["confusion"] = {"mode": words(found.deployed), "matrix": found.confusion}
    if found.membranes is not None:
        model["membranes"] = [_membranes(layer) for layer in found.membranes]
    if found.segments:
        model["segments"] = _segments(found.segments, found.accuracy)
    if example := found.example:
        parts = {key: value for key, value in asdict(example).items() if key not in ("off", "on")}
        model["sample"] = {**parts, "mode": words(example.mode),
                           "events": example.off and {"off": example.off, "on": example.on}}
    if found.corruptions:
        model["corruptions"] = _corruptions(found.corruptions)
    if found.operations is not None:
        model["operations"] = {"rows": _operations(found.operations), "samples": found.counted}
    if found.energy:
        model["energy"] = {"rows": [_without_model(row) for row in rows.energy(found.energy.rows)],
                           "samples": found.energy.samples,
                           "about": {table.name: table.about for table in found.energy.tables}}
    if found.cores:
        model["cores"] = _cores(found.cores)
    if found.layers:
        model["layers"] = _layers(found)
    if found.timings:
        model["timing"] = [_timing(one) for one in found.timings]
    if found.neurobench:
        model["neurobench"] = [{**asdict(one), "mode": words(one.mode)} for one in found.neurobench]
    return model | {"verdict": asdict(found.verdict)}


def without_pictures(model: dict) -> dict:
    """`plain` without pictures, for the .json file."""
    drawn = {"cores": "picture", "segments": "pictures"}
    return {name: {key: value for key, value in section.items() if key != drawn[name]} if name in drawn else section
            for name, section in model.items()}


def _missing(found: list[Missing]) -> list[str]:
    """What is missing, by its reason: one reason may take many sections."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        reasons.setdefault(one.reason, []).append(one.what)
    return [f"{', '.join(what)}: {reason}" for reason, what in reasons.items()]


def _without_model(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "model"}


def _accuracy(row: Accuracy) -> dict:
    change = asdict(row.change) if row.change else dict.fromkeys(("change", "lost", "won", "p"))
    return {"mode": words(row.mode), "accuracy %": 100 * row.accuracy, "low %": 100 * row.low, "high %": 100 * row.high,
            **change, "spikes": row.spikes, "epoch": row.epoch}


def _segments(found: Segments, accuracy: list[Accuracy]) -> dict:
    """Figures of every mode, classes in columns, and the pictures of one mode."""
    table = [{"mode": words(row.mode), "mIoU %": 100 * row.pixels.miou, "mIoU low %": 100 * row.pixels.miou_low,
              "mIoU high %": 100 * row.pixels.miou_high,
              **{f"IoU {name} %": rows.percent(iou) for name, iou in enumerate(row.pixels.ious)}}
             for row in accuracy if row.pixels]
    return {"rows": table, "mode": words(found.mode), "pictures": [asdict(one) for one in found.pictures]}


def _runs(runs: list[Run]) -> list[dict]:
    """`graph`: which network ran; `exact`: in integers, which leave no room to differ; `differs`: by the other run."""
    names = [words(run.mode) for run in runs]
    return [{"mode": name, "graph": _graph(run), "exact": run.mode.chip is not None,
             "differs": {other: count for other, count in zip(names, run.differs, strict=True) if count is not None},
             "apart": {other: count for other, count in zip(names, run.apart, strict=False) if count},
             "beyond": run.beyond, "spikes": run.spikes, "predictions": run.predictions}
            for name, run in zip(names, runs, strict=True)]


def _graph(run: Run) -> str:
    mode = run.mode
    if mode.chip is None:
        return "smooth" if mode.smooth else "float" + (f", calibrated ({mode.calibration})" if mode.calibration else "")
    return f"{mode.chip}, {mode.bits} bits" if mode.bits else mode.chip


def _membranes(layer: LayerMembranes) -> dict:
    row = {"layer": layer.layer, "neurons": layer.neurons, "samples": layer.samples, "steps": layer.steps,
           "rate": layer.rate, "silent %": 100 * layer.silent, "near %": 100 * layer.near,
           "beyond %": 100 * layer.beyond}
    if layer.phi is not None:
        row |= {"rate surrogate": layer.rate_surrogate, "in zone %": rows.percent(layer.in_zone),
                "|phi-H|": layer.difference, "phi at rest": layer.phi_at_rest, "phi": layer.phi}
    return row | {"histogram": layer.histogram}


def _corruptions(curves: Robustness) -> dict:
    """Accuracy over severity, and what is left out, with its reason."""
    table = [_without_model(row) for row in rows.robustness(curves)]
    left_out = [{"corruption": one.curve.corruption, "mode": words(one.curve.mode), "reason": one.reason}
                for one in curves.left_out]
    return {"rows": table, "modes": list(dict.fromkeys(row["mode"] for row in table)), "severities": curves.severities,
            "samples": curves.samples, "left_out": left_out,
            "units": {row.corruption: unit(row.corruption) for row in curves.rows}}


def _operations(found: list[Operations]) -> list[dict]:
    """Counts a recording, by layer."""
    table: list[dict] = []
    for run in found:
        *layers, _, each = map(_without_model, rows.operations(run))  # their sum between them
        table += [{key: value if value is None or key in ("mode", "layer", "neurons", "silent")
                   else value / run.counts.samples for key, value in row.items()} for row in layers] + [each]
    return table


def _cores(cores: Cores) -> dict:
    table = [{"layer": layer.layer, "neurons": layer.neurons, "synapses": layer.synapses, "cores": layer.cores,
              "memory": layer.memory, "fullest core": layer.fullest,
              **{f"{key} %": 100 * share for key, share in layer.usage.items()}} for layer in cores.layers]
    return {"chip": cores.chip, "rows": table, "cores": cores.cores, "available": cores.available,
            "memory": cores.memory, "picture": cores.picture, "violations": cores.violations,
            "estimate": cores.estimate}


def _layers(found: Finding) -> dict:
    """One row a layer: its costs, its share of each, its margin, and what disturbing it alone takes."""
    assert found.layers
    cores = {layer.layer: layer for layer in found.cores.layers} if found.cores else {}
    margins = {layer.layer: layer for layer in found.margins or []}
    whole = found.cores.memory if found.cores else 0.0
    table: list[dict] = []
    for layer in found.layers.layers:
        place, near = cores.get(layer.layer), margins.get(layer.layer)
        table.append({
            "layer": layer.layer, "neurons": layer.neurons, "spikes": layer.spikes, "synops": layer.synops,
            **{f"{name} nJ": value for name, value in layer.energy.items()},
            "memory %": 100 * place.memory / whole if place and whole else None,
            "margin": near and near.margin, "near %": near and 100 * near.near,
            **{loss.disturbance: loss.points for loss in layer.losses}})
    return {"rows": table, "samples": found.layers.samples, "accuracy %": 100 * found.layers.accuracy,
            "counted": found.layers.counted, "tables": list(found.layers.layers[0].energy),
            "disturbances": list(dict.fromkeys(loss.disturbance for layer in found.layers.layers
                                               for loss in layer.losses))}


def _timing(one: Timing) -> dict:
    """Latency in ms, recordings a second."""
    times = one.times
    return {"mode": words(one.mode), "mean": times.mean, "median": times.median, "p99": times.p99,
            "fastest": times.fastest, "slowest": times.slowest, "throughput": times.throughput, "runs": times.runs,
            "samples": times.samples, "steps": times.steps, "threads": times.threads, "machine": one.machine,
            "made": one.made}
