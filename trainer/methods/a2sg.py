"""A2SG: hard forward, and in the backward a window whose width follows the gradient (A2SG alg. A1)."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from hardspike import UsageError, choice
from trainer.methods import plain, sast
from trainer.methods.method import Measured, Method, of_form
from trainer.methods.sast import SastState
from trainer.neurons.windows import WINDOWS, Windows

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from trainer.networks import Network

_CHOICES = {"window": tuple(WINDOWS), "adapt": ("none", "spatial", "temporal", "both"), "search": ("exact", "bayesian"),
            "metric": ("local", "membrane")}


@dataclass
class A2sgConfig:
    """Adaptive and asymmetric surrogate gradients. The ablations of the paper's table 6: BOX is window=box adapt=none,
    S-ASG adapt=spatial, T-ASG adapt=temporal, ST-ASG adapt=both, each with window=box; A2SG is window=asy adapt=both.

    Args:
        window: box (eq. A6), tri (A7), asy (10), arc (arctan of the same height as box) or ramp (asy of area 1)
        adapt: none (fixed width), spatial (the last step minimises SGV, eq. 8), temporal (earlier steps maximise TGC,
            eq. 9) or both
        metric: whose SGV and TGC: local (dL/ds times the window, algs. A1 and A2) or membrane (the whole dL/du, eqs. 5
            and A4, section 4), which differ before the last step
        width: half-width of the window to begin with, in units of the membrane
        width_min: narrowest width of the search (not given in the paper)
        width_max: widest (not given in the paper); an empty window gets it
        height: h of asy, 0.5 or more (less makes gradients of the wrong sign)
        every: epochs between searches; each is done on the epoch's first minibatch
        search: exact (the best of `candidates` widths, all evaluated in one pass) or bayesian (alg. A2)
        candidates: widths that the exact search looks at
        observations: n_obs of alg. A2, random widths
        evaluations: n_eval of alg. A2
        delta: reach of alg. A2 around the best observation, in units of the membrane
        recordings: of the minibatch that the search looks at; null for all
        sam: with SAST's sharpness-aware step (options in `sast`)
    """

    window: str = "asy"
    adapt: str = "both"
    metric: str = "local"
    width: float = 0.5
    width_min: float = 0.1
    width_max: float = 1.0
    height: float = 0.5
    every: int = 1
    search: str = "exact"
    candidates: int = 64
    observations: int = 100
    evaluations: int = 150
    delta: float = 0.05
    recordings: int | None = None
    sam: bool = False

    def __post_init__(self):
        for key, known in _CHOICES.items():
            choice(key, getattr(self, key), known)
        if not 0 < self.width_min < self.width_max < math.inf:
            raise UsageError(f"width_min {self.width_min}, width_max {self.width_max}: 0 < width_min < width_max")
        for key in ("width", "delta"):
            if not 0 < getattr(self, key) < math.inf:
                raise UsageError(f"{key} {getattr(self, key)}: must be positive and finite")
        if not 0.5 <= self.height < math.inf:
            raise UsageError(f"height {self.height}: 0.5 or more, or the gradient changes its sign within the window")
        for key, least in (("every", 1), ("candidates", 2), ("observations", 1), ("evaluations", 1), ("recordings", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise UsageError(f"{key} {value}: must be {least} or more")


@dataclass
class A2sgState(SastState):
    """Between the steps of A2SG, with what its SAM step keeps.

    Args:
        widths: layer -> (T,) float64, the half-widths of its windows; (D,) of neurons with D thresholds.
        epoch: number of the epoch, from 1.
        batch: number of the step within it, from 0.
        measured: layer -> what the epoch's first step found; see `gradient`.
    """

    widths: dict[str, "Tensor"] = field(default_factory=dict)
    epoch: int = 0
    batch: int = -1
    measured: dict[str, dict] = field(default_factory=dict)

    def fits(self, network: "Network", steps: int) -> bool:
        """As `State.fits`: positive widths of layers that there are."""
        good = (isinstance(self.widths, dict) and self.widths.keys() <= network.neurons().keys() and not self.measured
                and all(of_form(widths, (network.neurons()[name].windows_of(steps),)) and bool((widths > 0).all())
                        for name, widths in self.widths.items()))
        return super().fits(network, steps) and good and type(self.epoch) is int and type(self.batch) is int


def begin(state: A2sgState, epoch: int) -> None:
    """Count the epoch's steps."""
    state.epoch, state.batch = epoch, -1


