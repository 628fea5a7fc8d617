"""The sections of the report's page on what a network costs: operations, energy, cores, time."""

from collections.abc import Iterable

from eval.report import figures
from eval.report.blocks import split, svg
from eval.report.tables import shown

NEUROBENCH = (("Footprint (bytes)", "footprint", "{:,}"), ("ConnectionSparsity", "connection_sparsity", "{:.3f}"),
              ("ClassificationAccuracy", "accuracy", "{:.3f}"), ("ActivationSparsity", "activation_sparsity", "{:.3f}"),
              ("SynapticOperations, Dense", "dense", "{:,.0f}"),
              ("SynapticOperations, Effective_MACs", "macs", "{:,.0f}"),
              ("SynapticOperations, Effective_ACs", "acs", "{:,.0f}"), ("MembraneUpdates", "updates", "{:,.0f}"))
"""NeuroBench's name -> ours, and how it is written."""


def neurobench(number: int, found: list[dict]) -> list[dict]:
    rows = [{"metric": metric, **{run["mode"]: None if run[key] is None else form.format(run[key]) for run in found}}
            for metric, key, form in NEUROBENCH]
    return [{"table": shown("neurobench", rows, {run["mode"]: (run["mode"], "{}") for run in found})}]


def _timing(number: int, found: list[dict]) -> list[dict]:
    first = found[0]
    return [{"text": f"{first['machine']}, {first['threads']} thread{'s' * (first['threads'] != 1)}; {first['runs']} "
                     f"runs of one recording of {first['steps']} steps, then {first['samples']} recordings at once; "
                     f"{first['made']}.",
             "table": shown("timing", found)}]


def timings(models: list[dict]) -> list[dict]:
    """Times of all models; where they were taken at different times, that they do not compare."""
    blocks = split(models, "timing", _timing)
    made = {model["timing"][0]["made"] for model in models if model.get("timing")}
    return [*blocks, {"note": "The two were timed at different times, so between them these times do not compare."}] \
        if len(made) > 1 else blocks


def operations(models: list[dict]) -> list[dict]:
    bars = {number: [(mode, [(row["layer"], row["synops"] / 1000) for row in model["operations"]["rows"]
                             if row["mode"] == mode and row["synops"] is not None and row["layer"] != "per sample"])
                     for mode in dict.fromkeys(row["mode"] for row in model["operations"]["rows"])]
            for number, model in enumerate(models, 1) if model.get("operations")}
    most = _largest(rows for pictures in bars.values() for _, rows in pictures)

    def parts(number: int, found: dict) -> list[dict]:
        pictures = [figures.bars(f"operations{number}-{place}", mode.capitalize(), "SynOps a recording (thousands)",
                                 rows, number, most) for place, (mode, rows) in enumerate(bars[number])]
        return [{"figures": [svg(picture) for picture in pictures], "text": f"Mean of {found['samples']} recordings."},
                {"summary": "All counts, a recording", "details": shown("operations", found["rows"],
                                                                        strong=("per sample",))}]

    return split(models, "operations", parts)


def _largest(pictures: Iterable[list[tuple[str, float]]]) -> float | None:
    """The end of the axis that pictures of bars share."""
    return max((value for rows in pictures for _, value in rows), default=None)


def energy(models: list[dict]) -> list[dict]:
    def bars(model: dict, table: str) -> list[tuple[str, float]]:
        return [(row["run"], row["energy nJ"] / 1000) for row in model["energy"]["rows"]
                if row["term"] == "total" and row["prices"] == table and row["energy nJ"] is not None]

    def parts(number: int, found: dict) -> list[dict]:
        pictures = []
        for place, table in enumerate(found["about"]):
            most = _largest(bars(model, table) for model in models if model.get("energy"))
            pictures.append(figures.bars(f"energy{number}-{place}", table, "energy of a recording (µJ)",
                                         bars(models[number - 1], table), number, most))
        totals = [row for row in found["rows"] if row["term"] == "total"]
        return [{"figures": [svg(picture) for picture in pictures], "text": f"Mean of {found['samples']} recordings."},
                {"table": shown("totals", totals)},
                {"points": [f"{name}: {about}" for name, about in found["about"].items()]},
                {"summary": "Every term with its price and source", "details": shown("energy", found["rows"],
                                                                                     strong=("total",))}]

    return split(models, "energy", parts)


def cores(number: int, found: dict) -> list[dict]:
    extra = {key: (key, "{:.0f}") for row in found["rows"] for key in row if key.endswith("%")}
    parts = [{"text": f"About {found['cores']} of {found['available']} cores of {found['chip']}, {found['estimate']}. "
                      "No public tool places networks there. Bytes are those of every synapse, a convolution's at each "
                      "place again: the footprint above counts a weight once.",
              "picture": svg(found["picture"]), "beside": True,
              "note": "A square is a core, in the order of filling, filled as far as its fullest resource. The "
                      "floor plan is not modelled.",
              "table": shown("cores", found["rows"], extra),
              "caption": "%: of a core's limit, in the fullest core; limits that are not public are left out"}]
    return [*parts, {"points": found["violations"]}] if found["violations"] else parts
