"""What a training step in a chip's integers costs, against the same network in floats.

    python -m benchmarks.integers            # about two minutes, one thread

The default network on the digits with hard spikes, all of a step: the minibatch made (augmented), the gradient, AdamW,
the averaged weights. Networks are trained ones' twins: each begins with an epoch in floats, so that as few neurons
spike as usual. All variants run in turn in every round; what is printed are medians of each round's ratio to that
round's step with BatchNorm, and to the step with BatchNorm folded.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from hardspike import print_table, progress
from trainer.config import FitConfig
from trainer.data import Data, load
from trainer.networks import Network, build
from trainer.networks.integers import folded
from trainer.neurons.spikes import Surrogate
from trainer.quantise import QuantiseConfig
from trainer.run import Run

FLOATS, FOLDED = "floats", "floats, BatchNorm folded"
BITS = (8, 3, 2)


def measure(rounds: int = 20) -> list[dict]:
    """One row a variant: milliseconds of a step, and its time against the two in floats."""
    steps = _variants()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in progress(range(rounds + 1), "rounds"):
        for name, found in seconds.items():
            found.append(steps[name]())
    # the first round warms up
    rows = []
    for name, found in seconds.items():
        row = {"variant": name, "ms a step": 1e3 * statistics.median(found[1:])}
        for key, other in ((f"/ {FLOATS}", FLOATS), (f"/ {FOLDED}", FOLDED)):
            ratios = sorted(mine / theirs for mine, theirs in zip(found[1:], seconds[other][1:], strict=True))
            row |= {key: statistics.median(ratios), f"{key}, 10 %": ratios[len(ratios) // 10],
                    f"{key}, 90 %": ratios[len(ratios) * 9 // 10]}
        rows.append(row)
    return rows


def _variants() -> dict[str, Callable[[], float]]:
    """Name -> a function that runs a step and returns its seconds."""
    config = FitConfig(method="hard")
    config = replace(config, network=replace(config.network, surrogate=Surrogate("arctan")))
    data = load(config.data)
    torch.manual_seed(0)
    begun = Run(config, data, build(config.network, data.shape, data.classes), torch.device("cpu"))
    begun.network.train()
    step = _step(begun)
    for _ in progress(range(begun.batches), "an epoch in floats"):
        step()
    steps = {FLOATS: step, FOLDED: _step(Run(config, data, folded(begun.kept), torch.device("cpu")))}
    for bits in BITS:
        steps[f"{bits} bits"] = _step(_in_integers(config, data, begun.kept, bits))
    return steps


def _in_integers(config: FitConfig, data: Data, network: Network, bits: int) -> Run:
    """A run whose next step is in integers."""
    twin = build(config.network, data.shape, data.classes)
    twin.load_state_dict(network.state_dict())
    run = Run(replace(config, quantise=QuantiseConfig(bits=bits, epochs=config.epochs)), data, twin,
              torch.device("cpu"))
    run._to_integers()
    return run


def _step(run: Run) -> Callable[[], float]:
    run.network.train()
    stream = run._stream(1, 0)

    def step() -> float:
        began = time.perf_counter()
        run.step(next(stream), lambda: None)
        return time.perf_counter() - began

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_table(measure(), "the default network on the digits, hard spikes, one thread")