def gradient(network, loss, batch, draw, config, state: A2sgState) -> "Tensor":
    """Leave the gradient in `.grad`; on the first minibatch of an epoch choose the widths on the way.

    The very first step of a run keeps the initial width (alg. A1, line 7). What each layer's widths and metrics were
    goes to `state.measured`: layer -> {"sgv": float, "tgc": [T-1], "widths": [T], "empty": steps whose window held no
    gradient}; NaN where empty. With `sam` the search sees the step's first pass: the ascent at the weights themselves,
    where there is one. See `trainer.methods.method.Method`.
    """
    import torch

    options: A2sgConfig = config.a2sg
    steps = len(batch[0])
    state.batch += 1
    first = state.batch == 0
    search = first and (state.epoch - 1) % options.every == 0 and state.epoch > 1
    for name, neuron in network.neurons().items():
        if name not in state.widths:
            state.widths[name] = torch.full((neuron.windows_of(steps),), options.width, dtype=torch.float64)
        neuron.windows = Windows(options.window, state.widths[name], options.height,
                                 whole=options.metric == "membrane")
        if first:
            count = neuron.windows_of(steps)
            state.measured[name] = {"sgv": math.nan, "tgc": [math.nan] * (count - 1), "widths": [0.0] * count,
                                    "empty": 0}
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.epoch)
            chooser = _Chooser(options, state.widths[name], state.measured[name], search, generator)
            neuron.windows.choose = partial(_choose, chooser)
    step = sast.gradient if options.sam else plain.gradient
    return step(network, loss, batch, draw, config, state)


@dataclass
class _Chooser:
    """How one layer's widths are chosen in one step, and where what is found goes."""

    options: A2sgConfig
    widths: "Tensor"
    measured: dict
    search: bool
    generator: "Generator"


def _choose(chooser: _Chooser, t: int, z: "Tensor", q: "Tensor", later: "Tensor | None",
            rest: "Tensor | None") -> float:
    """The width of step t, searched for or kept; `measured` is told. See `trainer.neurons.windows.Windows`.

    All processes look at the joint minibatch, on the CPU, and so choose alike.
    """
    from trainer import distributed
    from trainer.methods import widths as searches

    options, measured = chooser.options, chooser.measured
    shards = distributed.size()  # a shard's loss is a mean over fewer recordings: its gradient is so much larger
    z, q = (distributed.gather(x)[:options.recordings].cpu() for x in (z, q / shards))
    later, rest = (None if x is None else distributed.gather(x / shards)[:options.recordings].cpu()
                   for x in (later, rest))
    adapted = options.adapt in ("both", "spatial" if later is None else "temporal")

    def of(widths: "Tensor") -> "Tensor":
        return searches.metric(options.window, z, q, later, widths, options.height, rest)

    wanted = of, later is not None, options.width_min, options.width_max
    if not (chooser.search and adapted):
        width = chooser.widths[t].item()
        value = of(chooser.widths[t:t + 1]).item()
    elif options.search == "exact":
        width, value = searches.grid_search(*wanted, options.candidates)
    else:
        draws = searches.Bayesian(options.observations, options.evaluations, options.delta, chooser.generator)
        width, value = searches.bayesian_search(*wanted, draws)
    measured["widths"][t] = width
    measured["empty"] += math.isnan(value)
    if later is None:
        measured["sgv"] = value
    else:
        measured["tgc"][t] = value
    return width


def end(state: A2sgState, config) -> Measured:
    """What the epoch's first step found, layer by layer, and means over layers and steps with how many widths sit at a
    bound."""
    import torch

    sast.end(state, config)
    layers, state.measured = state.measured, {}
    options: A2sgConfig = config.a2sg
    tgc = torch.tensor([layer["tgc"] for layer in layers.values()], dtype=torch.float64)
    widths = torch.tensor([layer["widths"] for layer in layers.values()], dtype=torch.float64)
    return Measured({
        "sgv": torch.tensor([layer["sgv"] for layer in layers.values()]).nanmean().item(),
        "tgc": tgc.nanmean().item(),
        "width": widths.mean().item(),
        "widths_at_min": int((widths <= options.width_min).sum()),
        "widths_at_max": int((widths >= options.width_max).sum()),
        "windows_empty": sum(layer["empty"] for layer in layers.values()),
    }, layers)


A2SG = Method("hard forward, backward window of searched width (A2SG)", hard=True, gradient=gradient, state=A2sgState,
              options=A2sgConfig, begin=begin, end=end)
