"""Everything that the report says about one model, as plain numbers and words."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.cache import cached
from eval.energy.command import energy, for_weights
from eval.energy.price_tables import load_table
from eval.operations.command import operations
from eval.report.membranes import membranes
from eval.report.runs import Run, accuracy_rows, all_runs, confusion, trained_hard
from eval.report.sample import sample
from eval.report.subject import Subject
from eval.report.verdict import judge
from eval.robustness.command import KNOWN, curves
from export.formats.integers import CHIPS, chip_of
from export.formats.nir import open_graph
from hardspike import HardspikeError, progress
from targets.loihi import rules
from targets.loihi.mapping import map_graph
from targets.loihi.picture import svg, usage
from trainer.checkpoint import Checkpoint
from trainer.config import to_dict

PRICES = ("synops_45nm", "horowitz45nm", "horowitz45nm_sram")
"""Tables that price any network, integers at the int8 ones; those of chips are for `python -m eval energy`."""


@dataclass(frozen=True)
class Effort:
    """How much is measured; see `eval.report.command.report`."""

    targets: tuple[str, ...]
    bits: tuple[int, ...]
    corrupted: int
    severities: str
    counted: int = 64
    observed: int = 128


def collect(subject: Subject, label: str, effort: Effort) -> dict:
    """All about one model: plain values, a key a section. What cannot be had is in `missing`, with the reason."""
    model = {"label": label, "file": str(subject.path), "kind": subject.kind,
             "sha256": hashlib.sha256(subject.path.read_bytes()).hexdigest(),
             "samples": len(subject.part), "steps": subject.data.steps, "classes": subject.data.classes,
             "labels": subject.part.labels.tolist(), "missing": [], **_description(subject)}
    runs, model["missing"][:] = all_runs(subject, effort.targets, effort.bits)
    if not runs:
        raise HardspikeError(f"{subject.path}: runs nowhere: {'; '.join(model['missing'])}")
    model["accuracy"] = accuracy_rows(subject, runs)
    model["runs"] = [{"mode": run.mode, "graph": run.graph, "differs": run.differs, "spikes": run.spikes,
                      "predictions": run.predictions} for run in runs]
    deployed = next((run for run in runs if run.mode.startswith("hard")), runs[0])
    model["confusion"] = {"mode": deployed.mode, "matrix": confusion(subject, deployed)}
    chip, files = _files(subject, runs, effort)
    sections: dict[str, Callable[[], object]] = {
        "membranes": lambda: membranes(subject, effort.observed),
        "sample": lambda: sample(subject),
        "corruptions": lambda: _corruptions(subject, files, effort),
        "operations": lambda: _operations(subject, files, effort),
        "energy": lambda: _energy(subject, files, effort),
        "cores": lambda: _cores(subject, chip or "loihi2", list(files.values())[-1]),
    }
    for name, compute in progress(sections.items(), label):
        try:
            model[name] = compute()
        except HardspikeError as error:
            model["missing"].append(f"{name.capitalize()}: {error}")
    model["missing"] += list(_absent(subject, effort))
    model["verdict"] = judge(model)
    return model


def _description(subject: Subject) -> dict:
    """What only a checkpoint knows of itself: its training."""
    if not isinstance(subject.content, Checkpoint):
        sizes = [value.size for node in subject.graph.nodes.values()
                 for value in (getattr(node, "weight", None), getattr(node, "bias", None)) if value is not None]
        return {"parameters": sum(sizes)}
    stored = subject.content
    return {"parameters": sum(parameter.numel() for parameter in stored.network.parameters()),
            "training": [{key: value for key, value in row.items() if not isinstance(value, dict)}
                         for row in stored.history],
            "epoch": stored.epoch, "trained_hard": trained_hard(stored),
            "theory": stored.diagnostics, "config": to_dict(stored.config)}


def _absent(subject: Subject, effort: Effort) -> Iterator[str]:
    """Sections that this kind of model cannot have."""
    if not isinstance(subject.content, Checkpoint):
        yield ("Training curves, configuration, transfer gap: a NIR graph does not hold them; give the run's folder or "
               "its checkpoint")
    if subject.chip:
        yield "Other bit widths: the graph is quantised already; give the float graph"
    if "lava" not in effort.targets:
        yield ("Lava, Intel's simulator: set up apart (`python -m targets setup lava`) and run with --targets "
               "reference,onnxruntime,loihi2,lava; the target loihi2 computes the same integers")


def _silent(command: Callable[..., list[dict]], *models: Path, **options) -> list[dict]:
    """The rows of an eval command, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return command(*models, **options)


