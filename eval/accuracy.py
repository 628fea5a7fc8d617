"""`python -m eval accuracy`: surrogate, hard and exported accuracy, and the transfer gap between them."""

from pathlib import Path

from scipy.stats import binomtest

from eval.models import calibrated, open_on_same_data, run_graph
from export.formats.integers import chip_of
from hardspike import HardspikeError, UsageError, print_table
from trainer.checkpoint import Checkpoint
from trainer.data import Split
from trainer.data.spikes_file import SPLITS
from trainer.evaluate import Evaluation, evaluate


def accuracy(*models: Path, split: str = "test", name: str | None = None, path: Path | None = None,
             json: Path | None = None, csv: Path | None = None) -> list[dict]:
    """Accuracy with surrogate spikes, with hard spikes and of the exported graph, and the transfer gap.

    The gap is surrogate minus hard accuracy of the same weights (SAST eq. 36). Intervals are exact binomial
    (Clopper-Pearson) at 95 %; `train s` and `gradients` are the run's training time and gradient evaluations. Every
    model runs on the same recordings: those of the first model that says what it was trained on. A calibrated
    checkpoint has a row of its own kind and neither a surrogate row nor a gap.

    Args:
        models: checkpoints (.pt) and exported graphs (.nir); a quantised graph runs in its chip's integers
        split: train, validation or test
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table
        csv: file for the table

    Returns:
        one row a model and mode.
    """
    if split not in SPLITS:
        raise UsageError(f"split '{split}' is unknown; known: {', '.join(SPLITS)}")
    opened, config, data = open_on_same_data(models, name, path)
    part: Split = getattr(data, split)
    rows = []
    for model, content in zip(models, opened, strict=True):
        if isinstance(content, Checkpoint):
            if content.shape != data.shape:
                raise HardspikeError(f"{model}: takes frames {content.shape}, {config.name} gives {data.shape}")
            if content.calibration:
                rows.append(_row(model, f"hard{calibrated(content)}", evaluate(content.network, data, part, hard=True),
                                 None, content.history))
                continue
            smooth, hard = (evaluate(content.network, data, part, mode) for mode in (False, True))
            rows += [_row(model, "surrogate", smooth, None, content.history),
                     _row(model, "hard", hard, smooth.accuracy - hard.accuracy, content.history)]
        else:
            target = chip_of(content) or "reference"
            logits, spikes = run_graph(content, target, data, part)
            mode = "exported" if target == "reference" else f"exported, {target}"
            rows.append(_row(model, mode + calibrated(content), Evaluation(logits, part.labels, spikes)))
    layers = list(dict.fromkeys(layer for row in rows for layer in row["layers"]))
    table = [{**{k: v for k, v in row.items() if k != "layers"},
              **{f"{layer} spikes": row["layers"].get(layer) for layer in layers}} for row in rows]
    title = f"{config.name}, {split}: {len(part.labels)} recordings, T={data.steps} (spikes per sample)"
    print_table(table, title, json, {"data": config.name, "split": split, "samples": len(part.labels)}, csv)
    return table


def _row(model: Path, mode: str, result: Evaluation, gap: float | None = None,
         history: list[dict] | None = None) -> dict:
    right, count = int((result.logits.argmax(1) == result.labels).sum()), len(result.labels)
    low, high = interval(right, count)
    return {"model": str(model), "mode": mode, "accuracy %": 100 * right / count, "low %": 100 * low,
            "high %": 100 * high, "gap": None if gap is None else 100 * gap,
            "train s": sum(row["train_seconds"] for row in history) if history else None,
            "gradients": history[-1]["gradient_evaluations"] if history else None,
            "spikes": sum(result.spikes.values()), "layers": result.spikes}


def interval(right: int, count: int) -> tuple[float, float]:
    """Where the true share lies after `right` of `count`: exact binomial (Clopper-Pearson) at 95 %."""
    found = binomtest(right, count).proportion_ci(0.95)
    return found.low, found.high
