"""One training run: what the loop changes, one step, one epoch, what is written after it."""

import csv
import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from hardspike import HardspikeError, atomic_path, few, logger, progress
from trainer import checkpoint as checkpoints
from trainer import distributed, hardware, losses
from trainer.analysis import diagnostics, sharpness, theory
from trainer.checkpoint import Checkpoint
from trainer.config import FitConfig
from trainer.data.augment import augment, augment_masks
from trainer.data.mix import mix
from trainer.data.samples import Data, in_bins, in_steps
from trainer.evaluate import evaluate, one_standard_error_below
from trainer.layers.norm import frozen_statistics, warm_statistics
from trainer.methods import METHODS, Measured
from trainer.networks import Network
from trainer.networks.integers import IntegerNetwork
from trainer.prune import keep_zeros
from trainer.quantise import first_epoch
from trainer.search import to_integers
from trainer.segmentation import PixelEvaluation
from trainer.training_state import check_training

_log = logger(__name__)

# frames (T, B, C, H, W), labels (B,), shares of classes (B, classes) or masks (B, H, W)
Batch = tuple[Tensor, Tensor]
DIAGNOSED = 32
"""Recordings that `diagnose` looks at."""


def scalars(row: dict) -> dict[str, float]:
    """A row of the history without what it holds of single layers."""
    return {key: value for key, value in row.items() if not isinstance(value, dict)}


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Random numbers of one epoch and purpose: a resumed run needs no stored generator state."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 16 + stream)


def _warm_cosine(step: int, total: int, warmup: int, start: float = 0.0, end: float = 0.0) -> float:
    """Factor on the learning rate: up linearly from `start` over the first `warmup` steps, then half a cosine down to
    `end`."""
    if step < warmup:
        return start + (1 - start) * (step + 1) / warmup
    down = min(1.0, (step - warmup) / max(1, total - warmup))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * down))


def _miou(row: dict) -> str:
    """An epoch's mean intersection over union in words, where pixels are labelled."""
    return f"mIoU: surrogate {100 * row['surrogate_miou']:.1f} %  hard {100 * row['hard_miou']:.1f} %  " \
        if "hard_miou" in row else ""


def is_best(history: list[dict], samples: int, keep: str = "hard") -> bool:
    """Whether the last epoch is the one to keep: within one standard error of the best validation accuracy.

    Of a run that ends in integers, only epochs in integers count once there are any.

    Among epochs that a validation part of `samples` recordings cannot tell apart, the latest has trained longest. Where
    pixels are labelled, which are not drawn one by one, it is the best mean intersection over union itself.

    Args:
        keep: hard or surrogate: whose accuracy; last: always.
    """
    if keep == "last":
        return True
    if f"{keep}_miou" in history[-1]:
        return history[-1][f"{keep}_miou"] == max(row[f"{keep}_miou"] for row in history)
    best = max(row[f"{keep}_accuracy"] for row in history if row.get("bits") == history[-1].get("bits"))
    return history[-1][f"{keep}_accuracy"] >= one_standard_error_below(best, samples)


