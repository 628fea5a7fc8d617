"""What SAST's second gradient costs: an epoch of each of its variants against one of the same network without SAST.

    python -m benchmarks.sast            # about two minutes, one thread

The default run on the digits, all of its step: the minibatches made (augmented), the gradients, AdamW, the averaged
weights. All variants run in turn in every round; what is printed are medians of each round's ratio to that round's
plain step. Where only every k-th step has a second gradient, a step of each kind is timed and weighed as in an epoch.
Accuracies of the same variants: `hardspike eval study trainer/studies/digits_sast_steps.yaml`.
"""

import statistics
import time
from collections.abc import Callable

import torch

from hardspike import print_table, progress
from trainer.config import FitConfig
from trainer.data import load
from trainer.methods.sast import SastConfig
from trainer.networks import build
from trainer.run import Run

PLAIN = "plain (method surrogate)"
VARIANTS = {
    PLAIN: FitConfig(method="surrogate"),
    "two passes, a further minibatch": FitConfig(),
    "two passes, the minibatch before": FitConfig(sast=SastConfig(second_batch="previous")),
    "two passes, the same minibatch": FitConfig(sast=SastConfig(second_batch="reused")),
    "momentum": FitConfig(sast=SastConfig(ascent="momentum")),
    "every 5th step": FitConfig(sast=SastConfig(every=5)),
    "every 8th step": FitConfig(sast=SastConfig(every=8)),
}


def measure(rounds: int = 20) -> list[dict]:
    """One row a variant: milliseconds of a step, and an epoch's time against the plain one's."""
    steps = {name: _steps(config) for name, config in VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in progress(range(rounds + 1), "rounds"):
        for name, found in seconds.items():
            found.append(steps[name]())
    # the first round warms up
    plain = seconds[PLAIN][1:]
    rows = []
    for name, found in seconds.items():
        ratios = sorted(mine / theirs for mine, theirs in zip(found[1:], plain, strict=True))
        rows.append({"variant": name, "ms a step": 1e3 * statistics.median(found[1:]),
                     "epoch / plain": statistics.median(ratios), "10 %": ratios[len(ratios) // 10],
                     "90 %": ratios[len(ratios) * 9 // 10]})
    return rows


def _steps(config: FitConfig) -> Callable[[], float]:
    """A function that runs steps of `config` and returns the seconds of one, on average over an epoch."""
    data = load(config.data)
    torch.manual_seed(0)
    run = Run(config, data, build(config.network, data.shape, data.classes), torch.device("cpu"))
    first, second = run._streams(1)
    run.method.begin(run.state, 1)

    def step() -> float:
        began = time.perf_counter()
        run.step(next(first), lambda: next(second))
        return time.perf_counter() - began

    def timed() -> float:
        every = config.sast.every
        if every == 1:
            return step()
        run.state.step = -1  # the next one perturbs, the one after it does not
        return (step() + (every - 1) * step()) / every

    return timed


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_table(measure(), "the default run on the digits, one thread")
