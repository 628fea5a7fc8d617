"""Rows of numbers as the report shows them, and as CSV."""

from pathlib import Path

from hardspike import tables as table

NONE = "–"

POINTS, COUNT, SMALL = "{:+.1f}", "{:,.0f}", "{:.3g}"
COLUMNS = {
    "accuracy": {"mode": ("mode", ""), "accuracy %": ("accuracy %", "{:.1f}"), "low %": ("from", "{:.1f}"),
                 "high %": ("to", "{:.1f}"), "change": ("change", POINTS), "lost": ("lost", "{}"), "won": ("won", "{}"),
                 "p": ("p", "{:.2g}"), "spikes": ("spikes", COUNT), "epoch": ("epoch", "{}")},
    "membranes": {"layer": ("layer", ""), "neurons": ("neurons", COUNT), "rate surrogate": ("rate, smooth", SMALL),
                  "rate": ("rate, hard", SMALL), "silent %": ("silent %", "{:.1f}"), "near %": ("near %", "{:.1f}"),
                  "beyond %": ("beyond %", "{:.1f}"),
                  "in zone %": ("in between %", "{:.1f}"), "|phi-H|": ("|φ − H|", SMALL),
                  "phi at rest": ("φ at rest", SMALL)},
    "segments": {"mode": ("mode", ""), "mIoU %": ("mIoU %", "{:.1f}"), "mIoU low %": ("from", "{:.1f}"),
                 "mIoU high %": ("to", "{:.1f}")},
    "corruptions": {"corruption": ("corruption", ""), "mode": ("mode", "")},
    "operations": {"mode": ("mode", ""), "layer": ("layer", ""), "neurons": ("neurons", COUNT),
                   "spikes": ("spikes", COUNT), "silent": ("silent neurons", COUNT), "updates": ("updates", COUNT),
                   "events": ("events", COUNT), "synops": ("SynOps", COUNT), "macs": ("MACs", COUNT),
                   "acs": ("ACs", COUNT), "dense": ("dense", COUNT), "messages": ("messages", COUNT),
                   "hops": ("hops", COUNT)},
    "totals": {"run": ("run", ""), "prices": ("prices", ""), "energy nJ": ("energy (nJ)", "{:,.0f}"),
               "evidence": ("evidence", "")},
    "energy": {"run": ("run", ""), "prices": ("prices", ""), "term": ("term", ""), "a sample": ("a recording", COUNT),
               "price": ("price", ""), "energy nJ": ("energy (nJ)", "{:,.1f}"), "evidence": ("evidence", ""),
               "source": ("source", "")},
    "cores": {"layer": ("layer", ""), "neurons": ("neurons", COUNT), "synapses": ("synapses", COUNT),
              "cores": ("cores", COUNT), "memory": ("synapses (bytes)", COUNT),
              "fullest core": ("fullest core (bytes)", COUNT)},
    "layers": {"layer": ("layer", ""), "neurons": ("neurons", COUNT), "spikes": ("spikes", COUNT),
               "synops": ("SynOps", COUNT)},
    "timing": {"mode": ("run", ""), "median": ("median (ms)", SMALL), "mean": ("mean (ms)", SMALL),
               "p99": ("p99 (ms)", SMALL), "throughput": ("recordings / s", COUNT)},
    "neurobench": {"metric": ("metric", "")},
    "scores": {"class": ("class", "{}"), "score": ("score", SMALL)},
    "sample": {"layer": ("layer", ""), "neurons": ("neurons", COUNT), "total": ("spikes", COUNT)},
    "training": {"epoch": ("epoch", "{}"), "train_loss": ("loss", SMALL), "surrogate_accuracy": ("surrogate", "{:.3f}"),
                 "hard_accuracy": ("hard", "{:.3f}"), "spikes_per_sample": ("spikes", COUNT),
                 "slope": ("slope", SMALL), "train_seconds": ("seconds", "{:.1f}")},
}
"""Table -> key of a row -> heading and format; without a format it is text. Columns without a number are left out."""


def shown(name: str, rows: list[dict], extra: dict[str, tuple[str, str]] | None = None,
          strong: tuple[str, ...] = ()) -> dict:
    """A table for the page: headings, and cells as text.

    Args:
        name: which of `COLUMNS`.
        rows: dicts with those keys, as far as there are any.
        extra: more columns.
        strong: contents of a cell that make its row stand out.
    """
    columns = {key: column for key, column in {**COLUMNS.get(name, {}), **(extra or {})}.items()
               if any(row.get(key) is not None for row in rows)}
    cells = [[_cell(row.get(key), form) for key, (_, form) in columns.items()] for row in rows]
    return {"columns": [{"title": title, "number": bool(form)} for title, form in columns.values()],
            "rows": [{"cells": line, "strong": any(word in line for word in strong)} for line in cells]}


def _cell(value, form: str) -> str:
    if value is None:
        return NONE
    text = form.format(value) if form else str(value)
    return text.replace("-", "−") if form else text


def write_csv(folder: Path, models: list[dict]) -> None:
    """Every table of a report, unrounded, as FOLDER/TABLE.csv with the model in front."""
    places = {"accuracy": lambda m: m["accuracy"], "membranes": lambda m: m["membranes"],
              "corruptions": lambda m: m["corruptions"]["rows"], "operations": lambda m: m["operations"]["rows"],
              "energy": lambda m: m["energy"]["rows"], "cores": lambda m: m["cores"]["rows"],
              "training": lambda m: m["training"], "layers": lambda m: m["layers"]["rows"],
              "segments": lambda m: m["segments"]["rows"],
              "timing": lambda m: m["timing"], "neurobench": lambda m: m["neurobench"],
              "parity": lambda m: [{"mode": run["mode"], **run["differs"]} for run in m["runs"]],
              "confusion": lambda m: [{"class": index, **dict(enumerate(row))}
                                      for index, row in enumerate(m["confusion"]["matrix"])]}
    for name, place in places.items():
        rows = [{"model": model["label"], **row} for model in models if name in model or name == "parity"
                for row in place(model)]
        if rows:
            table.write_csv(folder / f"{name}.csv", [
                {key: value for key, value in row.items() if not isinstance(value, list)} for row in rows])
