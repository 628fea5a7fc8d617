"""Measured values as rows of tables: every heading of the eval commands and of the report stands here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from eval.mode import brief, words

if TYPE_CHECKING:
    from eval.accuracy import Accuracy
    from eval.calibrate.measure import CalibrationRow
    from eval.conformance.measure import Reading
    from eval.energy.measure import Energy
    from eval.explain.measure import Explanation
    from eval.features import Features
    from eval.gradients import LayerGradients
    from eval.landscape import Landscape
    from eval.operations.measure import Operations
    from eval.parity import Parities
    from eval.pixels import Pixels
    from eval.pruning import Pruned
    from eval.quantisation import Quantised
    from eval.robustness.measure import Robustness
    from eval.sharpness import Sharpness
    from eval.study.compare import Variant
    from eval.study.runs import StudyRun

NEURON_COLUMNS = ("neurons", "spikes", "silent", "updates")
SYNAPSE_COLUMNS = ("events", "synops", "macs", "acs", "dense")
TRAFFIC_COLUMNS = ("messages", "hops")
MIOU = ("mIoU", "mIoU, surrogate")
STUDY_COLUMNS = (*MIOU, "surrogate", "hard", "gap", "spikes", "epoch", "train s", "q", "phi(-theta)")
COSTS = ("s / epoch", "peak GB", "gradients")
PER_SAMPLE = "per sample"
TERMS = {"kept": "kept of the membrane", "reset": "reset", "rest": "resting potential",
         "weights": "spikes through weights", "bias": "bias", "remainder": "rounding"}

Row = dict[str, str | float | None]


def percent(share: float | None) -> float | None:
    """A share in %."""
    return None if share is None else 100 * share


def accuracy(found: list["Accuracy"]) -> list[dict]:
    """One row a model and mode; a column a layer for its spikes, but where pixels are labelled, by many layers."""
    layers = list(dict.fromkeys(layer for one in found if one.pixels is None for layer in one.spikes))
    return [{"model": str(one.model), "mode": words(one.mode, exported=True),
             "accuracy %": 100 * one.right / one.count, "low %": 100 * one.low, "high %": 100 * one.high,
             "gap": percent(one.gap), **_pixels(one.pixels), "epoch": one.epoch, "train s": one.train_seconds,
             "gradients": one.gradients,
             "spikes": sum(one.spikes.values()), **{f"{layer} spikes": one.spikes.get(layer) for layer in layers}}
            for one in found]


def _pixels(found: "Pixels | None") -> dict[str, float | None]:
    """The mean intersection over union."""
    if found is None:
        return {}
    return {"mIoU %": 100 * found.miou, "mIoU low %": 100 * found.miou_low, "mIoU high %": 100 * found.miou_high}


def class_ious(found: list["Accuracy"]) -> list[dict]:
    """One row a model and mode whose pixels are labelled, and a column a class."""
    return [{"model": str(one.model), "mode": words(one.mode, exported=True),
             **{f"IoU {name} %": percent(iou) for name, iou in enumerate(one.pixels.ious)}}
            for one in found if one.pixels]


def calibration(found: list["CalibrationRow"]) -> list[dict]:
    """One row a mode."""
    return [{"mode": f"calibrated ({one.calibration.kind})" if one.calibration else words(one.mode),
             "values": one.calibration and one.calibration.parameters,
             "searched": one.calibration and one.calibration.searched, "validation %": 100 * one.validation,
             "test %": 100 * one.test, "low %": 100 * one.low, "high %": 100 * one.high, "gap": percent(one.gap),
             "recovered %": percent(one.recovered), "epoch": one.epoch,
             "chosen": one.calibration and one.calibration.summary()}
            for one in found]


def energy(found: Iterable["Energy"]) -> list[dict]:
    """One row a model, table and term."""
    from eval.energy.measure import run_words
    return [{"model": str(one.model), "run": run_words(one), "prices": one.table, "term": one.term,
             "a sample": one.count, "price": one.price, "energy nJ": one.nanojoules, "evidence": one.evidence,
             "source": one.source} for one in found]


def features(found: list["Features"]) -> list[dict]:
    """One row a model and step."""
    return [{"model": str(one.model), "run": words(one.mode), "layer": one.layer, "step": one.step,
             "silhouette": one.silhouette, "silhouette of the map": one.of_map, "silent %": 100 * one.silent}
            for one in found]


def gradients(found: list["LayerGradients"], run: str = "") -> list[dict]:
    """One row a layer; `run`: its name, where there are several."""
    head = {"run": run} if run else {}
    return [{**head, "layer": one.layer, "SGV": one.sgv, "TGC": one.tgc, "width T": one.width_last,
             "width T-1": one.width_before, "fisher": one.fisher, "mu": one.mu, "sigma^2": one.variance,
             "L*kappa": one.l_kappa, "CV asy/tri": one.cv_ratio, "RMD": one.rmd, "RMD of weights": one.rmd_weights,
             "silent %": percent(one.silent), "mu_w": one.weight_mean, "sigma_w": one.weight_deviation}
            for one in found]


def landscape(found: list["Landscape"]) -> list[dict]:
    """One row a network."""
    return [{"model": str(one.model), "spikes": one.spikes, "loss": one.loss, "largest": one.largest,
             **{f"rise at {length:g}": value for length, value in one.rises.items()}, "smooth loss": one.smooth,
             **{f"Hessian {index}": value for index, value in enumerate(one.eigenvalues, 1)},
             "residual": max(one.residuals, default=None)} for one in found]


def operations(run: "Operations") -> list[dict]:
    """Layers of a run with exact sums over all recordings, their total, and the total per sample."""
    head = {"model": str(run.model), "mode": words(run.mode)}
    columns = (*NEURON_COLUMNS, *SYNAPSE_COLUMNS, *TRAFFIC_COLUMNS)
    traffic: dict[str, dict] = {}
    for entry in run.traffic:
        before = traffic.get(entry.layer, {"messages": 0, "hops": 0})
        hops = None if entry.hops is None or before["hops"] is None else before["hops"] + sum(entry.hops)
        traffic[entry.layer] = {"messages": before["messages"] + entry.messages, "hops": hops}
    rows = [{**head, "layer": layer.layer, **{key: getattr(layer, key, None) for key in columns},
             **traffic.get(layer.layer, {})} for layer in run.counts.layers]
    sums = {key: _sum([row[key] for row in rows]) for key in columns}
    return [*rows, {**head, "layer": "total", **sums},
            {**head, "layer": PER_SAMPLE, **{key: value if value is None or key in ("neurons", "silent")
                                             else value / run.counts.samples for key, value in sums.items()}}]


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def conformance(found: list["Reading"]) -> list[dict]:
    """One row a graph, and a column a reader."""
    rows: dict[str, dict] = {}
    for one in found:
        rows.setdefault(str(one.graph), {"graph": str(one.graph)})[f"{one.reader} {one.version}"] = one.verdict
    return list(rows.values())


def explanation(found: "Explanation") -> list[dict]:
    """One row a term of the membranes of the first spike, their sums, and what they are compared with."""
    first = found.first
    if first is None:
        return []
    rows: list[dict] = [{"term": TERMS[pair.kind], "from": pair.node, "A": pair.one, "B": pair.other,
                         "difference": pair.difference} for pair in first.terms]
    rows += [{"term": f"membrane, step {first.step}", "A": first.membranes[0], "B": first.membranes[1]},
             {"term": "threshold", "A": first.thresholds[0], "B": first.thresholds[1]}]
    return rows


def parity(found: "Parities") -> list[dict]:
    """One row a run, and a column a run for the spikes that differ."""
    names = brief([run.mode for run in found.runs])
    return [{"run": name, "accuracy %": None if run.right is None else 100 * run.right / found.samples,
             "spikes": run.spikes, **{f"differs from {other}": count
                                      for other, count in zip(names, run.differs, strict=True)}}
            for name, run in zip(names, found.runs, strict=True)]


def pruning(found: list["Pruned"], target: str) -> list[dict]:
    """One row a share."""
    return [{"pruned %": 100 * one.share, "zero %": 100 * one.zero, f"{target} %": 100 * one.accuracy,
             "synapses": one.footprint.synapses, "synapse bits": 8 * one.footprint.memory,
             "cores": one.footprint.cores, "SynOps a sample": one.synops, "spikes a sample": one.spikes}
            for one in found]


def quantisation(found: list["Quantised"], target: str, models: int) -> list[dict]:
    """One row a model, width and kind of scale, and the means over `models`."""
    priced = any(one.energy is not None for one in found)
    return [{"model": f"mean of {models}" if one.model is None else str(one.model), "bits": one.bits,
             "scale": one.scale, "float %": percent(one.floats), f"{target} %": 100 * one.integers,
             "loss": percent(one.loss), "spikes changed %": percent(one.changed), "epoch": one.epoch,
             "synapse kB": one.memory and one.memory / 1000, "cores": one.cores,
             **({"energy nJ": one.energy} if priced else {})} for one in found]


def robustness(found: "Robustness") -> list[dict]:
    """One row a corruption, model and mode, and a column a severity."""
    from eval.robustness.measure import severity_key
    keys = [severity_key(severity) for severity in found.severities]
    return [{"corruption": row.corruption, "model": str(row.model), "mode": words(row.mode),
             **dict(zip(keys, row.accuracy, strict=True)), "mean": row.mean, "area": row.area,
             "epoch": row.epoch} for row in found.rows]


def robustness_spikes(found: "Robustness") -> list[dict]:
    """Two rows a fault of spikes, model and mode, and a column a severity."""
    from eval.robustness.measure import severity_key
    keys = [severity_key(severity) for severity in found.severities]
    return [{"fault": row.corruption, "model": str(row.model), "mode": words(row.mode), "spikes": what,
             **dict(zip(keys, counts, strict=True))}
            for row in found.rows for what, counts in (("fired", row.fired), ("arrived", row.arrived)) if counts]


def study(found: list["Variant"]) -> list[dict]:
    """One row a variant: accuracies, gap and spikes over its seeds, and where the weights come from."""
    rows = []
    for one in found:
        row: Row = {"variant": one.variant}
        for key in MIOU:
            if key in one.values:
                row |= {f"{key} %": one.values[key].mean, f"{key} % sd": one.values[key].deviation}
        for key, heading in (("surrogate", "surrogate %"), ("hard", "hard %"), ("gap", "gap"), ("spikes", "spikes")):
            values = one.values[key]
            row |= {heading: values.mean, f"{heading} sd": values.deviation}
            if key in ("hard", "gap"):
                row |= {f"{heading} median": values.median, f"{heading} q1": values.low, f"{heading} q3": values.high}
        rows.append(row | {key: one.values[key].mean for key in ("epoch", "q", "phi(-theta)")})
    return rows


def study_tests(found: list["Variant"]) -> list[dict]:
    """Four rows a variant but the first: each difference from that with its interval, and every test."""
    rows: list[dict] = []
    for one in found[1:]:
        for key, change in one.changes.items():
            rows.append({"variant": one.variant, "of": "spikes, %" if key == "spikes" else f"{key}, points",
                         "difference": change.mean, "low": change.low, "high": change.high, "worse": None,
                         "better": None, "p": change.p, "p (Holm)": change.p_holm})
        if one.pooled:
            rows.append({"variant": one.variant, "of": "recordings, all seeds", "worse": one.pooled.worse,
                         "better": one.pooled.better, "p": one.pooled.p, "p (Holm)": one.pooled.p_holm})
    return rows


def study_columns(found: list["Variant"], keys: Iterable[str] | None = None) -> list[dict]:
    """One row a variant: what `eval.options.Columns` asked for, or `keys` of it, over its seeds: mean and standard
    deviation; of costs median and quartiles, which a run beside others' work does not move, and how many times the
    first variant's median."""
    keys = [key for key in found[0].values if key not in STUDY_COLUMNS] if keys is None else list(keys)
    rows = []
    for one in found:
        row: Row = {"variant": one.variant}
        for key in keys:
            values = one.values[key]
            if key in COSTS:
                row |= {key: values.median, f"{key} q1": values.low, f"{key} q3": values.high,
                        f"{key} factor": values.median / found[0].values[key].median}
            else:
                row |= {key: values.mean, f"{key} sd": values.deviation}
        rows.append(row)
    return rows if keys else []


