"""Counted operations times a table of prices, beside the equivalent ANN.

A table prices a counted term or says why it leaves it out; while a term has neither, there is no total. The equivalent
ANN has the same linear layers, dense, passed once a sample instead of once a step. Memory is counted without any reuse:
an event reads a weight and reads and writes a membrane for each of its synapses, an update reads and writes a membrane;
a MAC of the ANN reads a weight and an activation, and each result is written once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from eval.energy.price_tables import OTHER_WAYS, PriceTable, load_table
from eval.energy.sana_fe import Simulation, simulate
from eval.mode import Mode, words
from eval.operations.measure import Operations
from eval.operations.measure import measure as count
from eval.options import whole
from eval.subject import Subject, weight_bits
from hardspike import UsageError, versions
from targets.chips import CHIPS, limits_of
from targets.table import TARGETS

NANO = 1e9
TOTAL = "total"
"""What the sum of the terms is called."""


@dataclass(frozen=True)
class Energy:
    """One counted term of one run, or the total.

    Args:
        model: its file.
        mode: what ran; None: the ANN of the model's layers, in one pass.
        simulator: that gave the energy, beside the price tables; None: a price table did.
        table: of prices, by name.
        term: of `price_tables.TERMS`, `total`, or a part of the simulated chip.
        count: a sample; None where it was not counted.
        price: with its unit, where there is one.
        nanojoules: a sample.
        evidence: of the price.
        source: of the price, or the reason why there is none.
        bits: of a weight, where the model was quantised for this.
    """

    model: Path
    mode: Mode | None
    simulator: str | None
    table: str
    term: str
    count: float | None = None
    price: str | None = None
    nanojoules: float | None = None
    evidence: str | None = None
    source: str | None = None
    bits: int | None = None


@dataclass
class Energies:
    """All of it.

    Args:
        rows: one a model, table and term, and the totals.
        tables: used.
        simulated: each model's simulation in SANA-FE, where there was one.
        notes: where a model is priced as what it is not.
        refused: why there is no total.
        samples: recordings.
    """

    rows: list[Energy] = field(default_factory=list)
    tables: list[PriceTable] = field(default_factory=list)
    simulated: list[tuple[Path, Simulation]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    samples: int = 0


def measure(subjects: list[Subject], tables: list[PriceTable], ann: list[PriceTable], sanafe: int = 0) -> Energies:
    """Energy a sample of every model, by every table.

    Args:
        tables: of the network; prices of a chip need graphs that can be mapped to it.
        ann: of the equivalent ANN.
        sanafe: also simulate so many of the samples in SANA-FE, on graphs quantised for Loihi 1.

    Raises:
        UsageError: no table, a checkpoint for a chip's.
        HardspikeError: a target refuses a graph; SANA-FE is asked for and absent.
    """
    if not tables:
        raise UsageError("prices: name a table, such as horowitz45nm")
    whole("sanafe", sanafe, zero="0 (none)")
    found = Energies(tables=list({table.name: table for table in (*tables, *ann)}.values()),
                     samples=len(subjects[0].part))
    for subject in subjects:
        for table in tables:
            _price(subject, table, found)
        run = count([subject])[0]
        for table in ann:
            head = Energy(subject.model.path, None, None, table.name, "", bits=subject.bits)
            found.rows += _priced(head, ann_terms(run), table, found.refused)
        if sanafe:
            simulation = simulate(subject.model.graph, subject.frames[:, :sanafe])
            found.simulated.append((subject.model.path, simulation))
            found.rows += _simulated(subject.model.path, simulation)
    for subject in subjects:
        for table in tables:
            found.notes += _notes(subject, table)
    return found


def _counted(run: Operations, table: PriceTable) -> dict[str, int | None]:
    """Counts of a run, all samples together, that a table is asked to price."""
    if table.chip:
        return chip_terms(run)
    return {term: count for term, count in terms(run).items()
            if term not in OTHER_WAYS or term in table.prices or term in table.excluded}


def _price(subject: Subject, table: PriceTable, found: Energies) -> None:
    """The rows of one model by one table."""
    if table.chip and subject.model.checkpoint:
        raise UsageError(f"{subject.model.path}: prices of {table.name} need a graph mapped to its cores; give the "
                         f".nir file of `hardspike export quantise --target {table.chip}`")
    run = count([subject], chip=CHIPS[table.chip] if table.chip else None)[0]
    counted = _counted(run, table)
    found.rows += _priced(Energy(subject.model.path, run.mode, None, table.name, ""),
                          {term: None if number is None else number / run.counts.samples
                           for term, number in counted.items()}, table, found.refused)


def total(run: Operations, table: PriceTable) -> float | None:
    """nJ a sample by one table; None where a counted term has no price there."""
    counted = _counted(run, table)
    rows = _priced(Energy(run.model, run.mode, None, table.name, ""),
                   {term: None if number is None else number / run.counts.samples for term, number in counted.items()},
                   table, [])
    return rows[-1].nanojoules


def run_words(row: Energy) -> str:
    """What ran, in words, for tables and sentences."""
    if row.simulator:
        return f"SNN, {row.simulator}"
    if row.mode:
        return f"SNN, {words(row.mode)}"
    return "ANN, one pass" + (f", {row.bits} bits" if row.bits else "")


def terms(run: Operations) -> dict[str, int]:
    """Counts of a run, all samples together, under the names that price tables use."""
    synops, updates = run.counts.total("synops"), run.counts.total("updates")
    encoding = [layer for layer in run.counts.synapses if layer.encodes]
    return {"synops": synops, "macs": run.counts.total("macs"), "acs": run.counts.total("acs"), "updates": updates,
            "reads": 2 * synops + updates, "writes": synops + updates,
            "input_macs": sum(layer.dense for layer in encoding),
            "spike_synops": synops - sum(layer.synops for layer in encoding)}


def chip_terms(run: Operations) -> dict[str, int | None]:
    """Counts of a mapped run: what its cores do apart from the readout of the host; None for hops without a plan."""
    mapped = {entry.layer for entry in run.traffic}
    inside = [entry for entry in run.traffic if not entry.from_host]
    ways = [entry.hops for entry in inside if entry.hops]
    hops = [sum(way[axis] for way in ways) if len(ways) == len(inside) else None for axis in (0, 1)]
    return {"synops": sum(layer.synops for layer in run.counts.synapses if layer.layer in mapped),
            "host_synops": sum(layer.synops for layer in run.counts.synapses if layer.layer not in mapped),
            "updates": run.counts.total("updates"),
            "input_messages": sum(entry.messages for entry in run.traffic if entry.from_host),
            "messages": sum(entry.messages for entry in inside), "hops_ew": hops[0], "hops_ns": hops[1]}


def ann_terms(run: Operations) -> dict[str, int]:
    """What an ANN of the same linear layers does for one sample: dense, one pass."""
    macs = run.counts.total("synapses")
    return {"macs": macs, "reads": 2 * macs, "writes": run.counts.total("outputs")}


def _priced(head: Energy, counts: Mapping[str, float | None], table: PriceTable, refused: list[str]) -> list[Energy]:
    """Rows of one run, each as `head`; what keeps it from a total goes to `refused`."""
    rows, missing = [], []
    for term, number in counts.items():
        price = table.prices.get(term)
        row = replace(head, term=term, count=number)
        if price and number is not None:
            row = replace(row, price=f"{price.value:g} {price.unit}", nanojoules=number * price.joules * NANO,
                          evidence=price.evidence, source=price.source)
        elif term in table.excluded:
            row = replace(row, evidence="left out", source=table.excluded[term])
        elif price:
            missing.append(f"{term} (priced, but not counted: no public floor plan, or more than one chip)")
        elif number is None or number:
            missing.append(term)
        rows.append(row)
    priced = [row for row in rows if row.nanojoules is not None]
    label = f"{head.model} ({run_words(head)}): table {table.name}"
    if missing:
        refused.append(f"{label} has no price for {', '.join(missing)}; add one with its source, or exclude it with "
                       "the reason")
    elif not priced:
        refused.append(f"{label} leaves out all that was counted ({', '.join(counts)}); price one of them")
    total = sum(row.nanojoules or 0.0 for row in priced) if priced and not missing else None
    evidence = ", ".join(dict.fromkeys(f"{row.evidence}" for row in priced))
    return [*rows, replace(head, term=TOTAL, nanojoules=total, evidence=evidence or None,
                           source="refused: unpriced terms" if total is None else None)]


def _simulated(model: Path, found: Simulation) -> list[Energy]:
    """Rows of a simulation: energy by part of the chip."""
    source = f"SANA-FE {versions('sanafe')['sanafe']}, loihi.yaml: fitted to Loihi 1"
    return [Energy(model, None, "SANA-FE", "SANA-FE", part, nanojoules=joules / found.samples * NANO,
                   evidence="simulated", source=source) for part, joules in sorted(
                       found.joules.items(), key=lambda item: item[0] == TOTAL)]


def for_weights(subject: Subject, table: PriceTable) -> PriceTable:
    """`table`, or that of the same source for integers where the weights of a graph have 8 bits or fewer."""
    return load_table(table.int8) if table.int8 and (weight_bits(subject.model) or 32) <= 8 else table


def _notes(subject: Subject, table: PriceTable) -> list[str]:
    """Where a graph is priced on a chip that could not run it, or its integers at the price of floats."""
    found, path = [], subject.model.path
    if (fitting := for_weights(subject, table)) is not table:
        found.append(f"{path}: has weights of 8 bits or fewer; {table.name} prices floats, --prices {fitting.name} "
                     "integers")
    if table.chip:
        chip = TARGETS[table.chip]
        broken = [v for v in chip.check(subject.model.graph) if v.severity == "error"]
        if broken:
            found.append(f"{path} breaks {len(broken)} rules of {limits_of(chip).chip}, so its energy there is a "
                         f"what-if: {broken[0]}")
    return found
