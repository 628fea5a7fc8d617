"""Price tables: what a counted term costs, one YAML file a table in `prices/`, every price with its evidence."""

import math
from dataclasses import dataclass
from pathlib import Path

from hardspike import HardspikeError, UsageError, nearest, read_yaml, words
from targets.chips import CHIPS
from targets.target import Target

FOLDER = Path(__file__).parent / "prices"
TERMS = {
    "synops": "events times fan-out",
    "macs": "effective multiply-accumulates",
    "acs": "effective accumulates",
    "updates": "neurons times steps",
    "reads": "words read from memory",
    "writes": "words written to memory",
    "host_synops": "synops of the readout that the host computes (chips only)",
    "input_messages": "input events times the cores that they reach (chips only)",
    "messages": "spikes times the cores that they reach (chips only)",
    "hops_ew": "east-west steps of messages between tiles (chips only)",
    "hops_ns": "north-south steps of messages between tiles (chips only)",
}
OTHER_WAYS = {
    "input_macs": "multiply-accumulates, dense, of layers that read an input of other values than -1, 0 and 1",
    "spike_synops": "synops of all other layers",
}
"""What synops, macs and acs count, counted otherwise: only for tables that name them."""
EVIDENCE = {
    "measured": "on silicon",
    "simulated": "before silicon",
    "stated": "by the vendor, without how",
    "estimated": "from arithmetic or a rule of thumb",
}
JOULES = {"fJ": 1e-15, "pJ": 1e-12, "nJ": 1e-9}
_KNOWN = {*TERMS, *OTHER_WAYS}
_HINT = ", ".join([*TERMS, *OTHER_WAYS])


@dataclass(frozen=True)
class Price:
    """What one of a term costs; `evidence` is a key of EVIDENCE."""

    value: float
    unit: str
    source: str
    evidence: str

    @property
    def joules(self) -> float:
        """The price in J."""
        return self.value * JOULES[self.unit]


@dataclass(frozen=True)
class PriceTable:
    """Prices by term, and the terms that are left out on purpose, with the reason.

    `chip`: the graph is mapped to its cores, and messages and hops are counted as well. `int8`: the table of the same
    source for weights of at most 8 bits.
    """

    name: str
    about: str
    prices: dict[str, Price]
    excluded: dict[str, str]
    chip: str | None = None
    int8: str | None = None


def load_table(name: str) -> PriceTable:
    """A table of `prices/` by its name, or a YAML file of the same form by its path.

    Raises:
        UsageError: there is no such table.
        HardspikeError: the file is unreadable, or a key, term, unit or grade of evidence is unknown.
    """
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        raise UsageError(f"price table '{name}': no such table or file{nearest(name, known)}; known: "
                         f"{', '.join(known)}, or a .yaml file")
    content = _mapping(path, "table", read_yaml(path), {"about", "chip", "int8", "prices", "excluded"})
    chip = content.get("chip")
    if chip is not None and chip not in tuple(CHIPS):
        raise HardspikeError(f"{path}: chip '{chip}' is unknown; known: {', '.join(CHIPS)}")
    int8 = content.get("int8")
    if int8 is not None and not (FOLDER / f"{int8}.yaml").is_file():
        raise HardspikeError(f"{path}: int8 '{int8}' is no table of {FOLDER}")
    prices = {term: _price(f"{path}: {term}", value)
              for term, value in _mapping(path, "prices", content.get("prices") or {}, _KNOWN).items()}
    excluded = _mapping(path, "excluded", content.get("excluded") or {}, _KNOWN)
    for term, reason in excluded.items():
        if term in prices:
            raise HardspikeError(f"{path}: {term}: is priced and excluded; keep one")
        if not isinstance(reason, str) or not reason.strip():
            raise HardspikeError(f"{path}: {term}: is excluded without a reason; give one")
    return PriceTable(path.stem, " ".join(str(content.get("about", "")).split()), prices, excluded, chip, int8)


def load_tables(names: str) -> list[PriceTable]:
    """The tables of a comma-separated list, each once; see `load_table`."""
    return [load_table(word) for word in words(names)]


def chip_prices(chip: Target | None) -> PriceTable | None:
    """The table of a chip's own prices: the one that is called after its target; None where none were published."""
    if chip is None or not (FOLDER / f"{chip.name}.yaml").is_file():
        return None
    table = load_table(chip.name)
    return table if table.chip == chip.name and table.prices else None


def _mapping(path: Path, label: str, value, known: set[str]) -> dict:
    if not isinstance(value, dict):
        raise HardspikeError(f"{path}: {label} holds no keys and values; known keys: {', '.join(sorted(known))}")
    for key in value:
        if key not in known:
            raise HardspikeError(f"{path}: {label}: '{key}' is unknown{nearest(str(key), known)}; known: "
                                 f"{_HINT if known == _KNOWN else ', '.join(sorted(known))}")
    return value


def _price(label: str, value) -> Price:
    if not isinstance(value, dict) or set(value) != {"value", "unit", "source", "evidence"}:
        raise HardspikeError(f"{label}: a price has value, unit, source and evidence, all of them")
    number = _number(value["value"])
    if not math.isfinite(number) or number < 0:
        raise HardspikeError(f"{label}: value {value['value']} is no finite number of 0 or more")
    for key, known in (("unit", JOULES), ("evidence", EVIDENCE)):
        if value[key] not in tuple(known):  # a list has no hash
            raise HardspikeError(f"{label}: {key} '{value[key]}' is unknown; known: {', '.join(known)}")
    if not isinstance(value["source"], str) or not value["source"].strip():
        raise HardspikeError(f"{label}: has no source; say where the number is from")
    return Price(number, value["unit"], value["source"], value["evidence"])


def _number(value) -> float:
    """`value` as a float, `1e-3` too, which YAML 1.1 takes for text; NaN for what is no number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
