"""Everything that the report says about one model, measured."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from eval.cache import cached
from eval.energy.measure import Energies, for_weights
from eval.energy.measure import measure as energy
from eval.energy.price_tables import chip_prices, load_table
from eval.neurobench import NeuroBench
from eval.neurobench import measure as neurobench
from eval.operations.measure import Operations
from eval.operations.measure import measure as operations
from eval.options import ALL, Effort, Stress, bit_widths, whole
from eval.report.answers import answers
from eval.report.example import example
from eval.report.finding import UNCHECKED, Cores, Excess, Finding, LayerCores, Training
from eval.report.layers import Layers
from eval.report.layers import measure as layer_by_layer
from eval.report.membranes import membranes
from eval.report.runs import Missing, Run, accuracies, all_runs, confusion, trained_hard
from eval.report.segments import segments
from eval.report.timing import Timing
from eval.report.timing import measure as timing
from eval.report.verdict import judge
from eval.robustness.measure import Robustness, severities_of
from eval.robustness.measure import measure as robustness
from eval.subject import Subject
from export.model import Model
from export.options import Quantisation
from hardspike import HardspikeError, UsageError, progress
from targets.chips import CHIPS, limits_of
from targets.limits import Limits
from targets.loihi.mapping import Excess as Broken
from targets.loihi.mapping import map_graph
from targets.loihi.picture import svg, usage
from targets.table import TARGETS, load_targets
from targets.target import Target
from trainer.config import to_dict

PRICES = ("synops_45nm", "horowitz45nm", "horowitz45nm_sram")
"""Tables that price any network, integers at the int8 ones; beside them stands the chip's own, where it has one."""
COUNTED = 64
"""Recordings whose operations are counted."""
OBSERVED = 128
"""Recordings whose membranes are looked at."""


def measure(subjects: list[Subject], labels: list[str], effort: Effort) -> list[Finding]:
    """All about one model, or about two to lay side by side; each on its recordings of the test part.

    Raises:
        UsageError: more than two models, unknown targets, numbers out of their range.
        HardspikeError: a model runs nowhere.
    """
    if not 1 <= len(subjects) <= 2:
        raise UsageError(f"{len(subjects)} models; a report is about one, or two side by side (`hardspike eval "
                         "accuracy` takes any number)")
    check(effort)
    return [_finding(subject, label, effort)
            for subject, label in progress(list(zip(subjects, labels, strict=True)), "report")]


