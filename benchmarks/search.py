"""What A2SG's search for widths adds to an epoch: against BOX, whose widths are fixed and unmeasured.

    python -m benchmarks.search            # a minute

A search is done on one minibatch of an epoch, so an epoch of n minibatches costs

    (n - 1 + t_search / t_box) / n   times that of BOX.

Steps with and without a search are timed in turn, on the same minibatch and weights; what is printed are medians over
rounds of the ratio within a round. The data are the digits, the network is the default one.
"""

import statistics
import time
from dataclasses import replace

import torch

from hardspike import print_table, progress
from trainer.config import FitConfig
from trainer.data import load
from trainer.methods import a2sg
from trainer.methods.a2sg import A2sgConfig
from trainer.networks import build

SEARCHES = {
    "BOX+ST, exact": A2sgConfig(window="box"),
    "TRI+ST, exact": A2sgConfig(window="tri"),
    "A2SG, exact": A2sgConfig(),
    "A2SG, exact, 8 recordings": A2sgConfig(recordings=8),
    "A2SG, Gaussian process (alg. A2)": A2sgConfig(search="bayesian"),
}


def measure(rounds: int = 15) -> list[dict]:
    """One row a search: the step with it against BOX's, and the overhead of an epoch in per cent."""
    config = FitConfig(method="a2sg")
    data = load(config.data)
    batches = len(data.train.labels) // config.batch_size
    batch = (data.to_input(data.train.at(slice(config.batch_size)).float()), data.train.labels[:config.batch_size])
    torch.manual_seed(0)
    network = build(config.network, data.shape, data.classes)
    network.set_mode(hard=True)

    def step(options: A2sgConfig, search: bool) -> float:
        began = time.perf_counter()
        state = a2sg.A2sgState(epoch=2, batch=-1 if search else 0)  # before the epoch's first step, or after it
        a2sg.gradient(network, lambda b: torch.nn.functional.cross_entropy(network(b[0]), b[1]), batch, None,
                      replace(config, a2sg=options), state)
        return time.perf_counter() - began

    ratios = {name: [] for name in SEARCHES}
    for _ in progress(range(rounds + 1), "rounds"):
        fixed = statistics.median(step(A2sgConfig(window="box", adapt="none"), False) for _ in range(3))
        for name, options in SEARCHES.items():
            ratios[name].append(step(options, True) / fixed)
    # the first round warms up
    return [{"search": name, "step / BOX's": statistics.median(found[1:]),
             "overhead of an epoch %": 100 * (statistics.median(found[1:]) - 1) / batches,
             "lowest": 100 * (min(found[1:]) - 1) / batches, "highest": 100 * (max(found[1:]) - 1) / batches}
            for name, found in ratios.items()]


if __name__ == "__main__":
    print_table(measure(), f"one search an epoch, digits, {torch.get_num_threads()} threads")
