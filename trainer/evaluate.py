"""What a network makes of a split of recordings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data import Data, Split
from trainer.networks import Network
from trainer.segmentation import PixelEvaluation, evaluated


@dataclass
class Evaluation:
    """Outputs of a network over a split.

    Args:
        logits: (N, classes).
        labels: (N,) int64.
        spikes: layer -> spikes per sample (sum over time and neurons, mean over the split).
    """

    logits: Tensor
    labels: Tensor
    spikes: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Share of right answers, in [0, 1]."""
        return self.hits.double().mean().item()

    @property
    def hits(self) -> Tensor:
        """(N,) bool, the recordings with the right answer."""
        return self.logits.argmax(1) == self.labels

    @property
    def loss(self) -> float:
        """Cross-entropy in nats."""
        return torch.nn.functional.cross_entropy(self.logits.double(), self.labels).item()


def one_standard_error_below(accuracy: float, samples: int) -> float:
    """The accuracy from which `samples` recordings cannot tell a network from one with `accuracy`, both in [0, 1].

    Of many candidates the very best is mostly the luckiest; a choice among all those within one standard error of it
    can go by something better than luck (the one-standard-error rule, Breiman et al. 1984, sec. 3.4.3).
    """
    share = (accuracy * samples + 1) / (samples + 2)  # Laplace's estimate: no zero error at 100 %
    return accuracy - math.sqrt(share * (1 - share) / samples)


@torch.inference_mode()
def evaluate(network: Network, data: Data, split: Split, hard: bool,
             batch_size: int = 128) -> Evaluation | PixelEvaluation:
    """Run `split` through the network in evaluation mode, with hard or smooth spikes."""
    weight = next(network.parameters())
    size = len(split.labels)
    spikes: dict[str, float] = {}

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, size, batch_size):
            record: dict[str, Tensor] = {}
            part = slice(start, start + batch_size)
            frames = split.at(part)
            frames = data.to_input(frames[:, :1] if data.still else frames).to(weight)
            frames = data.repeated(frames) if data.still else frames
            logits = network(frames, record)
            for name, each in record.items():
                spikes[name] = spikes.get(name, 0.0) + each.sum(dtype=torch.float64).item()
            yield logits, split.labels[part]

    with network.evaluation(), network.mode(hard):
        found: Evaluation | PixelEvaluation = evaluated(parts()) if split.masked else \
            Evaluation(torch.cat([logits for logits, _ in parts()]).cpu(), split.labels, {})
    found.spikes = {name: total / size for name, total in spikes.items()}
    return found