def study_further_tests(found: list["Variant"]) -> list[dict]:
    """One row a variant but the first and a further hard accuracy."""
    return [{"variant": one.variant, "of": f"{key}, points", "difference": change.mean, "low": change.low,
             "high": change.high, "p": change.p, "p (Holm)": change.p_holm}
            for one in found for key, change in one.further.items()]


def study_further(found: list["Variant"]) -> dict[str, list[dict]]:
    """Title -> rows: `study_columns` in tables that a terminal holds: costs, calibrations, one a corruption."""
    from eval.calibrate.measure import KINDS
    groups: dict[str, list[str]] = {}
    for key in found[0].values:
        if key not in STUDY_COLUMNS:
            what = key.rsplit(", ", 1)[-1]
            if what in COSTS:
                title = "costs of training (SAST table IV): median and quartiles of seeds"
            elif what in KINDS:
                title = "hard accuracy, %, after calibration (SAST table III): mean and standard deviation of seeds"
            else:
                title = (f"{what}: mean accuracy, %, over severities (SAST fig. 2): mean and standard deviation of "
                         "seeds")
            groups.setdefault(title, []).append(key)
    return {title: study_columns(found, keys) for title, keys in groups.items()}


def study_runs(found: list["StudyRun"]) -> list[dict]:
    """One row a run of a study."""
    return [{"variant": one.variant, "seed": one.seed, **one.values,
             "curves": {f"{mode}, {name}": curve for (name, mode), curve in one.curves.items()}} for one in found]


def sam_gaps(found: "Sharpness") -> list[dict]:
    """One row a radius."""
    return [{"rho": row["radius"], "L(w+eps)-L(w)": row["gap"], "rho*||g||": row["first_order"],
             "random": row["random"]} for row in found.radii]


def secants(found: "Sharpness") -> list[dict]:
    """One row a length."""
    return [{"||d||": row["length"], "random, mean": sum(row["random"]) / len(row["random"]),
             "random, largest": max(row["random"]), "gradient": row["gradient"], "curved": row["curved"]}
            for row in found.secants]


def sharpness_spreads(found: "Sharpness") -> list[dict]:
    """One row a quantity and mode."""
    return [{"quantity": one.quantity, "mode": one.mode, "mean": one.mean, "sd": one.sd, "median": one.median,
             "q1": one.q1, "q3": one.q3} for one in found.spreads]


def sharpness_bounds(found: "Sharpness") -> list[dict]:
    """One row a bound."""
    return [{"bound of": one.quantity, "measured, largest": one.measured, "bound, tight q": one.tight,
             "bound, loose q": one.loose, "times looser": one.factor} for one in found.bounds]