class Run:
    """What the loop changes: network, optimizer, the method's state, the history.

    Args:
        config: the run.
        data: its recordings.
        network: to be trained; moved to `device`.
        device: what it is trained on.
    """

    def __init__(self, config: FitConfig, data: Data, network: Network, device: torch.device):
        self.config, self.data, self.network, self.device = config, data, network, device
        self.method = METHODS[config.method]
        self.state = self.method.state()
        self.history: list[dict] = []
        self.silent: list[str] = []  # layers in which nothing fired, hard, in the last epoch
        steepest = max(config.network.surrogate.slope, config.slope_end or 0.0)  # q grows with the slope
        network.set_mode(surrogate=config.network.surrogate.with_slope(steepest))
        self.theory = theory.report(network, self.method.hard)
        network.set_mode(self.method.hard, config.network.surrogate)
        network.to(device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format)
        self.batches = max(1, len(data.train.labels) // config.batch_size)
        self.integer_epoch = first_epoch(config)
        self._prepare(network, config.lr, (self.integer_epoch or config.epochs + 1) - 1)

    def _prepare(self, network: Network, lr: float, epochs: int) -> None:
        """Optimizer, schedule and averaged weights for `network`, which is trained from now on, for `epochs` epochs."""
        config, self.network = self.config, network
        if config.prune:
            keep_zeros(network)
        self.leaks = [leak for neuron in network.neurons().values() if (leak := neuron.learned_leak) is not None]
        weights = [p for p in network.parameters() if not any(p is leak for leak in self.leaks)]
        # decay would pull a learned leak towards forgetting
        groups = [{"params": weights}] + [{"params": self.leaks, "weight_decay": 0.0}] * bool(self.leaks)
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, functools.partial(
                _warm_cosine, total=epochs * self.batches, warmup=self._warmup(epochs * self.batches),
                start=min(1.0, config.lr_start / lr), end=min(1.0, config.lr_end / lr)))
        self.average = None
        if config.average:
            self.average = torch.optim.swa_utils.AveragedModel(
                network, multi_avg_fn=self._averaged, use_buffers=True)
        self.warming = True

    def _averaged(self, means: list[Tensor], values: list[Tensor], _) -> None:
        """One step of the moving average. It looks back on a ninth of the steps so far at most, as TensorFlow's
        `ExponentialMovingAverage` with `num_updates`: a short run would else be judged by what it began with."""
        steps = self.schedule.last_epoch - 1
        decay = min(self.config.average, (1 + steps) / (10 + steps))
        torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(means, values, None)

    def _warmup(self, total: int) -> int:
        """Steps of the warm-up."""
        asked = self.config.warmup
        return max(1, total // 10 if asked is None else min(total, round(asked * self.batches)))

    def _to_integers(self) -> None:
        """Go on in integers: the weights that would be kept, BatchNorm folded, scales chosen on the training part."""
        chosen = self.config.quantise
        frames = self.data.to_input(self.data.train.spread(chosen.train_samples).frames)
        self._adopt(to_integers(self.kept, frames, chosen.target, chosen.bits))
        if distributed.rank() == 0:
            _log.info(f"in integers of {chosen.bits} bits from here on, for target {chosen.target}; BatchNorm is "
                      "folded; units for 1: " + ", ".join(f"{name} {units.scale:.4g}" for name, units in
                                                  self.network.integers.layers.items()))

    def _adopt(self, network: IntegerNetwork) -> None:
        """Train `network` for the epochs that are in integers, with hard spikes."""
        network.set_mode(True)
        self.state.forget_weights()
        self._prepare(network, self.config.quantise.lr, self.config.epochs - self.integer_epoch + 1)

    @property
    def kept(self) -> Network:
        """The network that is evaluated and saved."""
        return self.average.module if self.average else self.network

    def announce(self) -> None:
        """Say what is trained on what, and what the theory says of it."""
        c, t = self.config, self.theory
        aligned = "yes" if t["theory_aligned"] else f"no ({t['why_not']})"
        where = self.device.type + (f", {distributed.size()} processes" if distributed.size() > 1 else "")
        _log.info(f"{c.method} on {c.data.name}: {len(self.data.train.labels)} recordings to train, "
                  f"{len(self.data.validation.labels)} to validate, T={self.data.steps}; "
                  f"{sum(p.numel() for p in self.network.parameters())} parameters; on {where}")
        _log.info(f"at the steepest slope: phi(-theta) {t['phi(-theta)']:.3g}, contraction q {t['q_loose']:.3g} loose, "
                  f"{t['q_tight']:.3g} tight; "
                  f"theory-aligned: {aligned}")

    def _stream(self, epoch: int, stream: int) -> Iterator[Batch]:
        """This process's shards of minibatches of the training part in an order of their own, augmented; endless.

        Order and augmentation are drawn for the joint minibatch: however many processes there are, the same
        recordings come in the same shape. They are drawn on the CPU: the same on every device.
        """
        order, noise = (_generator(self.config.seed, epoch, 2 * stream + i) for i in (0, 1))
        train, size, data, how = self.data.train, self.config.batch_size, self.data, self.config.augment
        mixes, still = bool(how.cutmix or how.mixup), data.still and not (how.jitter or how.drop)
        while True:
            for index in torch.randperm(len(train.labels), generator=order).split(size)[:self.batches]:
                shard = distributed.shard(len(index))
                part = slice(None) if mixes else shard  # whom one is mixed with may be another process's
                mine = index[part]
                frames, labels = train.at(mine)[:, :1 if still else None], train.labels[mine]
                if data.masked:
                    labels = augment_masks(labels, noise, how, part, len(index))
                labels = labels.to(self.device)
                frames = in_steps(augment(in_bins(frames, data.bins).to(self.device).float(), noise, how, part,
                                          len(index)), data.bins)
                if mixes:
                    frames, labels = (each[shard] for each in mix(frames, labels, data.classes, noise, how))
                x = data.to_input(frames)
                yield data.repeated(x) if still else x, labels

    def _streams(self, epoch: int) -> list[Iterator[Batch]]:
        """Two independent streams. A GPU leaves the processor idle, which makes its next minibatches meanwhile."""
        streams = [self._stream(epoch, 0), self._stream(epoch, 1)]
        return [hardware.made_ahead(stream) for stream in streams] if self.device.type == "cuda" else streams

    def epoch(self, epoch: int) -> dict:
        """One pass over the training part; returns its row of the history."""
        config = self.config
        if epoch == self.integer_epoch:
            self._to_integers()
        self._anneal(epoch)
        self.method.begin(self.state, epoch)
        self.network.train()
        first, second = self._streams(epoch)
        total, began = 0.0, time.perf_counter()
        steps = range(self.batches)
        leads = distributed.rank() == 0
        with progress(steps, f"epoch {epoch}/{config.epochs}") if leads else nullcontext(steps) as bar:
            for _ in bar:
                total += self.step(next(first), lambda: next(second))
        seconds = time.perf_counter() - began
        measured = self.method.end(self.state, config) or Measured()
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise self._diverged("weights became infinite or no numbers")
        distributed.check_same(list(self.network.parameters()), f"{config.out}: epoch {epoch}")
        smooth, hard = (evaluate(self.kept, self.data, self.data.validation, mode) for mode in (False, True))
        self.silent = [name for name, spikes in hard.spikes.items() if not spikes]
        row = {
            "epoch": epoch,
            "train_loss": total / self.batches,
            "surrogate_accuracy": smooth.accuracy,
            "hard_accuracy": hard.accuracy,
            "gap": smooth.accuracy - hard.accuracy,
            "hard_loss": hard.loss,
            "spikes_per_sample": sum(hard.spikes.values()),
            "slope": next(iter(self.network.neurons().values())).surrogate.slope,
            "gradient_evaluations": self.state.gradient_evaluations,
            "train_seconds": seconds,
            "peak_memory": hardware.peak_bytes(self.device),
            **measured.row,
        }
        if isinstance(smooth, PixelEvaluation) and isinstance(hard, PixelEvaluation):
            row |= smooth.row("surrogate") | hard.row("hard")
        if isinstance(self.network, IntegerNetwork):
            row["bits"] = config.quantise.bits
        layers = measured.layers
        if config.diagnose and (epoch % config.diagnose == 0 or epoch == config.epochs):
            found, sharp = self._diagnose()
            for name, values in found.items():
                layers[name] = layers.get(name, {}) | values
            row |= sharp
        if layers:
            row["layers"] = layers
        return row

    def step(self, batch: Batch, draw: Callable[[], Batch]) -> float:
        """One step of the optimizer; returns the loss. `draw` as in `trainer.methods.method.Method`."""
        config = self.config
        self.warming = self.warming and warm_statistics(self.network)
        value = self.method.gradient(self.network, self.loss, batch, draw, config, self.state).item()
        if not math.isfinite(value):
            raise self._diverged(f"loss became {value}")
        try:
            self.optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):  # torch's words where a factor of the step is beyond float32
                raise
            raise self._diverged(f"the optimizer's step failed ({error})") from error
        for neuron in self.network.neurons().values():  # outside [0, 1] it would get no gradient to come back
            if neuron.learned_leak is not None and not neuron.plif:
                neuron.beta.data.clamp_(0, 1)
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.network)
        return value

    def _diverged(self, what: str) -> HardspikeError:
        kept = ". last.pt holds the epoch before" if self.history else ""
        *options, last = self.method.lower
        return HardspikeError(f"{self.config.out}: {what} in epoch {len(self.history) + 1}; the run diverged: lower "
                              f"{', '.join(options)} or {last}{kept}")

    def loss(self, batch: Batch, precision: str | None = None) -> Tensor:
        """Cross-entropy, and the RMP loss where it is asked for; in `precision`, without it the configuration's."""
        membranes: dict[str, Tensor] | None = {} if self.config.rmp else None
        with hardware.autocast(self.device, precision or self.config.precision):
            logits = self.network(batch[0], membranes=membranes)
        logits = logits.to(self.network.layers["readout"].weight.dtype)
        loss = losses.classification(logits, batch[1], self.config.label_smoothing)
        if membranes:
            thresholds = {name: neuron.threshold for name, neuron in self.network.neurons().items()}
            loss = loss + self.config.rmp * losses.rmp(membranes, thresholds)
        return loss

    def check_precision(self) -> None:
        """Say how far mixed precision is from float32, or refuse it. See `hardware.check_precision`."""
        batch = next(self._stream(1, 0))
        weights = [p for p in self.network.parameters() if p.requires_grad]
        with frozen_statistics(self.network):
            found = hardware.check_precision(weights, lambda precision: self.loss(batch, precision))
        if distributed.rank() == 0:
            _log.info(found)

    def _diagnose(self) -> tuple[dict[str, dict], dict[str, float]]:
        """Diagnostics of layers and sharpness of the network that is kept, on the same recordings of the training part
        each time."""
        train = self.data.train
        index = torch.randperm(len(train.labels), generator=_generator(self.config.seed, 0, 0))[:DIAGNOSED]
        windows = {name: neuron.windows for name, neuron in self.network.neurons().items() if neuron.windows}
        frames, labels = self.data.to_input(train.at(index)).to(self.device), train.labels[index].to(self.device)
        return (diagnostics.diagnose(self.kept, frames, windows, self.config.seed),
                sharpness.logged(self.kept, frames, labels, self.config.sast.radius))

    def _anneal(self, epoch: int) -> None:
        """The slope of this epoch: geometric from the configured one to `slope_end`, which the last fifth keeps."""
        surrogate, end = self.config.network.surrogate, self.config.slope_end
        if end is not None:
            done = min(1.0, (epoch - 1) / max(1, round(0.8 * self.config.epochs) - 1))
            surrogate = surrogate.with_slope(surrogate.slope * (end / surrogate.slope) ** done)
        for network in {self.network, self.kept}:
            network.set_mode(surrogate=surrogate)

    def save(self, row: dict) -> None:
        """Say how the epoch went; write metrics.csv, best.pt where this epoch is the best so far, and last.pt, which
        ends the epoch."""
        run_as = self.config.quantise.target if "bits" in row and self.config.quantise.target != "none" else "hard"
        _log.info(f"epoch {row['epoch']:3d}/{self.config.epochs}  loss {row['train_loss']:.4f}  validation: surrogate "
                  f"{100 * row['surrogate_accuracy']:.1f} %  {run_as} {100 * row['hard_accuracy']:.1f} %  "
                  f"gap {100 * row['gap']:+.1f}  {_miou(row)}spikes {row['spikes_per_sample']:.0f}  "
                  f"{row['train_seconds']:.1f} s" + (f"  silent: {few(self.silent)}" if self.silent else ""))
        best = is_best(self.history, len(self.data.validation.labels), self.config.keep)
        out = self.config.out
        current = Checkpoint(self.config, self.kept, self.data.shape, self.data.classes, row["epoch"], self.history,
                             self.theory)
        with atomic_path(out / "metrics.csv") as temporary, open(temporary, "w", newline="") as file:
            # what is not measured in every epoch has its column all the same
            writer = csv.DictWriter(file, list(dict.fromkeys(key for each in self.history for key in scalars(each))))
            writer.writeheader()
            writer.writerows(map(scalars, self.history))
        if best:
            checkpoints.save(current, out / "best.pt")
        checkpoints.save(replace(current, training=self._training()), out / "last.pt")

    def _training(self) -> dict:
        """All that `restore` needs."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(), "method": self.state.to_dict(),
                "average": self.average.state_dict() if self.average else None}

    def restore(self, stored: Checkpoint) -> None:
        """Continue where `save` left off.

        Raises:
            HardspikeError: what was stored is not this run's.
        """
        training, where = stored.training, str(self.config.out / "last.pt")
        assert training is not None, where
        self.theory = stored.diagnostics
        if isinstance(stored.network, IntegerNetwork):
            self._adopt(stored.network.train())
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        check_training(training, self._training(), weights, where)
        self.state = self.method.state.from_dict(training["method"], where)
        if not self.state.fits(self.network, self.data.steps):
            raise HardspikeError(f"{where}: the state of its method is not one of this network; the run cannot go on "
                                 "from it: begin it anew into another --out")
        self.network.load_state_dict(training["network"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        if self.average:
            self.average.load_state_dict(training["average"])
        self.history = stored.history
