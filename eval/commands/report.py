"""`hardspike eval report`."""

from __future__ import annotations

import datetime
import os
from dataclasses import fields
from json import dumps
from pathlib import Path

from eval.commands import say
from eval.options import Effort, Sample
from export.recordings import Recordings
from hardspike import OutFile, OutFolder, UsageError, check_suffix, commit, require_writable, versions, write_text

LIBRARIES = ("hardspike", "torch", "numpy", "scipy", "nir", "snntorch", "onnx", "onnxruntime", "scikit-learn",
             "matplotlib", "jinja2")


def report(*models: Path, out: OutFile | None = None, compare: Path | None = None, effort: Effort = Effort(),  # noqa: B008
           recordings: Recordings = Recordings(), csv: OutFolder | None = None) -> dict:  # noqa: B008
    """One self-contained page about a model: verdict, accuracy, transfer gap, robustness, operations, energy, cores.

    The same numbers go to a .json file of the same name. What was measured before is read from the cache.

    Args:
        models: a run's folder, a checkpoint (.pt) or a graph (.nir); two are laid side by side
        out: the .html file; default: report.html (comparison.html of two models) in the run's folder, or
            MODEL.report.html
        compare: a model to hold against; stands first
        effort: how much is measured
        recordings: of what data
        csv: folder for every table as a .csv file

    Raises:
        UsageError: more than two models, other data, unknown targets.
        HardspikeError: a model or its recordings cannot be read.
    """
    from eval.cache import program_key
    from eval.report.measure import check, measure
    from eval.report.page import render
    from eval.report.plain import plain, without_pictures
    from eval.report.tables import write_csv
    from eval.subject import open_subjects
    models = (compare, *models) if compare else models
    if len(models) > 2:
        raise UsageError(f"{len(models)} models; a report is about one, or two side by side (`hardspike eval accuracy` "
                         "takes any number)")
    check(effort)
    out = out or _default(models[0], len(models) > 1)
    check_suffix(out, ".html")
    for file in (out, out.with_suffix(".json")):
        require_writable(file)
    subjects = open_subjects(models, recordings, Sample(samples=effort.samples), strict=True)
    found = measure(subjects, labels(models), effort)
    words = " ".join(["hardspike eval report", *map(str, models), *_options(effort), *_options(recordings)])
    pages = list(map(plain, found))
    content = {"data": subjects[0].source, "made": datetime.date.today().isoformat(), "command": words,
               "json": out.with_suffix(".json").name, "versions": versions(*LIBRARIES),
               "commit": commit(), "program": program_key(),
               "models": pages}
    write_text(out, render(content, found))
    bare = {**content, "models": [without_pictures(model) for model in pages]}
    write_text(out.with_suffix(".json"), dumps(bare, indent=1))
    if csv:
        write_csv(csv, pages)
    for model in found:
        say(f"{model.label}: {model.verdict.headline}")
    say(out)
    return bare


def _options(options: Effort | Recordings) -> list[str]:
    """The options that were not left at what they are."""
    return [f"--{one.name} {getattr(options, one.name)}" for one in fields(options)
            if getattr(options, one.name) != one.default]


def _default(model: Path, pair: bool) -> Path:
    kind = "comparison" if pair else "report"  # not over the model's own report
    return model / f"{kind}.html" if model.is_dir() else model.with_name(f"{model.name}.{kind}.html")


def labels(models: tuple[Path, ...]) -> list[str]:
    """Short names: the run's folder or the file, with as many folders in front as tell two of them apart.

    A study calls its runs 0, 1, ..., and every run has a last.pt: such a name has its folder in front.
    """
    places = [Path(os.path.abspath(model)) for model in models]
    parts = [place.parent.parts if place.name == "best.pt" else place.parts for place in places]
    size = 2 if any(part[-1].isdigit() or part[-1] == "last.pt" for part in parts) else 1
    while len(parts) > 1 and parts[0][-size:] == parts[1][-size:] and size < max(map(len, parts)):
        size += 1
    return ["/".join(part[-size:]) for part in parts]
