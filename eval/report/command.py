"""`python -m eval report`: measure, judge, and write the page and its numbers."""

import datetime
import json
import os
from pathlib import Path

from eval.report.collect import Effort, collect
from eval.report.page import render
from eval.report.runs import check_targets
from eval.report.subject import open_subjects
from eval.report.tables import write_csv
from hardspike import UsageError, atomic_path, progress, versions

LIBRARIES = ("hardspike", "torch", "numpy", "scipy", "nir", "snntorch", "onnx", "onnxruntime", "scikit-learn",
             "matplotlib", "jinja2")


def report(*models: Path, out: Path | None = None, compare: Path | None = None,
           targets: str = "reference,onnxruntime,loihi2,loihi1", bits: str = "8,4", samples: int = 512,
           corrupted: int = 100, severities: str = "0,0.05,0.1,0.2,0.3,0.5", name: str | None = None,
           path: Path | None = None, csv: Path | None = None) -> dict:
    """One self-contained page about a model: verdict, accuracy, transfer gap, robustness, operations, energy, cores.

    The same numbers go to a .json file of the same name. What was measured before is read from the cache.

    Args:
        models: a run's folder, a checkpoint (.pt) or a graph (.nir); two are laid side by side
        out: the .html file; default: report.html (comparison.html of two models) in the run's folder, or
            MODEL.report.html
        compare: a model to hold against; stands first
        targets: where the exported graph runs, joined by commas: reference, onnxruntime, loihi2, loihi1, lava;
            the first chip that holds it is judged
        bits: widths of a weight on the chips, joined by commas; the first one is judged
        samples: test recordings, evenly spread; 0 for all
        corrupted: test recordings for the corruption curves; 0 for all
        severities: of the corruptions, joined by commas
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        csv: folder for every table as a .csv file

    Returns:
        what the .json file holds.

    Raises:
        UsageError: more than two models, other data, unknown targets.
        HardspikeError: a model or its recordings cannot be read.
    """
    models = (compare, *models) if compare else models
    if not 1 <= len(models) <= 2:
        raise UsageError(f"{len(models)} models; a report is about one, or two side by side (`python -m eval accuracy` "
                         "takes any number)")
    effort = Effort(check_targets(targets), _bits(bits), _whole("corrupted", corrupted), severities)
    subjects = open_subjects(models, _whole("samples", samples), name, path)
    out = out or _default(models[0], len(models) > 1)
    if out.suffix != ".html":
        raise UsageError(f"{out}: is written as .html; name it {out.with_suffix('.html').name}")
    found = [collect(subject, label, effort)
             for subject, label in progress(list(zip(subjects, _labels(models), strict=True)), "report")]
    words = " ".join(["python -m eval report", *map(str, models), *_options(locals())])
    content = {"data": subjects[0].config.name, "made": datetime.date.today().isoformat(), "command": words,
               "json": out.with_suffix(".json").name, "versions": versions(*LIBRARIES), "models": found}
    with atomic_path(out) as temporary:
        temporary.write_text(render(content))
    plain = {**content, "models": [_without_pictures(model) for model in found]}
    with atomic_path(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(plain, indent=1))
    if csv:
        write_csv(csv, found)
    for model in found:
        print(f"{model['label']}: {model['verdict']['headline']}")
    print(out)
    return plain


def _whole(key: str, value: int) -> int:
    if value < 0:
        raise UsageError(f"{key} {value}: must be 0 (all) or more")
    return value


def _bits(words: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(word) for word in words.split(",") if word.strip()))
    except ValueError as error:
        raise UsageError(f"bits '{words}': whole numbers joined by commas, such as 8,4") from error
    if not found or not all(2 <= width <= 8 for width in found):
        raise UsageError(f"bits '{words}': from 2 to 8, joined by commas, such as 8,4")
    return found


def _options(values: dict) -> list[str]:
    """The options that were not left at what they are."""
    defaults = report.__kwdefaults__
    return [f"--{key} {values[key]}" for key in defaults if key not in ("out", "compare", "csv")
            and values[key] != defaults[key]]


def _default(model: Path, pair: bool) -> Path:
    kind = "comparison" if pair else "report"  # not over the model's own report
    return model / f"{kind}.html" if model.is_dir() else model.with_name(f"{model.name}.{kind}.html")


def _labels(models: tuple[Path, ...]) -> list[str]:
    """Short names: the run's folder or the file, with as many folders in front as tell two of them apart.

    A study calls its runs 0, 1, ..., and every run has a last.pt: such a name has its folder in front.
    """
    places = [Path(os.path.abspath(model)) for model in models]
    parts = [place.parent.parts if place.name == "best.pt" else place.parts for place in places]
    size = 2 if any(part[-1].isdigit() or part[-1] == "last.pt" for part in parts) else 1
    while len(parts) > 1 and parts[0][-size:] == parts[1][-size:] and size < max(map(len, parts)):
        size += 1
    return ["/".join(part[-size:]) for part in parts]


def _without_pictures(model: dict) -> dict:
    if "cores" not in model:
        return model
    return {**model, "cores": {key: value for key, value in model["cores"].items() if key != "picture"}}
