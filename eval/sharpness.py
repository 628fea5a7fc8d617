"""How sharp the loss is around a trained network, and SAST's bounds beside what is measured (sec. V-D, app. A-B)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eval.subject import Subject
from hardspike import HardspikeError, UsageError, words
from trainer.analysis import sharpness, theory
from trainer.analysis.bounds import Bounds, bounds
from trainer.methods import METHODS
from trainer.networks import Network

QUANTITIES = {"parameters": "||dl/dw||", "inputs": "||dl/dx||", "sensitivity": "||df/dx||",
              "gram": "smallest of Gram"}
"""Fields of `sharpness.Examples` -> what they are called; l is a recording's loss, f its logits, w weights, x input."""


@dataclass(frozen=True)
class Spread:
    """One quantity over recordings, in one mode."""

    mode: str
    quantity: str
    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class Looseness:
    """A bound of SAST's theory beside the largest value that was measured; None where there is no bound.

    Args:
        quantity: what is bounded.
        measured: the largest value found.
        tight, loose: the bound with either contraction factor q (`trainer.analysis.theory.contraction`).
    """

    quantity: str
    measured: float
    tight: float | None
    loose: float | None

    @property
    def factor(self) -> float | None:
        """How many times the tighter bound is above what was measured."""
        return self.tight / self.measured if self.tight is not None and self.measured else None


@dataclass(frozen=True)
class Sharpness:
    """What `measure` finds.

    Args:
        model: its file.
        radii: rows of `trainer.analysis.sharpness.sam_gaps`.
        secants: rows of `trainer.analysis.sharpness.secants`.
        spreads: per-recording quantities, smooth and hard.
        bounds: beside what is measured; empty where the theory says nothing of the network (`no_bounds` says why).
        norms: neurons or readout -> operator norm of the block before them.
        held: mode -> recordings for which eq. 50 holds; all of them, as it is algebra,
        slack: mode -> and the median ratio of its right side to its left.
        theory: of `trainer.analysis.theory.report`, at the checkpoint's slope: phi(-theta), q, whether it is aligned.
        samples: recordings.
    """

    model: Path
    radii: list[dict[str, float]]
    secants: list[dict]
    spreads: list[Spread]
    bounds: list[Looseness]
    norms: dict[str, float]
    held: dict[str, int]
    slack: dict[str, float]
    theory: dict
    samples: int
    no_bounds: str = ""


def measure(subject: Subject, radii: list[float], lengths: list[float], directions: int = 4) -> Sharpness:
    """Every diagnostic of SAST sec. V-D and app. A-B, in float64, on the subject's recordings without augmentation.

    Args:
        subject: a checkpoint on held-out recordings.
        radii: of SAM gaps.
        lengths: of the steps of secants (eq. 37).
        directions: random ones, for gaps and secants.

    Raises:
        UsageError: the model is a graph, which has no smooth spikes.
        HardspikeError: labels are not known or do not fit.
    """
    stored = subject.model.checkpoint
    if stored is None:
        raise UsageError(f"{subject.model.path}: a graph has no smooth spikes; give the checkpoint")
    network = sharpness.double(stored.network)
    frames, labels = subject.frames.double(), subject.labels
    network.set_mode(hard=False)
    gaps = sharpness.sam_gaps(network, frames, labels, radii, directions)
    secants = sharpness.secants(network, frames, labels, lengths, directions)
    found = {}
    for mode, hard in (("surrogate", False), ("hard", True)):
        with network.mode(hard):
            found[mode] = sharpness.examples(network, frames, labels)
    spreads = [Spread(mode, name, **sharpness.spread(getattr(values, key)))
               for key, name in QUANTITIES.items() for mode, values in found.items()]
    try:
        both, refused = bounds(network, frames), ""
    except HardspikeError as error:
        both, refused = None, str(error)
    rows = _looseness(network, frames, both, found["surrogate"], secants) if both else []
    norms, why_not = (both["tight"].norms, both["tight"].why_not) if both else ({}, refused)
    return Sharpness(subject.model.path, gaps, secants, spreads, rows, norms,
                     {mode: int((v.inputs <= v.mechanism * (1 + 1e-9)).sum()) for mode, v in found.items()},
                     {mode: (v.mechanism / v.inputs).median().item() for mode, v in found.items()},
                     theory.report(network, METHODS[stored.config.method].hard), len(labels), why_not)


def _looseness(network: Network, frames: Tensor, both: dict[str, Bounds], examples: sharpness.Examples,
               secants: list[dict]) -> list[Looseness]:
    membranes: dict[str, Tensor] = {}
    with torch.no_grad():
        network(frames, membranes=membranes)
    steepest = max(max(row["gradient"], row["curved"], *row["random"]) for row in secants)

    def row(quantity: str, measured: float, key: str) -> Looseness:
        return Looseness(quantity, measured, getattr(both["tight"], key), getattr(both["loose"], key))

    rows = [row("logits in the input, K (eq. 25)", examples.sensitivity.max().item(), "lipschitz"),
            row("loss in the input, sqrt(2) K (prop. IV.13)", examples.inputs.max().item(), "loss_stability"),
            row("gradient in the parameters, L (eq. 27)", steepest, "smoothness")]
    for name, values in membranes.items():
        largest = values.flatten(2).norm(dim=2).max().item()
        rows.append(Looseness(f"membranes of {name} (eq. 23)", largest, both["tight"].membranes[name],
                              both["loose"].membranes[name]))
    return rows


def numbers(text: str, key: str) -> list[float]:
    """Positive numbers joined by commas, ascending, each once.

    Raises:
        UsageError: there is none, or one that is not positive and finite.
    """
    try:
        found = sorted({float(word) for word in words(text)})
    except ValueError as error:
        raise UsageError(f"{key} '{text}': numbers joined by commas, such as 0.1,0.3") from error
    if not found or not 0 < found[0] <= found[-1] < float("inf"):
        raise UsageError(f"{key} '{text}': positive numbers joined by commas, such as 0.1,0.3")
    return found
