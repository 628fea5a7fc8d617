"""The training loop."""

import csv
import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from hardspike import HardspikeError, UsageError, atomic_path, progress
from trainer import checkpoint as checkpoints
from trainer import distributed, hardware, losses
from trainer.analysis import diagnostics, theory
from trainer.checkpoint import Checkpoint
from trainer.config import FitConfig, differences, to_dict
from trainer.data import Data, load
from trainer.data.augment import augment
from trainer.evaluate import evaluate, one_standard_error_below
from trainer.methods import METHODS, a2sg, sast
from trainer.networks import Network, build

Batch = tuple[Tensor, Tensor]  # frames (T, B, C, H, W), labels (B,)
DIAGNOSED = 32
"""Recordings that `diagnose` looks at."""


@dataclass
class Fit:
    """A finished run.

    Args:
        folder: where its files are.
        best: the checkpoint with the best hard validation accuracy (`best.pt`; see `is_best`).
        history: one dict an epoch.
    """

    folder: Path
    best: Path
    history: list[dict]


def fit(config: FitConfig, resume: bool = False) -> Fit:
    """Train a network and keep the checkpoint with the best hard-spike validation accuracy.

    The folder `out` gets config.yaml, best.pt (the latest epoch within one standard error of the best hard validation
    accuracy), last.pt (to resume from), metrics.csv and TensorBoard events. The test split is never looked at.

    `torchrun --nproc-per-node N -m trainer fit` trains in N processes, to the weights of one process to rounding; each
    takes its shard of every minibatch (`trainer.distributed`).

    Args:
        config: the run
        resume: go on with the run in `out` after its last whole epoch, to the same weights, bit for bit, that an
            uninterrupted run reaches
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    last = config.out / "last.pt"
    if last.exists() and not resume:
        raise UsageError(f"{config.out} holds a run already; --resume goes on with it, or choose another --out")
    if resume:
        config = _resumed(config)
    device = distributed.join(hardware.choose_device(config.device))
    leads = distributed.rank() == 0
    with distributed.first_process_first():
        data = load(config.data)
    _check_shards(config, len(data.train.labels))
    # The weights depend on the seed alone, whatever ran before in this process
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = build(config.network, data.shape, data.classes)
    run = _Run(config, data, network, device)
    if resume:
        run.restore(checkpoints.load(last))
    if leads:
        run.announce()
        with atomic_path(config.out / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
        board = SummaryWriter(config.out, purge_step=len(run.history) + 1)
    if config.precision != "float32" and not resume:
        run.check_precision()
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        row = run.epoch(epoch)
        run.history.append(row)
        if not leads:
            continue
        run.save(row)
        for key, value in _scalars(row).items():
            board.add_scalar(key, value, epoch)
        for layer, values in row.get("layers", {}).items():
            for key, value in values.items():
                if isinstance(value, int | float):
                    board.add_scalar(f"{layer}/{key}", value, epoch)
    best = config.out / "best.pt"
    with distributed.first_process_first():
        if leads:
            board.close()
            # best.pt tells of the whole run, not only of the epochs up to it
            checkpoints.save(replace(checkpoints.load(best), history=run.history), best)
            print(hardware.peak_memory(device))
    return Fit(config.out, best, run.history)


def _check_shards(config: FitConfig, recordings: int) -> None:
    """Refuse minibatches that cannot be cut into equal shards, one for each process."""
    processes, size = distributed.size(), config.batch_size
    if processes > 1 and (size % processes or size > recordings):
        raise UsageError(f"batch_size {size}: {processes} processes need a multiple of {processes}, at most the "
                         f"{recordings} recordings of the training part")


def _scalars(row: dict) -> dict[str, float]:
    """A row of the history without what it holds of single layers."""
    return {key: value for key, value in row.items() if not isinstance(value, dict)}


def _resumed(config: FitConfig) -> FitConfig:
    """The stored configuration of the run in `out`; what the caller set must not contradict it."""
    stored = checkpoints.load(config.out / "last.pt").config
    stored = replace(stored, out=config.out, data=replace(stored.data, path=config.data.path or stored.data.path))
    asked = differences(stored, config)
    if asked and differences(FitConfig(), config):
        raise UsageError(f"{config.out} was begun with other settings ({'; '.join(asked)}); a resumed run keeps them")
    return stored


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Random numbers of one epoch and purpose: a resumed run needs no stored generator state."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 16 + stream)


def _warm_cosine(step: int, total: int) -> float:
    """Factor on the learning rate: up linearly over the first tenth, then half a cosine down to zero."""
    warmup = max(1, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def is_best(history: list[dict], samples: int) -> bool:
    """Whether the last epoch is the one to keep: within one standard error of the best hard validation accuracy.

    Among epochs that a validation part of `samples` recordings cannot tell apart, the latest has trained longest.
    """
    best = max(row["hard_accuracy"] for row in history)
    return history[-1]["hard_accuracy"] >= one_standard_error_below(best, samples)


class _Run:
    """What the loop changes: network, optimizer, the method's state, the history."""

    def __init__(self, config: FitConfig, data: Data, network: Network, device: torch.device):
        self.config, self.data, self.network, self.device = config, data, network, device
        self.method = METHODS[config.method]
        self.method_state: dict = {}
        self.history: list[dict] = []
        steepest = max(config.network.surrogate.slope, config.slope_end or 0.0)  # q grows with the slope
        network.set_mode(surrogate=config.network.surrogate.with_slope(steepest))
        self.theory = theory.report(network, self.method.hard)
        network.set_mode(self.method.hard, config.network.surrogate)
        network.to(device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format)
        self.leaks = [neuron.beta for neuron in network.neurons().values() if neuron.beta.requires_grad]
        weights = [p for p in network.parameters() if not any(p is leak for leak in self.leaks)]
        # decay would pull a learned leak towards forgetting
        groups = [{"params": weights}] + [{"params": self.leaks, "weight_decay": 0.0}] * bool(self.leaks)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        self.batches = max(1, len(data.train.labels) // config.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, functools.partial(_warm_cosine, total=config.epochs * self.batches))
        self.average = None
        if config.average:
            self.average = torch.optim.swa_utils.AveragedModel(
                network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=True)

    @property
    def kept(self) -> Network:
        """The network that is evaluated and saved."""
        return self.average.module if self.average else self.network

    def announce(self) -> None:
        """Say what is trained on what, and what the theory says of it."""
        c, t = self.config, self.theory
        aligned = "yes" if t["theory_aligned"] else f"no ({t['why_not']})"
        where = self.device.type + (f", {distributed.size()} processes" if distributed.size() > 1 else "")
        print(f"{c.method} on {c.data.name}: {len(self.data.train.labels)} recordings to train, "
              f"{len(self.data.validation.labels)} to validate, T={self.data.steps}; "
              f"{sum(p.numel() for p in self.network.parameters())} parameters; on {where}")
        print(f"at the steepest slope: phi(-theta) {t['phi(-theta)']:.3g}, contraction q {t['q_loose']:.3g} loose, "
              f"{t['q_tight']:.3g} tight; "
              f"theory-aligned: {aligned}")

    def _stream(self, epoch: int, stream: int) -> Iterator[Batch]:
        """This process's shards of minibatches of the training part in an order of their own, augmented; endless.

        Order and augmentation are drawn for the joint minibatch: however many processes there are, the same
        recordings come in the same shape. They are drawn on the CPU: the same on every device.
        """
        order, noise = (_generator(self.config.seed, epoch, 2 * stream + i) for i in (0, 1))
        train, size = self.data.train, self.config.batch_size
        while True:
            for index in torch.randperm(len(train.labels), generator=order).split(size)[:self.batches]:
                shard = distributed.shard(len(index))
                mine = index[shard]
                frames = augment(train.at(mine).to(self.device).float(), noise, self.config.augment, shard,
                                 len(index))
                yield self.data.to_input(frames), train.labels[mine].to(self.device)

    def _streams(self, epoch: int) -> list[Iterator[Batch]]:
        """Two independent streams. A GPU leaves the processor idle, which makes its next minibatches meanwhile."""
        streams = [self._stream(epoch, 0), self._stream(epoch, 1)]
        return [hardware.made_ahead(stream) for stream in streams] if self.device.type == "cuda" else streams

    def epoch(self, epoch: int) -> dict:
        """One pass over the training part; returns its row of the history."""
        config = self.config
        self._anneal(epoch)
        self.network.train()
        first, second = self._streams(epoch)
        total, began = 0.0, time.perf_counter()
        steps = range(self.batches)
        leads = distributed.rank() == 0
        with progress(steps, f"epoch {epoch}/{config.epochs}") if leads else nullcontext(steps) as bar:
            for index in bar:
                self.method_state |= {"epoch": epoch, "batch": index}
                total += self.step(next(first), lambda: next(second))
        seconds = time.perf_counter() - began
        self.method_state.pop("previous", None)
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise self._diverged("weights became infinite or no numbers")
        distributed.check_same(list(self.network.parameters()), f"{config.out}: epoch {epoch}")
        smooth, hard = (evaluate(self.kept, self.data, self.data.validation, mode) for mode in (False, True))
        row = {
            "epoch": epoch,
            "train_loss": total / self.batches,
            "surrogate_accuracy": smooth.accuracy,
            "hard_accuracy": hard.accuracy,
            "gap": smooth.accuracy - hard.accuracy,
            "hard_loss": hard.loss,
            "spikes_per_sample": sum(hard.spikes.values()),
            "slope": next(iter(self.network.neurons().values())).surrogate.slope,
            "gradient_evaluations": self.method_state["gradient_evaluations"],
            "train_seconds": seconds,
        }
        layers = self.method_state.pop("measured", {})
        if layers:
            row |= a2sg.summary(layers, config.a2sg)
        if config.diagnose and (epoch % config.diagnose == 0 or epoch == config.epochs):
            for name, values in self._diagnose().items():
                layers[name] = layers.get(name, {}) | values
        if layers:
            row["layers"] = layers
        return row

    def step(self, batch: Batch, draw: Callable[[], Batch]) -> float:
        """One step of the optimizer; returns the loss. `draw` as in `trainer.methods.Method`."""
        config = self.config
        value = self.method.gradient(self.network, self.loss, batch, draw, config, self.method_state).item()
        if not math.isfinite(value):
            raise self._diverged(f"loss became {value}")
        try:
            self.optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):  # torch's words where a factor of the step is beyond float32
                raise
            raise self._diverged(f"the optimizer's step failed ({error})") from error
        for leak in self.leaks:  # outside [0, 1] it would get no gradient to come back
            leak.data.clamp_(0, 1)
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.network)
        return value

    def _diverged(self, what: str) -> HardspikeError:
        kept = ". last.pt holds the epoch before" if self.history else ""
        return HardspikeError(f"{self.config.out}: {what} in epoch {self.method_state['epoch']}; the run diverged: "
                              f"lower lr, gain or rho{kept}")

    def loss(self, batch: Batch, precision: str | None = None) -> Tensor:
        """Cross-entropy, and the RMP loss where it is asked for; in `precision`, without it the configuration's."""
        membranes: dict[str, Tensor] | None = {} if self.config.rmp else None
        with hardware.autocast(self.device, precision or self.config.precision):
            logits = self.network(batch[0], membranes=membranes)
        logits = logits.to(self.network.layers["readout"].weight.dtype)
        loss = torch.nn.functional.cross_entropy(logits, batch[1], label_smoothing=self.config.label_smoothing)
        if membranes:
            thresholds = {name: neuron.threshold for name, neuron in self.network.neurons().items()}
            loss = loss + self.config.rmp * losses.rmp(membranes, thresholds)
        return loss

    def check_precision(self) -> None:
        """Say how far mixed precision is from float32, or refuse it. See `hardware.check_precision`."""
        batch = next(self._stream(1, 0))
        weights = [p for p in self.network.parameters() if p.requires_grad]
        with sast.frozen_statistics(self.network):
            found = hardware.check_precision(weights, lambda precision: self.loss(batch, precision))
        if distributed.rank() == 0:
            print(found)

    def _diagnose(self) -> dict[str, dict]:
        """Diagnostics of the network that is kept, on the same recordings of the training part each time."""
        train = self.data.train
        index = torch.randperm(len(train.labels), generator=_generator(self.config.seed, 0, 0))[:DIAGNOSED]
        windows = {name: neuron.windows for name, neuron in self.network.neurons().items() if neuron.windows}
        return diagnostics.diagnose(self.kept, self.data.to_input(train.at(index)).to(self.device), windows,
                                    self.config.seed)

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
        print(f"epoch {row['epoch']:3d}/{self.config.epochs}  loss {row['train_loss']:.4f}  validation: surrogate "
              f"{100 * row['surrogate_accuracy']:.1f} %  hard {100 * row['hard_accuracy']:.1f} %  "
              f"gap {100 * row['gap']:+.1f}  spikes {row['spikes_per_sample']:.0f}  {row['train_seconds']:.1f} s",
              flush=True)
        best = is_best(self.history, len(self.data.validation.labels))
        out = self.config.out
        current = Checkpoint(self.config, self.kept, self.data.shape, self.data.classes, row["epoch"], self.history,
                             self.theory)
        with atomic_path(out / "metrics.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(_scalars(row)))
            writer.writeheader()
            writer.writerows(map(_scalars, self.history))
        if best:
            checkpoints.save(current, out / "best.pt")
        training = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(), "method": self.method_state,
                    "average": self.average.state_dict() if self.average else None}
        checkpoints.save(replace(current, training=training), out / "last.pt")

    def restore(self, stored: Checkpoint) -> None:
        """Continue where `save` left off."""
        training = stored.training
        self.network.load_state_dict(training["network"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        self.method_state = training["method"]
        if self.average:
            self.average.load_state_dict(training["average"])
        self.history = stored.history
