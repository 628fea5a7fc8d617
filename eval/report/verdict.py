"""What the numbers of a report say, in words, by rules that stand here."""

from collections.abc import Iterator

from eval.accuracy import interval
from eval.report.runs import paired
from export.formats.integers import CHIPS

LOSS = 1.0
"""Points of accuracy that may be lost between training and chip."""
CLEAR = 0.05
"""p of the exact McNemar test from which a difference is not put down to chance."""
FRAGILE = 10.0
"""Points that a corruption may cost before it is named."""
SEVERITY = 0.1
"""At which severity corruptions are compared."""


def judge(model: dict) -> dict:
    """Headline and points: `state` is ready, not ready or open; each point is (good, bad or note, sentence).

    Ready: on its chip, in integers, the model loses at most `LOSS` points against the mode it was trained in, all
    runs of one graph give the same spikes, the chip holds it, and it is better than guessing.
    """
    rows = {row["mode"]: row for row in model["accuracy"]}
    graphs = {run["mode"]: run["graph"] for run in model["runs"]}
    chips = [mode for mode, graph in graphs.items() if mode == graph and mode.split(",")[0] in CHIPS]
    chip = chips[0] if chips else None
    trained = "hard" if model.get("trained_hard") and "hard" in rows else next(iter(rows))
    points = [*_accuracy(model, rows, chip), *_gap(model, rows), *_calibrated(rows), *_bits(rows, graphs, chips)]
    unequal = list(_unequal(model["runs"]))
    points += _parity(model["runs"], unequal) + list(_cores(model)) + list(_corruptions(model)) + list(_energy(model))
    if chip is None:
        refused = [line.split(": ", 1)[1] for line in model["missing"] if line.split(",")[0].split(":")[0] in
                   (*CHIPS, "Targets")]
        if refused:
            return {"state": "not ready", "headline": f"Not ready for a chip: {refused[0]}", "points": points}
        return {"state": "open", "headline": "Not judged: no chip among the targets", "points": points}
    name = CHIPS[chip.split(",")[0]].LIMITS.chip
    lost = rows[trained]["accuracy %"] - rows[chip]["accuracy %"]
    faults = []
    if lost > LOSS:
        faults.append(f"{lost:.1f} points are lost between training and chip, more than {LOSS:g}")
    if unequal:
        faults.append("runs of one graph differ")
    if model.get("cores", {}).get("violations"):
        faults.append("the chip cannot hold it")
    if rows[chip]["low %"] <= 100 / model["classes"]:
        faults.append(f"not clearly better than guessing among {model['classes']} classes")
    width = chip.split(", ")[1]
    weights = "as it is" if width == "integers" else f"with weights of {width}"
    headline = f"Ready for {name} {weights}" if not faults else f"Not ready for {name}: {'; '.join(faults)}"
    return {"state": "not ready" if faults else "ready", "headline": headline, "points": points}


def _accuracy(model: dict, rows: dict[str, dict], chip: str | None) -> Iterator[tuple[str, str]]:
    mode = chip or next((mode for mode in rows if mode.startswith("hard")), next(iter(rows)))
    row = rows[mode]
    yield "note", (f"{mode}: {row['accuracy %']:.1f} % of {model['samples']} test recordings are classified rightly "
                   f"(95 %: {row['low %']:.1f} to {row['high %']:.1f}).")


def _gap(model: dict, rows: dict[str, dict]) -> Iterator[tuple[str, str]]:
    if "hard" not in rows or "surrogate" not in rows:
        return
    row = rows["hard"]
    gap = -row["change"]
    test = f"{row['lost']} recordings lost, {row['won']} won, p = {row['p']:.2g}"
    if model.get("trained_hard"):
        yield "note", (f"It was trained with hard spikes; the smooth network, which nobody trained, is {abs(gap):.1f} "
                       f"points {'better' if gap > 0 else 'worse'}.")
    elif gap > LOSS:
        certain = "" if row["p"] < CLEAR else ", which chance can give too"
        yield "bad", f"Hard thresholds cost {gap:.1f} points against the smooth network ({test}{certain})."
        layers = model.get("membranes", [])
        if layers:
            worst = max(layers, key=lambda layer: layer["|phi-H|"])
            yield "note", (f"Most of it arises in {worst['layer']}: {worst['in zone %']:.0f} % of its membranes lie "
                           "where a smooth neuron is neither on nor off, and at rest it gives "
                           f"{worst['phi at rest']:.2g} spikes a step.")
    else:
        words = f"cost {gap:.1f} points" if gap > 0 else f"win {-gap:.1f} points" if gap < 0 else "cost nothing"
        yield "good", f"Hard thresholds {words} against the smooth network ({test})."


def _calibrated(rows: dict[str, dict]) -> Iterator[tuple[str, str]]:
    found = {mode: row["accuracy %"] for mode, row in rows.items() if mode.startswith("calibrated")}
    if found:
        best = max(found, key=found.get)
        change = _change(found[best] - rows["hard"]["accuracy %"])
        yield "note", (f"Calibration after training, chosen on validation recordings: at best {change} against the "
                       f"hard network ({best}: {found[best]:.1f} %).")


