"""`hardspike fit`: a run from its configuration to its folder."""

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from hardspike import HardspikeError, UsageError, atomic_path, logger, run_lock
from trainer import checkpoint as checkpoints
from trainer import distributed, hardware
from trainer.config import FitConfig, changes, flat, to_dict
from trainer.data import Data, load
from trainer.networks import build
from trainer.networks.integers import IntegerNetwork, require_pooling
from trainer.prune import prune
from trainer.quantise import check_network
from trainer.run import Run, scalars
from trainer.track import Log, tracked

_log = logger(__name__)


@dataclass
class Fit:
    """A finished run.

    Args:
        folder: where its files are.
        best: the checkpoint of the epoch that `FitConfig.keep` says (`best.pt`; see `trainer.run.is_best`).
        history: one dict an epoch.
    """

    folder: Path
    best: Path
    history: list[dict]


def fit(config: FitConfig, resume: bool = False, given: Collection[str] | None = None,
        track: str | None = None) -> Fit:
    """Train a network and keep the weights of its best epoch.

    The folder `out` gets config.yaml, best.pt (of the epoch that `keep` says: by default the latest within one standard
    error of the best hard validation accuracy), last.pt (to resume from), metrics.csv and TensorBoard events. The test
    split is never looked at. Torch's number of threads is afterwards what it was.

    `torchrun --nproc-per-node N -m trainer fit` trains in N processes, to the weights of one process to rounding; each
    takes its shard of every minibatch (`trainer.distributed`).

    Args:
        config: the run
        resume: go on with the run in `out` after its last whole epoch, to the same weights, bit for bit, that an
            uninterrupted run reaches
        given: what of `config` the caller set, such as "network.beta", which a resumed run must not contradict; None:
            whatever differs from the defaults
        track: mlflow or wandb, see `trainer.track`; None for neither

    Raises:
        UsageError: `out` holds a run already, a resumed one was begun with other settings, or the recordings do not
            give the minibatches asked for.
        HardspikeError: no such recordings, device or run, another process that writes to `out`, or a run that
            diverged.
    """
    if resume:
        config = _resumed(config, given)
    else:
        _check_new(config)
        config = begun_from(config, given)
    device = distributed.join(hardware.choose_device(config.device or ("cpu" if config.quantise.bits else None)))
    with hardware.cpu_threads(config.threads), hardware.repeatable():
        run = _begun(config, device, resume)
        # only now is there anything to write
        alone = run_lock(config.out) if distributed.rank() == 0 else nullcontext()
        with alone:
            if not resume and distributed.rank() == 0:
                _check_new(config)  # somebody may have been quicker
            return _finished(run, resume, track)


def _check_new(config: FitConfig) -> None:
    if (config.out / "last.pt").exists():
        raise UsageError(f"{config.out} holds a run already; --resume goes on with it, or choose another --out")


def begun_from(config: FitConfig, given: Collection[str] | None = None) -> FitConfig:
    """`config` with the network and the recordings of the checkpoint that it begins `from_`, where it does.

    Recordings are its own so that none that it was trained on is tested on.

    Raises:
        UsageError: the caller asks for others (`given` as in `fit`), or the checkpoint is in integers already.
        HardspikeError: there is no such checkpoint.
    """
    if config.from_ is None:
        return config
    stored = _first(config.from_)
    asked = set(changes(FitConfig(), config) if given is None else given)
    other = {key: pair for key, pair in changes(stored.config, config).items()
             if key in asked and key.split(".")[0] in ("network", "data")}
    if other:
        found = "; ".join(f"{key}: {a} -> {b}" for key, (a, b) in other.items())
        raise UsageError(f"from {config.from_}: has another network or other recordings ({found}), which stay as they "
                         "are; leave these options out")
    found = replace(config, network=stored.config.network,
                    data=replace(stored.config.data, path=config.data.path or stored.config.data.path))
    check_network(found)
    return found


def _first(path: Path) -> checkpoints.Checkpoint:
    """The checkpoint that a run begins from."""
    stored = checkpoints.load(path / "best.pt" if path.is_dir() else path)
    if isinstance(stored.network, IntegerNetwork):
        raise UsageError(f"from {path}: is trained in integers already; begin from the network in floats")
    if stored.calibration:
        raise UsageError(f"from {path}: was calibrated after training; begin from the network as it was trained")
    return stored


