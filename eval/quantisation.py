"""`python -m eval quantisation`: what fewer bits cost on a chip, against the float hard network."""

from pathlib import Path

from eval.models import data_of, run_graph
from export.formats.integers import chip, open_float
from export.passes.lower import fold
from export.passes.quantise import SCALES, quantise
from export.samples import real_samples
from hardspike import UsageError, print_table
from trainer.data import load as load_data
from trainer.data.spikes_file import SPLITS


def quantisation(*models: Path, bits: str = "8,4", target: str = "loihi2", samples: int = 128, split: str = "test",
                 path: Path | None = None, json: Path | None = None, csv: Path | None = None) -> list[dict]:
    """Accuracy of models quantised to several bit widths, with searched scales and, as a control, max-abs scales.

    Scales are chosen on training recordings; `split` is only evaluated on. `loss` is points of accuracy against the
    float graph on `reference`, negative where the quantised graph is better.

    Args:
        models: checkpoints (.pt) or float graphs (.nir)
        bits: bit widths joined by commas
        target: loihi1 or loihi2
        samples: training recordings to choose scales on
        split: train, validation or test
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table
        csv: file for the table

    Returns:
        one row a model, bit width and kind of scale, and their means over the models.
    """
    try:
        widths = [int(width) for width in bits.split(",")]
    except ValueError as error:
        raise UsageError(f"bits '{bits}': whole numbers joined by commas, such as 8,4") from error
    if split not in SPLITS:
        raise UsageError(f"split '{split}' is unknown; known: {', '.join(SPLITS)}")
    limits = chip(target).LIMITS
    rows = []
    for model in models:
        graph = open_float(model)
        data = load_data(data_of((model,), [graph], None, path))
        part = getattr(data, split)
        floats = _accuracy(graph, "reference", data, part)
        folded, frames = fold(graph), real_samples(graph, samples, path, split="train")
        for width in widths:
            for scale in SCALES:
                integer, layers = quantise(folded, frames, limits, width, scale)
                found = _accuracy(integer, target, data, part)
                changed = sum(layer.mismatches for layer in layers) / max(1, sum(layer.spikes for layer in layers))
                rows.append({"model": str(model), "bits": width, "scale": scale, "float %": floats,
                             f"{target} %": found, "loss": floats - found, "spikes changed %": 100 * changed})
    table = rows + [_mean(rows, width, scale, target) for width in widths for scale in SCALES if len(models) > 1]
    print_table(table, f"{split}: accuracy on {target} against the float hard network", json, csv_file=csv)
    return table


def _accuracy(graph, target: str, data, part) -> float:
    logits, _ = run_graph(graph, target, data, part)
    return 100 * (logits.argmax(1) == part.labels).double().mean().item()


def _mean(rows: list[dict], width: int, scale: str, target: str) -> dict:
    chosen = [row for row in rows if (row["bits"], row["scale"]) == (width, scale)]
    means = {key: sum(row[key] for row in chosen) / len(chosen)
             for key in ("float %", f"{target} %", "loss", "spikes changed %")}
    return {"model": f"mean of {len(chosen)}", "bits": width, "scale": scale, **means}