def _bits(rows: dict[str, dict], graphs: dict[str, str], chips: list[str]) -> Iterator[tuple[str, str]]:
    """Each bit width on its chip against the same network in floats."""
    base = next((rows[mode]["accuracy %"] for mode, graph in graphs.items() if graph == "float"), None)
    for mode in chips if base is not None else ():
        change = rows[mode]["accuracy %"] - base
        kind = "good" if -change <= LOSS else "bad" if mode == chips[0] else "note"
        yield kind, f"Weights of {mode.split(', ')[1]} on {mode.split(', ')[0]}: {_change(change)} against floats."


def _change(points: float) -> str:
    return f"{abs(points):.1f} points {'won' if points > 0 else 'lost'}" if points else "no change"


def _unequal(runs: list[dict]) -> Iterator[tuple[str, str, int]]:
    """Runs of one graph whose spikes differ."""
    for index, one in enumerate(runs):
        for other in runs[:index]:
            if one["graph"] == other["graph"] and one["differs"].get(other["mode"]):
                yield other["mode"], one["mode"], one["differs"][other["mode"]]


def _parity(runs: list[dict], unequal: list[tuple[str, str, int]]) -> list[tuple[str, str]]:
    if unequal:
        return [("bad", f"{one} and {other} run the same graph, and {count} of their spikes differ.")
                for one, other, count in unequal]
    groups: dict[str, list[str]] = {}
    for run in runs:
        groups.setdefault(run["graph"], []).append(run["mode"])
    same = [modes for modes in groups.values() if len(modes) > 1]
    if not same:
        return []
    return [("good", "Spike for spike the same on every recording: "
             + "; ".join(" = ".join(modes) for modes in same) + ".")]


def _cores(model: dict) -> Iterator[tuple[str, str]]:
    if "cores" not in model:
        return
    cores = model["cores"]
    for violation in cores["violations"]:
        yield "bad", f"{cores['chip']} cannot hold it: {violation.removeprefix('error: ')}."
    if not cores["violations"]:
        yield "good", f"It takes about {cores['cores']} of {cores['available']} cores of {cores['chip']} (an estimate)."


def _corruptions(model: dict) -> Iterator[tuple[str, str]]:
    """What hurts most at `SEVERITY`, in the last mode: the one that is deployed."""
    if "corruptions" not in model:
        return
    found, key = model["corruptions"], f"{SEVERITY:g}"
    rows = [row for row in found["rows"] if row["mode"] == found["modes"][-1] and key in row and "0" in row]
    if not rows:
        return
    clean = rows[0]["0"] / 100
    if interval(round(clean * found["samples"]), found["samples"])[0] <= 1 / model["classes"]:
        return  # guesses cannot be spoilt
    worst = max(rows, key=lambda row: row["0"] - row[key])
    lost = worst["0"] - worst[key]
    name = worst["corruption"].replace("_", " ")
    if lost > FRAGILE:
        yield "bad", (f"Fragile: {name} at severity {key} ({found['units'][worst['corruption']]}) takes it from "
                      f"{worst['0']:.0f} to {worst[key]:.0f} % ({found['samples']} recordings).")
    else:
        yield "good", (f"Robust: no corruption of severity {key} costs more than {FRAGILE:g} points; the worst is "
                       f"{name} with {lost:.1f} ({found['samples']} recordings).")


def _energy(model: dict) -> Iterator[tuple[str, str]]:
    """The network against the ANN of its layers, by every table that prices both: arithmetic alone says half of it.

    Of the last run, the one that is deployed: integers against integers, where there are any.
    """
    if "energy" not in model:
        return
    rows, shares = model["energy"]["rows"], {}
    totals = [row for row in rows if row["term"] == "total" and row["energy nJ"]]
    deployed = next((row["run"] for row in reversed(totals) if row["run"].startswith("SNN")), None)
    for ann in (row for row in totals if row["run"].startswith("ANN")):
        table = ann["prices"]
        row = next((row for row in totals if row["prices"] == table and row["run"] == deployed), None)
        if row and table not in shares:
            moved = any(each["term"] == "reads" and each["prices"] == table and each["energy nJ"] for each in rows)
            shares[table] = row["energy nJ"] / ann["energy nJ"], (
                f"{row['energy nJ'] / 1000:.3g} µJ a recording {'with data movement' if moved else 'of arithmetic'} "
                f"({row['evidence']}, {table}), {row['energy nJ'] / ann['energy nJ']:.2g} of the ANN's")
    if not shares:
        return
    ratios = [ratio for ratio, _ in shares.values()]
    end = (" So it saves energy by either count." if max(ratios) < 1 and len(ratios) > 1 else
           " So it saves energy by no count." if min(ratios) >= 1 else
           " So whether it saves energy hangs on what is counted." if max(ratios) >= 1 else "")
    yield "note", (f"Energy of {deployed.removeprefix('SNN, ')} against an ANN of the same layers, passed once: "
                   f"{'; '.join(text for _, text in shares.values())}.{end}")


def compare(one: dict, other: dict) -> list[dict]:
    """The second model against the first, recording by recording, in every mode that both have: see `paired`."""
    theirs = {run["mode"]: run["predictions"] for run in other["runs"]}
    rows = {model["label"]: {row["mode"]: row["accuracy %"] for row in model["accuracy"]} for model in (one, other)}
    return [{"mode": run["mode"], **{f"{label} %": found[run["mode"]] for label, found in rows.items()},
             **paired(run["predictions"], theirs[run["mode"]], one["labels"])}
            for run in one["runs"] if run["mode"] in theirs]