def _begun(config: FitConfig, device: torch.device, resume: bool = False) -> Run:
    """The run before its first step."""
    with distributed.first_process_first():
        data = load(config.data)
    _check_shards(config, len(data.train.labels))
    check_masks(config, data)
    # The weights depend on the seed alone, whatever ran before in this process
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = build(config.network, data.shape, data.classes)
    if config.quantise.bits and config.quantise.target != "none":
        require_pooling(network, data.shape)
    if config.from_ and not resume:  # a resumed run has its own weights
        network.load_state_dict(_first(config.from_).network.state_dict())
        if config.prune:
            prune(network, config.prune)
    return Run(config, data, network, device)


def _finished(run: Run, resume: bool, track: str | None) -> Fit:
    """The run after its last step, in a folder that is nobody else's."""
    config, leads = run.config, distributed.rank() == 0
    if resume:
        run.restore(checkpoints.load(config.out / "last.pt"))
    if leads:
        run.announce()
        with atomic_path(config.out / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    if config.precision != "float32" and not resume:
        run.check_precision()
    with tracked(track if leads else None, config, flat(to_dict(config))) as log:
        _train(run, leads, log)
    best = config.out / "best.pt"
    with distributed.first_process_first():
        if leads:
            # best.pt tells of the whole run, not only of the epochs up to it
            checkpoints.save(replace(checkpoints.load(best), history=run.history), best)
            _log.info(hardware.peak_memory(run.device))
    return Fit(config.out, best, run.history)


def _train(run: Run, leads: bool, log: Log) -> None:
    """The epochs that are left; the first process writes what each of them gave, and notes it with `log`."""
    config = run.config
    board = SummaryWriter(config.out, purge_step=len(run.history) + 1) if leads else None
    try:
        for epoch in range(len(run.history) + 1, config.epochs + 1):
            row = run.epoch(epoch)
            run.history.append(row)
            if board:
                run.save(row)
                _draw(board, row, epoch)
                log(scalars(row), epoch)
    finally:
        if board:
            board.close()


def _draw(board: SummaryWriter, row: dict, epoch: int) -> None:
    """A row of the history on TensorBoard."""
    for key, value in scalars(row).items():
        board.add_scalar(key, value, epoch)
    for layer, values in row.get("layers", {}).items():
        for key, value in values.items():
            if isinstance(value, int | float):
                board.add_scalar(f"{layer}/{key}", value, epoch)


def check_masks(config: FitConfig, data: Data) -> None:
    """Refuse what is not of labels of pixels where there are such, and a pyramid where there are none.

    Raises:
        UsageError: names the option, and what to do instead.
    """
    name, pyramid = config.data.name, config.network.pyramid
    if not data.masked:
        if pyramid:
            raise UsageError(f"network.pyramid {pyramid}: labels pixels, and {name} has one label a recording; leave "
                             "it out, or take --data.name canvas")
        return
    if not pyramid:
        raise UsageError(f"data {name}: has a label for every pixel; give --network.pyramid 32 and --network.layers "
                         "16c3-32c3s2-64c3s2, or another network without dense layers")
    for key in ("mixup", "cutmix"):
        if value := getattr(config.augment, key):
            raise UsageError(f"augment.{key} {value:g}: shares one label between two recordings, and {name} has one "
                             "for every pixel; leave it out")
    if config.diagnose:
        raise UsageError(f"diagnose {config.diagnose}: looks at losses of one label a recording, and {name} has one "
                         "for every pixel; leave it out")
    if distributed.size() > 1:
        raise UsageError(f"{distributed.size()} processes: minibatches with ignored pixels are not the mean of their "
                         f"shards; train on {name} in one process")


def _check_shards(config: FitConfig, recordings: int) -> None:
    """Refuse minibatches that cannot be cut into equal shards, one for each process."""
    processes, size = distributed.size(), config.batch_size
    if processes > 1 and (size % processes or size > recordings):
        raise UsageError(f"batch_size {size}: {processes} processes need a multiple of {processes}, at most the "
                         f"{recordings} recordings of the training part")


def _resumed(config: FitConfig, given: Collection[str] | None) -> FitConfig:
    """The stored configuration of the run in `out`; what the caller set must not contradict it."""
    last = config.out / "last.pt"
    stored = checkpoints.load(last)
    if stored.training is None:
        raise HardspikeError(f"{last}: holds a network, but not where its training stood (a copy of best.pt?); only "
                             "the last.pt that the run itself wrote can be gone on from: train anew into another --out")
    asked = set(changes(FitConfig(), config) if given is None else given)
    other = {key: pair for key, pair in changes(stored.config, config).items() if key in asked}
    if other:
        found = "; ".join(f"{key}: {a} -> {b}" for key, (a, b) in other.items())
        raise UsageError(f"{config.out} was begun with other settings ({found}); a resumed run keeps them")
    path = config.data.path or stored.config.data.path
    return replace(stored.config, out=config.out, data=replace(stored.config.data, path=path))