def check(effort: Effort) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: an unknown target, or a number out of its range.
    """
    load_targets(effort.targets)
    bit_widths(effort.bits)
    severities_of(effort.severities)
    whole("samples", effort.samples, zero=ALL)
    whole("corrupted", effort.corrupted, zero=ALL)


def _finding(subject: Subject, label: str, effort: Effort) -> Finding:
    targets, bits, model = load_targets(effort.targets), bit_widths(effort.bits), subject.model
    runs, missing = all_runs(subject, targets, bits)
    if not runs:
        raise HardspikeError(f"{model.path}: runs nowhere: {'; '.join(map(str, missing))}")
    deployed = next((run for run in runs if run.mode.on_chip), None) or next(
        (run for run in runs if run.mode.target is None and not run.mode.smooth), runs[0])
    found = Finding(label, str(model.path), _kind(subject), model.key, subject.parameters, len(subject.part),
                    subject.data.steps, subject.data.classes,
                    [] if subject.part.masked else subject.labels.tolist(), subject.source, runs,
                    accuracies(subject, runs), deployed.mode, confusion(subject, deployed), missing,
                    _training(subject), counted=min(COUNTED, len(subject.data.test)),
                    recordings=subject.key["recordings"])
    chip, subjects = _deployed(subject, runs, bits)
    found.chip_graph = subjects[-1].model.key if len(subjects) > 1 else None
    sections: dict[str, Callable[[], object]] = {
        "membranes": lambda: membranes(subject, OBSERVED),
        "segments": lambda: segments(subject),
        "example": lambda: example(subject),
        "corruptions": lambda: _corruptions(subjects, effort),
        "operations": lambda: _operations(subjects),
        "energy": lambda: _energy(subjects, chip, found.missing),
        "cores": lambda: _cores(subjects[-1], chip or CHIPS["loihi2"]),
        "layers": lambda: _layers(subjects[-1], effort),
        "margins": lambda: membranes(_graph(subjects[-1]), OBSERVED),
        "timings": lambda: _timings(subjects[-1], targets),
        "neurobench": lambda: _neurobench(subjects, found),
    }
    for name, compute in progress(sections.items(), label):
        try:
            setattr(found, name, compute())
        except HardspikeError as error:
            found.missing.append(Missing(name.capitalize(), str(error)))
    found.missing += _absent(subject, targets, chip)
    found.verdict = replace(judge(found), answers=answers(found))
    return found


def _kind(subject: Subject) -> str:
    if subject.model.checkpoint:
        return "checkpoint"
    return f"graph quantised for {subject.model.chip.name}" if subject.model.chip else "float graph"


def _training(subject: Subject) -> Training | None:
    stored = subject.model.checkpoint
    if stored is None:
        return None
    history = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in stored.history]
    return Training(history, stored.epoch, trained_hard(stored), stored.diagnostics, to_dict(stored.config))


def _absent(subject: Subject, targets: list[Target], chip: Target | None) -> Iterator[Missing]:
    """Sections that this kind of model cannot have."""
    if not subject.model.checkpoint:
        yield Missing("Training curves, configuration, transfer gap",
                      "a NIR graph does not hold them; give the run's folder or its checkpoint")
    if subject.model.chip:
        yield Missing("Other bit widths", "the graph is quantised already; give the float graph")
    for target in TARGETS.values():
        if target.setup and target not in targets:
            names = ",".join(one.name for one in (*targets, target))
            yield Missing(f"{target.name.capitalize()}, the chip's own simulator",
                          f"set up apart (`hardspike targets setup {target.name}`) and run with --targets {names}"
                          + (f"; the target {chip.name} computes the same integers" if chip and chip.like_lava else ""))


def _deployed(subject: Subject, runs: list[Run], bits: list[int]) -> tuple[Target | None, list[Subject]]:
    """The first chip that holds the model, and what is measured further: the model itself, and where it is one of
    floats its graph in integers for that chip."""
    chip = next((CHIPS[run.mode.chip] for run in runs if run.mode.chip and run.mode.on_chip), None)
    if chip is None or subject.model.chip:
        return chip, [subject]
    return chip, [subject, subject.quantised(Quantisation(chip.name, bits[0]))]


def _on(subjects: list[Subject], samples: int) -> list[Subject]:
    """The same models on recordings of the test part, evenly spread."""
    part = subjects[0].data.test.spread(samples)
    return [subject.on(part) for subject in subjects]


def _corruptions(subjects: list[Subject], effort: Effort) -> Robustness:
    return robustness(_on(subjects, effort.corrupted), Stress(severities=effort.severities))


def _operations(subjects: list[Subject]) -> list[Operations]:
    return operations(_on(subjects, COUNTED))


def _energy(subjects: list[Subject], chip: Target | None, missing: list[Missing]) -> Energies:
    """Each model is priced by the tables for its weights, and so is the ANN of its layers; on a chip whose prices were
    published by those, too. Why those give no total goes to `missing`."""
    found = Energies(samples=min(COUNTED, len(subjects[0].data.test)))
    own = chip_prices(chip)
    for subject in _on(subjects, COUNTED):
        tables = [for_weights(subject, load_table(name)) for name in PRICES]
        part = energy([subject], tables, tables[1:])
        if part.refused:
            raise HardspikeError("no total: " + "; ".join(part.refused))
        found.rows += part.rows
        if own and subject.model.chip:
            tables.append(own)
            part = energy([subject], [own], [])
            found.rows += part.rows
            missing += [Missing(f"Energy by the table {own.name}", reason.removeprefix(f"{subject.model.path} "))
                        for reason in part.refused]
        found.tables += [table for table in tables if table not in found.tables]
    return found


def _graph(subject: Subject) -> Subject:
    """The same recordings and the graph that is deployed: of a checkpoint without a chip, what NIR makes of it.

    Raises:
        HardspikeError: NIR cannot hold the network.
    """
    model = subject.model
    return replace(subject, model=Model(model.path, given=model.graph)) if model.checkpoint else subject


def _layers(subject: Subject, effort: Effort) -> Layers:
    graph = _graph(subject)
    run, = operations(_on([graph], COUNTED))
    return layer_by_layer(_on([graph], effort.corrupted)[0], run,
                          [for_weights(graph, load_table(name)) for name in PRICES])


def _timings(subject: Subject, targets: list[Target]) -> list[Timing]:
    """The deployed graph on its chip, and on those of `targets` that run it without being set up apart."""
    graph = _graph(subject)
    found = graph.modes([target for target in targets if not target.setup])
    return timing(graph, [mode for mode in found if not TARGETS[f"{mode.target}"].setup])


def _neurobench(subjects: list[Subject], found: Finding) -> list[NeuroBench]:
    """Of every run whose operations were counted."""
    rows = []
    for subject in subjects:
        for run in operations(_on([subject], COUNTED)):
            accuracy = next((row.accuracy for row in found.accuracy if row.mode == run.mode), None)
            rows.append(neurobench(subject, run, accuracy))
    return rows


def _cores(subject: Subject, chip: Target) -> Cores:
    """The graph on the cores of a chip, a picture of them, and what the chip does not hold.

    Of the integer graph, where there is one: that is what runs there (pooling folded, shortcuts with weights).
    """
    model, limits = subject.model, limits_of(chip)
    if model.refused:
        raise HardspikeError(model.refused)

    def compute() -> dict:
        rows, mapping = [], map_graph(model.graph, limits)
        for layer, cores in mapping.cores.items():
            used = [usage(core, limits) for core in cores]
            rows.append(LayerCores(layer, sum(core.neurons for core in cores),
                                   sum(core.synapse_count for core in cores), len(cores),
                                   sum(core.synapse_bits for core in cores) / 8,
                                   max(core.synapse_bits for core in cores) / 8,
                                   {key: max(each[key] for each in used) for key in used[0]}))
        errors = [violation for violation in chip.check(model.graph)
                  if violation.severity == "error"] if model.chip else []
        return asdict(Cores(
            limits.chip, rows, limits.cores.value or 0, svg(mapping),
            list(dict.fromkeys(map(str, [*mapping.violations, *errors]))),
            [_excess(excess, limits) for excess in mapping.excesses],
            [words for name, words in UNCHECKED.items() if getattr(limits, name).value is None]))

    stored = cached({"command": "report cores", "model": subject.model_key, "chip": chip.name}, compute)
    return Cores(**{**stored, "layers": [LayerCores(**layer) for layer in stored["layers"]],
                    "excesses": [Excess(**excess) for excess in stored["excesses"]]})


def _excess(found: Broken, limits: Limits) -> Excess:
    """A broken limit as a headline has it: of the whole graph without a layer."""
    whole = found.limit in (limits.cores, limits.synapses)
    return Excess("" if whole else f"{found.layer} takes ", found.rule.split(" of the network")[0], found.value,
                  found.limit.known)
