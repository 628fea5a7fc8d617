"""`python -m eval energy`: counted operations times a table of prices, beside the equivalent ANN."""

from dataclasses import asdict
from pathlib import Path

from eval.energy.price_tables import PriceTable, load_table
from eval.energy.sana_fe import Simulation, simulate
from eval.models import open_model, weight_bits
from eval.operations.command import Run, recordings, runs
from export.formats.integers import CHIPS
from export.formats.nir import open_graph
from hardspike import HardspikeError, UsageError, print_table, versions
from targets.loihi import rules

NANO = 1e9


def energy(*models: Path, prices: str = "horowitz45nm", ann: str = "horowitz45nm,horowitz45nm_sram",
           split: str = "test", samples: int = 64, name: str | None = None, path: Path | None = None,
           sanafe: int = 0, json: Path | None = None, csv: Path | None = None) -> list[dict]:
    """Energy a sample: counts of `python -m eval operations` times a price table, every price with its evidence.

    A table prices a counted term or says why it leaves it out; while a term has neither, there is no total. Tables:
    synops_45nm (the papers' convention), horowitz45nm, horowitz45nm_int8 (arithmetic), the same with _sram (and data
    movement), loihi1, loihi2 (nothing was published), truenorth, spinnaker2, or a .yaml file of your own.

    Beside it stands the equivalent ANN: the same linear layers, dense, passed once a sample instead of once a step.
    Memory is counted without any reuse: an event reads a weight and reads and writes a membrane for each of its
    synapses, an update reads and writes a membrane; a MAC of the ANN reads a weight and an activation, and each result
    is written once.

    Args:
        models: checkpoints (.pt) and graphs (.nir); prices of a chip need graphs that can be mapped to it
        prices: table names or .yaml files joined by commas
        ann: tables for the equivalent ANN, joined by commas
        split: train, validation or test
        samples: recordings, spread over the split; 0 for all
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        sanafe: also simulate so many of the samples, on graphs quantised for Loihi 1, in SANA-FE (needs the extra
            `energy`; seconds a sample), for energy and time with its own prices
        json: file for the table
        csv: file for the table

    Returns:
        one row a model, table and term, and the totals.

    Raises:
        HardspikeError: a counted term has no price; what has one is printed first.
    """
    tables, ann_tables = ([load_table(word.strip()) for word in words.split(",") if word.strip()]
                          for words in (prices, ann))
    if not tables:
        raise UsageError("prices: name a table, such as horowitz45nm")
    if sanafe < 0:
        raise UsageError(f"sanafe {sanafe}: how many samples to simulate, 0 or more")
    frames, title = recordings(models, split, samples, name, path)
    rows, refused, simulated = [], [], []
    for model in models:
        for table in tables:
            if table.chip and model.suffix == ".pt":
                raise UsageError(f"{model}: prices of {table.name} need a graph mapped to its cores; give the .nir "
                                 f"file of `python -m export quantise --target {table.chip}`")
            run = runs(model, frames, chip=table.chip)[0]
            head = {"model": str(model), "run": f"SNN, {run.mode}", "prices": table.name}
            counted = chip_terms(run) if table.chip else terms(run)
            rows += _priced(head, {term: None if count is None else count / run.counts.samples
                                   for term, count in counted.items()}, table, refused)
        for table in ann_tables:
            rows += _priced({"model": str(model), "run": "ANN, one pass", "prices": table.name}, ann_terms(run), table,
                            refused)
        if sanafe:
            found = simulate(open_graph(model), frames[:, :sanafe])
            simulated.append(f"{model} in SANA-FE: {found.seconds / found.samples * 1e6:.3g} us a sample of "
                             f"{found.steps} steps, {found.samples} samples; {found.differing} of {found.spikes} "
                             "spikes differ from the target loihi1's")
            rows += _simulated(str(model), found)
    print_table(rows, f"{title}: energy a sample", json, {"samples": frames.shape[1], "tables": {
        table.name: asdict(table) for table in (*tables, *ann_tables)}, "refused": refused}, csv)
    for label, about in {table.name: table.about for table in (*tables, *ann_tables)}.items():
        print(f"{label}: {about}")
    for line in simulated:
        print(line)
    for model in models:
        for table in tables:
            _warn(model, table)
    if refused:
        raise HardspikeError("no total: " + "; ".join(refused))
    return rows