def _files(subject: Subject, runs: list[Run], effort: Effort) -> tuple[str | None, dict[str, Path]]:
    """The first chip that holds the model, and the files to measure by what to add to their modes: the model itself,
    and its graph in integers for that chip."""
    chip = next((chip for run in runs if (chip := run.graph.split(",")[0]) in CHIPS), None)
    files = {"": subject.measured}
    if chip and not subject.chip:
        files[f"{effort.bits[0]} bits"] = subject.integer(chip, effort.bits[0])
    return chip, files


def _mode(word: str, mode: str) -> str:
    return f"{mode}, {word}" if word else mode


def _corruptions(subject: Subject, files: dict[str, Path], effort: Effort) -> dict:
    """Accuracy over severity and what is left out, with its reason: rows as `curves` gives them."""
    names = {str(path): word for word, path in files.items()}
    found = curves(*files.values(), samples=effort.corrupted, severities=effort.severities,
                   name=subject.config.name, path=subject.config.path)
    rows, left_out = ([{key: value for key, value in row.items() if key != "model"}
                       | {"mode": _mode(names[row["model"]], row["mode"])} for row in part]
                      for part in (found.rows, found.left_out))
    return {"rows": rows, "modes": list(dict.fromkeys(row["mode"] for row in rows)), "severities": found.severities,
            "samples": found.samples, "left_out": left_out,
            "units": {row["corruption"]: KNOWN[row["corruption"]].unit for row in rows}}


def _operations(subject: Subject, files: dict[str, Path], effort: Effort) -> dict:
    """Counts a recording, by layer: rows as `eval operations` gives them, divided by the recordings."""
    names = {str(path): word for word, path in files.items()}
    count = min(effort.counted, len(subject.data.test))
    rows = []
    for row in _silent(operations, *files.values(), samples=effort.counted, name=subject.config.name,
                       path=subject.config.path):
        if row["layer"] != "total":
            share = 1 if row["layer"] == "per sample" else count
            rows.append({"mode": _mode(names[row["model"]], row["mode"]),
                         **{key: value if value is None or key in ("layer", "neurons", "silent") else value / share
                            for key, value in row.items() if key not in ("model", "mode")}})
    return {"rows": rows, "samples": count}


def _energy(subject: Subject, files: dict[str, Path], effort: Effort) -> dict:
    """Energy a recording, term by term: rows as `eval energy` gives them.

    Each file is priced by the tables for its weights, and so is the ANN of its layers.
    """
    rows, about = [], {}
    for word, file in files.items():
        tables = [for_weights(file, load_table(name)) for name in PRICES]
        about |= {table.name: table.about for table in tables}
        found = _silent(energy, file, prices=",".join(table.name for table in tables),
                        ann=",".join(table.name for table in tables[1:]), samples=effort.counted,
                        name=subject.config.name, path=subject.config.path)
        rows += [{**{key: value for key, value in row.items() if key != "model"}, "run": _mode(word, row["run"])}
                 for row in found]
    return {"rows": rows, "samples": min(effort.counted, len(subject.data.test)), "about": about}


def _cores(subject: Subject, chip: str, file: Path) -> dict:
    """The graph on the cores of a chip, a picture of them, and what the chip does not hold.

    Of `file`: the integer graph, where there is one, is what runs there (pooling folded, shortcuts with weights).
    """
    if subject.graph is None:
        raise HardspikeError(subject.refused)
    limits = CHIPS[chip].LIMITS

    def compute() -> dict:
        graph, rows = open_graph(file), []
        mapping = map_graph(graph, limits)
        for layer, cores in mapping.cores.items():
            used = [usage(core, limits) for core in cores]
            rows.append({"layer": layer, "neurons": sum(core.neurons for core in cores),
                         "synapses": sum(core.synapse_count for core in cores), "cores": len(cores),
                         **{f"{key} %": 100 * max(each[key] for each in used) for key in used[0]}})
        errors = [violation for violation in rules.check(graph, limits)
                  if violation.severity == "error"] if chip_of(graph) else []
        return {"chip": limits.chip, "rows": rows, "cores": sum(row["cores"] for row in rows),
                "available": limits.cores.value, "picture": svg(mapping),
                "violations": list(dict.fromkeys(map(str, [*mapping.violations, *errors])))}

    return cached({"command": "report cores", "model": subject.path, "file": file, "chip": chip}, compute)
