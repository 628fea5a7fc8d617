"""Options of training in a chip's integers, what the chips hold of them, and what cannot be had together. No torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardspike import UsageError, choice

if TYPE_CHECKING:
    from trainer.config import FitConfig

WEIGHT, BIAS, THRESHOLD = 127, 4095, 2**17 - 1
"""Largest integers of both chips (`targets.loihi.chips` has their sources)."""
TARGETS = ("loihi1", "loihi2", "none")


@dataclass
class QuantiseConfig:
    """Training in a chip's integers: what is validated is what is deployed.

    Args:
        bits: of a weight, 2 (which is ternary: -1, 0, 1) to 8; null trains in floats
        target: whose integers: loihi1 (reset to zero only) or loihi2; none rounds weights, biases and thresholds, and
            leaves the neurons in floats
        epochs: the run's last so many are in integers; without it all of them where the run begins `from` a checkpoint,
            else the last third. A smooth method (surrogate, sast) trains smooth before and with hard spikes then
        lr: peak learning rate of these epochs, which are warmed up and cooled down by themselves
        train_samples: training recordings to choose scales and thresholds on, before the first of these epochs; 0 for
            all
    """

    bits: int | None = None
    target: str = "loihi2"
    epochs: int | None = None
    lr: float = 1e-3
    train_samples: int = 128

    def __post_init__(self):
        choice("target", self.target, TARGETS)
        if self.bits is not None and not 2 <= self.bits <= 8:
            raise UsageError(f"quantise.bits {self.bits}: a weight has 2 (ternary) to 8 bits")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"quantise.epochs {self.epochs}: must be 1 or more; leave quantise.bits out for none")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"quantise.lr {self.lr}: must be positive and finite")
        if self.train_samples < 0:
            raise UsageError(f"quantise.train_samples {self.train_samples}: must be 0 (all) or more")


def first_epoch(config: "FitConfig") -> int | None:
    """The first epoch in integers, from 1; None where there is none."""
    if config.quantise.bits is None:
        return None
    last = config.quantise.epochs or (config.epochs if config.from_ else max(1, config.epochs // 3))
    return config.epochs - last + 1


def check(config: "FitConfig") -> None:
    """Refuse what cannot be had together. Of a run that begins from another, `check_network` follows once its network
    is known.

    Raises:
        UsageError: names the option, and what to use instead.
    """
    chosen = config.quantise
    if config.prune and not config.from_:
        raise UsageError(f"prune {config.prune:g}: takes weights away from a trained network; give --from CHECKPOINT")
    if chosen.bits is not None:
        if chosen.epochs is not None and chosen.epochs > config.epochs:
            raise UsageError(f"quantise.epochs {chosen.epochs}: the run has {config.epochs}")
        if config.precision != "float32":
            raise UsageError(f"quantise.bits {chosen.bits}: {config.precision} rounds integers; take precision float32")
        if config.device == "cuda":
            raise UsageError(f"quantise.bits {chosen.bits}: integers are exact on the CPU alone; take --device cpu")
        if config.diagnose:
            raise UsageError(f"diagnose {config.diagnose}: looks at networks in floats; leave it out with "
                             "quantise.bits")
    if config.from_ is None:
        check_network(config)


def check_network(config: "FitConfig") -> None:
    """Refuse what the run's network and recordings cannot have.

    Raises:
        UsageError: as `check`.
    """
    chosen, network = config.quantise, config.network
    if network.counts:
        _check_counting(config)
    heard = next((word for word in network.layers.split("-") if word.endswith("rec")), None)
    if heard and config.method == "a2sg":
        raise UsageError(f"method a2sg: chooses windows for layers that do not hear themselves, and {heard} does; take "
                         "hard, surrogate or sast")
    if heard and config.diagnose:
        raise UsageError(f"diagnose {config.diagnose}: SAST's bounds are those of a chain, and {heard} hears itself; "
                         "leave it out")
    if chosen.bits is None:
        return
    if heard:
        raise UsageError(f"quantise.bits {chosen.bits}: {heard} hears itself, which is not trained in integers; train "
                         "it in floats and quantise the graph (`hardspike export quantise`)")
    if network.pyramid:
        raise UsageError(f"quantise.bits {chosen.bits}: a pyramid is not trained in integers; train it in floats and "
                         "quantise its backbone (export nir --conv_stages, export quantise)")
    if network.plif:
        raise UsageError("network.plif: scales a neuron's input by a learned factor, which integers do not; train with "
                         "learn_beta, or without bits and quantise the export")
    if any(word[:2] == "mp" for word in network.layers.split("-")):
        raise UsageError(f"network.layers {network.layers}: max pooling is not trained in integers; take average "
                         "pooling (ap2) or a strided convolution")
    if chosen.target == "none":
        return
    if config.augment.mixup:
        raise UsageError(f"augment.mixup {config.augment.mixup}: gives fractions, and {chosen.target} takes whole "
                         "spikes; take cutmix, or --quantise.target none")
    if config.data.encoding != "binary":
        raise UsageError(f"data.encoding {config.data.encoding}: gives fractions, and {chosen.target} takes whole "
                         "spikes; take binary, or --quantise.target none")
    if network.counts and chosen.target == "loihi1":
        raise UsageError("quantise.target loihi1: keeps at least 1/4096 of a membrane, and neurons of "
                         f"{network.layers} keep nothing; take loihi2")
    if chosen.target == "loihi1" and network.reset != "zero":
        raise UsageError(f"network.reset {network.reset}: loihi1 resets to zero only; train with zero, or take "
                         "--quantise.target loihi2")
    if network.beta < 1 and round(network.beta * 4096) == 4096:
        raise UsageError(f"network.beta {network.beta}: rounds to 4096/4096, no leak at all; use 1 or below 0.9998")
    if chosen.target == "loihi1" and round(network.beta * 4096) == 0:
        raise UsageError(f"network.beta {network.beta}: loihi1 keeps at least 1/4096 of a membrane; use 0.0003 or more")


def _check_counting(config: "FitConfig") -> None:
    """Refuse what is of zeros and ones alone, for neurons that count."""
    layers, beta = config.network.layers, config.network.beta
    for key in ("rmp", "diagnose"):
        if value := getattr(config, key):
            raise UsageError(f"{key} {value:g}: is of neurons with one threshold; leave it out with {layers}")
    if config.method == "a2sg" and config.a2sg.metric != "local":
        raise UsageError(f"a2sg.metric {config.a2sg.metric}: is of what flows from step to step, and {layers} chooses "
                         "windows by thresholds; take local")
    if config.quantise.bits is not None and beta:
        raise UsageError(f"network.beta {beta:g}: neurons of several thresholds share one membrane, which no chip has; "
                         f"in integers {layers} takes 0, and no --quantise.bits otherwise")