def terms(run: Run) -> dict[str, int]:
    """Counts of a run, all samples together, under the names that price tables use."""
    synops, updates = run.counts.total("synops"), run.counts.total("updates")
    return {"synops": synops, "macs": run.counts.total("macs"), "acs": run.counts.total("acs"), "updates": updates,
            "reads": 2 * synops + updates, "writes": synops + updates}


def chip_terms(run: Run) -> dict[str, int | None]:
    """Counts of a mapped run: what its cores do apart from the readout of the host; None for hops without a plan."""
    mapped = {entry.layer for entry in run.traffic}
    inside = [entry for entry in run.traffic if not entry.from_host]
    hops = [sum(entry.hops[axis] for entry in inside) if all(entry.hops for entry in inside) else None
            for axis in (0, 1)]
    return {"synops": sum(layer.synops for layer in run.counts.synapses if layer.layer in mapped),
            "host_synops": sum(layer.synops for layer in run.counts.synapses if layer.layer not in mapped),
            "updates": run.counts.total("updates"),
            "input_messages": sum(entry.messages for entry in run.traffic if entry.from_host),
            "messages": sum(entry.messages for entry in inside), "hops_ew": hops[0], "hops_ns": hops[1]}


def ann_terms(run: Run) -> dict[str, int]:
    """What an ANN of the same linear layers does for one sample: dense, one pass."""
    macs = run.counts.total("synapses")
    return {"macs": macs, "reads": 2 * macs, "writes": run.counts.total("outputs")}


def _priced(head: dict, counts: dict[str, float | None], table: PriceTable, refused: list[str]) -> list[dict]:
    """Rows of one run; what keeps it from a total goes to `refused`."""
    rows, missing = [], []
    for term, count in counts.items():
        price = table.prices.get(term)
        row = {**head, "term": term, "a sample": count, "price": None, "energy nJ": None, "evidence": None,
               "source": None}
        if price and count is not None:
            row |= {"price": f"{price.value:g} {price.unit}", "energy nJ": count * price.joules * NANO,
                    "evidence": price.evidence, "source": price.source}
        elif term in table.excluded:
            row |= {"evidence": "left out", "source": table.excluded[term]}
        elif price:
            missing.append(f"{term} (priced, but not counted: no public floor plan, or more than one chip)")
        elif count is None or count:
            missing.append(term)
        rows.append(row)
    priced = [row["energy nJ"] for row in rows if row["energy nJ"] is not None]
    label = f"{head['model']} ({head['run']}): table {table.name}"
    if missing:
        refused.append(f"{label} has no price for {', '.join(missing)}; add one with its source, or exclude it with "
                       "the reason")
    elif not priced:
        refused.append(f"{label} leaves out all that was counted ({', '.join(counts)}); price one of them")
    total = sum(priced) if priced and not missing else None
    evidence = ", ".join(dict.fromkeys(row["evidence"] for row in rows if row["energy nJ"] is not None))
    return [*rows, {**head, "term": "total", "a sample": None, "price": None, "energy nJ": total,
                    "evidence": evidence or None, "source": "refused: unpriced terms" if total is None else None}]


def _simulated(model: str, found: Simulation) -> list[dict]:
    """Rows of a simulation: energy by part of the chip."""
    head = {"model": model, "run": "SNN, SANA-FE", "prices": "SANA-FE"}
    source = f"SANA-FE {versions('sanafe')['sanafe']}, loihi.yaml: fitted to Loihi 1"
    return [{**head, "term": part, "a sample": None, "price": None, "energy nJ": joules / found.samples * NANO,
             "evidence": "simulated", "source": source} for part, joules in sorted(
                 found.joules.items(), key=lambda item: item[0] == "total")]


def for_weights(model: Path, table: PriceTable) -> PriceTable:
    """`table`, or that of the same source for integers where the weights of a graph have 8 bits or fewer."""
    return load_table(table.int8) if table.int8 and (weight_bits(open_model(model)) or 32) <= 8 else table


def _warn(model: Path, table: PriceTable) -> None:
    """Say where a graph is priced on a chip that could not run it, or its integers at the price of floats."""
    if (fitting := for_weights(model, table)) is not table:
        print(f"{model}: has weights of 8 bits or fewer; {table.name} prices floats, --prices {fitting.name} integers")
    if table.chip:
        limits = CHIPS[table.chip].LIMITS
        broken = [v for v in rules.check(open_graph(model), limits) if v.severity == "error"]
        if broken:
            print(f"{model} breaks {len(broken)} rules of {limits.chip}, so its energy there is a what-if: {broken[0]}")
