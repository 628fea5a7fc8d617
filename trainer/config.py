"""The configuration of a run: plain dataclasses, YAML in and out."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hardspike import OutFolder, UsageError, choice, from_values, to_values
from trainer.data.config import AugmentConfig, DataConfig, check_augment
from trainer.methods import METHODS
from trainer.methods.a2sg import A2sgConfig
from trainer.methods.sast import SastConfig
from trainer.networks.config import NetworkConfig
from trainer.quantise import QuantiseConfig, check

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bf16")
KEEP = ("hard", "surrogate", "last")
LARGEST = 3.4e38
"""Where float32 ends."""
LARGEST_SEED = 2**39
"""Every epoch and purpose has a generator, whose own seed is a multiple of it and takes 63 bits."""


@dataclass
class FitConfig:
    """A training run. The defaults are the recipe that did best on the validation part of the digits.

    Args:
        out: folder of the run: config.yaml, best.pt, last.pt, metrics.csv, TensorBoard events
        from_: a run's folder or a checkpoint whose weights to begin with; network and recordings are then its own
        prune: share of every layer's weights, the smallest, that is zero from the first step on; 0 prunes nothing
        method: surrogate (smooth forward), hard (hard forward, surrogate backward), sast or a2sg
        epochs: passes over the training part
        batch_size: recordings a step, of all processes together
        lr: peak learning rate of AdamW; warmed up, then half a cosine down
        warmup: epochs of the warm-up; null takes the first tenth of the run
        lr_start: what the warm-up begins from
        lr_end: what the cosine ends at
        weight_decay: of AdamW
        label_smoothing: of the cross-entropy
        rmp: factor of the RMP loss on membranes (trainer.losses.rmp) beside the cross-entropy; 0 leaves it out
        slope_end: slope of the spike function at the end of the run, reached geometrically from
            `network.surrogate.slope` (annealing towards the hard threshold); null keeps it
        average: decay per step of an exponential moving average of the weights, which is what is evaluated and kept,
            and which looks back on a ninth of the steps so far at most; 0 keeps the weights themselves
        keep: which epoch's weights become best.pt: hard or surrogate (the latest within one standard error of the best
            accuracy of that kind on the validation part) or last. Choosing by hard accuracy is a calibration: it is for
            deployment, and it hides what the transfer gap is about. Where nothing is chosen, no recordings are needed
            to choose by: with last, `data.validation` can be small
        seed: of the initial weights, the order of recordings and the augmentation
        device: cpu or cuda; null takes cuda where there is one and the run has no quantise.bits
        precision: float32, or bf16 for convolutions and linear layers in training (neurons, normalisation statistics,
            weights and all evaluation stay float32); checked against float32 before the first step
        channels_last: keep pictures with their channels innermost on a GPU, too, which is faster with bf16; training on
            the CPU always does; the same results to rounding
        threads: CPU threads; null leaves torch's own choice
        diagnose: epochs between diagnostics of every layer (trainer.analysis.diagnostics) and of sharpness (contraction
            q, SAM gap, secants; trainer.analysis.sharpness), which go to the history and to TensorBoard; 0 for none
        data: events and frames
        augment: augmentation of the training part
        network: layers and neurons
        quantise: training in a chip's integers
        sast: options of the method sast
        a2sg: options of the method a2sg
    """

    SHIPPED: ClassVar[Path] = Path(__file__).parent / "recipes"

    out: OutFolder = Path("runs/latest")
    from_: Path | None = None
    prune: float = 0.0
    method: str = "sast"
    epochs: int = 18
    batch_size: int = 32
    lr: float = 3e-3
    warmup: float | None = None
    lr_start: float = 0.0
    lr_end: float = 0.0
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0
    rmp: float = 0.0
    slope_end: float | None = None
    average: float = 0.98
    keep: str = "hard"
    seed: int = 0
    device: str | None = None
    precision: str = "float32"
    channels_last: bool = False
    threads: int | None = None
    diagnose: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    # Each section has its own class's defaults: what a file leaves out is what a Python caller leaves out.
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    quantise: QuantiseConfig = field(default_factory=QuantiseConfig)
    # One field for each of METHODS' options. They stand here by name, and are not made from the table, so that editors
    # and type checkers know them; a method without options needs none.
    sast: SastConfig = field(default_factory=SastConfig)
    a2sg: A2sgConfig = field(default_factory=A2sgConfig)

    def __post_init__(self):
        choice("method", self.method, METHODS)
        choice("precision", self.precision, PRECISIONS)
        choice("keep", self.keep, KEEP)
        if self.device is not None:
            choice("device", self.device, DEVICES)
        for key in ("epochs", "batch_size"):
            if getattr(self, key) < 1:
                raise UsageError(f"{key} {getattr(self, key)}: must be 1 or more")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"lr {self.lr}: must be positive and finite")
        for key in ("lr_start", "lr_end"):
            if not 0 <= getattr(self, key) <= self.lr:
                raise UsageError(f"{key} {getattr(self, key)}: must lie between 0 and lr, {self.lr}")
        if self.warmup is not None and not 0 <= self.warmup <= self.epochs:
            raise UsageError(f"warmup {self.warmup}: must lie between 0 and the run's {self.epochs} epochs")
        for key in ("weight_decay", "rmp"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise UsageError(f"{key} {getattr(self, key)}: must be 0 or more and finite")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads {self.threads}: must be 1 or more")
        if self.diagnose < 0:
            raise UsageError(f"diagnose {self.diagnose}: must be 0 (none) or more")
        check_augment(self.augment, self.data.steps * self.data.bins)
        if self.augment.randaugment.operations and (
                self.data.name, self.data.encoding, self.data.count_max) != ("images", "count", 255):
            raise UsageError(f"augment.randaugment.operations {self.augment.randaugment.operations}: takes pictures as "
                             "they are; give --data.name images --data.encoding count --data.count_max 255")
        for key, value in flat(dataclasses.asdict(self)).items():
            largest = {float: LARGEST, int: LARGEST_SEED if key == "seed" else 2**63 - 1}.get(type(value))
            if largest is not None and abs(value) > largest:
                raise UsageError(f"{key} {value}: must be at most {largest:.6g}; torch computes with no larger ones")
        for key in ("average", "label_smoothing", "prune"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"{key} {getattr(self, key)}: must lie in [0, 1)")
        if self.slope_end is not None and not 0 < self.slope_end < float("inf"):
            raise UsageError(f"slope_end {self.slope_end}: must be positive and finite")
        check(self)


def to_dict(config: FitConfig) -> dict:
    """Nested dict of plain values."""
    return to_values(config)


def from_dict(values: dict, source: str) -> FitConfig:
    """The configuration that `to_dict` gave; missing keys take their defaults.

    Raises:
        HardspikeError: an unknown key or a value that does not fit; `source` says where it came from.
    """
    return from_values(FitConfig, values, source)


def changes(one: FitConfig, other: FitConfig) -> dict[str, tuple]:
    """Key such as "network.beta" -> its two values, where they differ; where the results and the recordings lie is no
    difference."""
    a, b = flat(to_dict(one)), flat(to_dict(other))
    return {key: (a[key], b[key]) for key in a if a[key] != b[key] and key not in ("out", "data.path")}


def differences(one: FitConfig, other: FitConfig) -> list[str]:
    """`changes` in words, `key: a -> b` each."""
    return [f"{key}: {a} -> {b}" for key, (a, b) in changes(one, other).items()]


def flat(values: dict, prefix: str = "") -> dict:
    """Nested keys joined by dots."""
    out = {}
    for key, value in values.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out
