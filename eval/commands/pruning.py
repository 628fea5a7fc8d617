"""`hardspike eval pruning`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.options import Tables, whole
from export.recordings import Recordings
from hardspike import OutFolder, UsageError, print_table, words

if TYPE_CHECKING:
    from eval.pruning import Pruned


@dataclass(frozen=True)
class Tuning:
    """How pruned networks are fine-tuned.

    Args:
        bits: of a weight, 2 to 8
        target: loihi1 or loihi2
        epochs: of fine-tuning, all in integers; the last one's weights are measured
        lr: peak learning rate
    """

    bits: int = 8
    target: str = "loihi2"
    epochs: int = 10
    lr: float = 1e-3


def pruning(model: Path, shares: str = "0,0.5,0.8,0.9", out: OutFolder = Path("runs/pruned"), split: str = "test",
            tuning: Tuning = Tuning(), recordings: Recordings = Recordings(),  # noqa: B008
            tables: Tables = Tables()) -> list[Pruned]:  # noqa: B008
    """Take the smallest weights of a trained network away, fine-tune it in a chip's integers, and say what that saves.

    Each share is one run in `out`, with the options of the model's own run; those that are there are not repeated. Of
    every layer on the chip that share of the weights is zero from the first step on; more of them may round to zero.
    SynOps are events times synapses whose weight is not zero (`hardspike eval operations`: MACs and ACs); synapses,
    their bits and cores are those of `hardspike targets map`, which stores no weight of zero where it stores indices.

    Args:
        model: a run's folder or a checkpoint (.pt), in floats
        shares: of the weights, joined by commas
        out: folder of the runs
        split: train, validation or test
        tuning: of the pruned networks
        recordings: of what data
        tables: what is written
    """
    from eval import rows
    from eval.options import Sample
    from eval.pruning import configs, measure, train
    from eval.subject import open_subject
    from export.model import model_file
    from targets.chips import chip
    from trainer.quantise import QuantiseConfig
    machine = chip(tuning.target)
    whole("epochs", tuning.epochs, 1)
    subject = open_subject(model, recordings, Sample(split))
    if subject.model.checkpoint is None:
        raise UsageError(f"{model}: is no network in floats that can be trained further; give the run that it is of")
    if subject.model.refused:
        raise UsageError(f"{subject.model.refused}; what is pruned is measured on the chip, as a whole")
    chosen = QuantiseConfig(bits=tuning.bits, target=tuning.target, lr=tuning.lr)
    runs = configs(model_file(model), subject.model.trained, _shares(shares), chosen, tuning.epochs, out)
    train(runs.values())
    found = measure(subject, runs, machine)
    print_table(rows.pruning(found, tuning.target),
                f"{model}, pruned, {tuning.bits} bits, {tuning.epochs} epochs: {split}", tables.json,
                csv_file=tables.csv)
    return found


def _shares(text: str) -> list[float]:
    """Numbers from 0 to below 1.

    Raises:
        UsageError: something else.
    """
    try:
        found = list(dict.fromkeys(float(word) for word in words(text)))
    except ValueError as error:
        raise UsageError(f"shares '{text}': numbers joined by commas, such as 0.5,0.9") from error
    if not found or not all(0 <= share < 1 for share in found):
        raise UsageError(f"shares '{text}': from 0 to below 1, joined by commas, such as 0.5,0.9")
    return found
