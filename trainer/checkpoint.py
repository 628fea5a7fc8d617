"""Checkpoints: plain tensors and values, read without running code, written whole or not at all."""

import io
import pickletools
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hardspike import (
    HardspikeError,
    file_size,
    from_values,
    one_line,
    printable,
    require_memory,
    shown,
    to_values,
    write_bytes,
)
from trainer.config import FitConfig, from_dict, to_dict
from trainer.networks import Network, build
from trainer.networks.connections import counts
from trainer.networks.integers import READOUT, IntegerNetwork, Integers, folded, wiring
from trainer.neurons.levels import LevelLeaky, highest
from trainer.quantise import TARGETS, THRESHOLD

FORMAT = 1
KEYS = ("config", "network", "slope", "hard", "shape", "classes", "epoch", "history", "diagnostics", "training")
ROW = ("epoch", "train_loss", "surrogate_accuracy", "hard_accuracy", "gap", "hard_loss", "spikes_per_sample", "slope",
       "gradient_evaluations", "train_seconds")
"""Numbers of every epoch in the history."""
SHARES = ("surrogate_accuracy", "hard_accuracy")
"""Those of them in [0, 1]."""
PIXEL_SHARES = ("surrogate_miou", "hard_miou")
"""And of a network that labels pixels (`trainer.segmentation`)."""
MEASURES = ("phi(-theta)", "q_loose", "q_tight")
"""Numbers of `trainer.analysis.theory.report`."""
LISTS = ("widths", "tgc", "spikes", "weight_counts", "weight_range")
"""What the history holds several numbers of for a layer, one a time step or bin; of all else it is one."""
TRAINING = ("network", "optimizer", "schedule", "method", "average")
LARGEST = 1 << 34
"""Bytes of a file."""
LARGEST_SCALE = 2.0**64
"""Integer units for 1, and 1 for integer units."""
LARGEST_PICKLE = 1 << 26
"""Bytes of all that is no tensor's content."""
MOST_VALUES, DEEPEST = 1_000_000, 32
_NAMES = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2",
          *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char",
                                                "Byte", "Bool"))}
"""All that the pickle of a checkpoint names."""
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


@dataclass
class Checkpoint:
    """A trained network and where it came from.

    Args:
        config: the run's configuration.
        network: in evaluation mode, hard or smooth as it was trained, with the slope it had.
        shape: (C, H, W) of a frame.
        classes: number of classes.
        epoch: epochs trained.
        history: one dict an epoch (losses, accuracies).
        diagnostics: `trainer.analysis.theory.report` and what else the run measured.
        training: optimizer, method and schedule state, in `last.pt` only.
        calibration: what `hardspike eval calibrate` changed after training (its `kind` and the values), None for a
            network as it was trained.
    """

    config: FitConfig
    network: Network
    shape: tuple[int, int, int]
    classes: int
    epoch: int
    history: list[dict]
    diagnostics: dict
    training: dict | None = None
    calibration: dict | None = None


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write atomically: a crash leaves the previous file."""
    neuron = next(iter(checkpoint.network.neurons().values()))
    content = {
        "format": FORMAT,
        "config": to_dict(checkpoint.config),
        "network": checkpoint.network.state_dict(),
        "integers": to_values(getattr(checkpoint.network, "integers", None)),
        "slope": neuron.surrogate.slope,
        "hard": neuron.hard,
        **{key: getattr(checkpoint, key) for key in
           ("shape", "classes", "epoch", "history", "diagnostics", "training", "calibration")},
    }
    made = io.BytesIO()  # torch's own writer ends in a traceback where the disk is full
    torch.save(content, made)
    write_bytes(path, made.getbuffer())


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote. What it holds is data: nothing that it names is imported, called or opened.

    Raises:
        HardspikeError: missing, empty, truncated or foreign file, one that would execute code, one that declares more
            than it holds, or whose values are not what `save` writes.
    """
    path = Path(path)
    if not path.exists():
        raise HardspikeError(f"{path}: no such checkpoint; `hardspike fit` writes best.pt and last.pt")
    require_memory(2 * file_size(path, LARGEST, "checkpoint"), f"{path}: reading it", "free some")
    content = _content(path)
    try:
        return _checkpoint(content, str(path))
    except HardspikeError as error:
        raise error if str(error).startswith(str(path)) else _damaged(str(path), str(error)) from error
    except Exception as error:  # torch surfaces values that do not fit as almost any exception
        raise HardspikeError(f"{path}: damaged checkpoint: {printable(one_line(error))[:200]}") from error


def _content(path: Path) -> dict:
    """What the file holds: values, and tensors that are in it whole."""
    try:
        foreign = _foreign(path)
        content = None if foreign else torch.load(path, map_location="cpu", weights_only=True)
    except HardspikeError:
        raise
    except Exception as error:  # zipfile, pickle and torch: a damaged file surfaces as almost any exception
        raise HardspikeError(f"{path}: not a checkpoint (empty, truncated, damaged or another kind of file)") from error
    if foreign:
        raise HardspikeError(f"{path}: refused: it names {foreign}, and would execute code when loaded; only "
                             "checkpoints of plain tensors and values are read")
    if not isinstance(content, dict) or "config" not in content or "network" not in content:
        raise HardspikeError(f"{path}: a PyTorch file, but not a checkpoint of `hardspike fit`")
    if type(content.get("format")) is not int or content["format"] != FORMAT:
        raise HardspikeError(f"{path}: checkpoint format {shown(content.get('format'))}; this version reads {FORMAT}")
    _check_plain(content, str(path), [0])
    return content


def _foreign(path: Path) -> str:
    """A name in the file's pickle that checkpoints do not have; empty where there is none.

    Raises:
        HardspikeError: the file packs its content, which torch never does.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or \
                sum(member.file_size for member in members) > path.stat().st_size:
            raise HardspikeError(f"{path}: not a checkpoint: it is packed, and would unpack to more than it is; torch "
                                 "writes none such")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if sum(member.file_size for member in pickles) > LARGEST_PICKLE:
            raise HardspikeError(f"{path}: holds more than {LARGEST_PICKLE >> 20} MB beside its tensors; no checkpoint")
        for member in pickles:
            for code, argument, _ in pickletools.genops(archive.read(member)):
                if code.name == "GLOBAL" and argument.replace(" ", ".") in _NAMES:
                    continue
                if code.name in _CALLS:
                    return printable(str(argument or code.name).replace(" ", "."))[:80]
    return ""


def _check_plain(value, where: str, count: list[int], depth: int = 0) -> None:
    """Refuse what is no plain value, tensors that are larger than what the file holds of them, and endless lists."""
    count[0] += 1
    if depth > DEEPEST or count[0] > MOST_VALUES:
        raise HardspikeError(f"{where}: holds more than {MOST_VALUES} values or lies deeper than {DEEPEST} levels; no "
                             "checkpoint of ours does")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str | int) or not str(key).isprintable():
                raise _damaged(where, f"key {shown(key)} is no name")
            _check_plain(inner, where, count, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(inner, where, count, depth + 1)
    elif isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or \
                value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise _damaged(where, f"a tensor of {tuple(value.shape)} is not stored in full")
    elif value is not None and not isinstance(value, str | int | float):
        raise _damaged(where, f"holds a {type(value).__name__}; plain values are read")


def _checkpoint(content: dict, where: str) -> Checkpoint:
    """The checkpoint of values that are plain."""
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise _damaged(where, f"'{missing[0]}' is missing")
    shape, classes = content["shape"], content["classes"]
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(_count(n) for n in (*shape, classes)):
        raise _damaged(where, f"shape {shown(shape)} and classes {shown(classes)}; three whole "
                              "numbers (C, H, W) and one are needed")
    rest = {key: content.get(key) for key in ("classes", "epoch", "history", "diagnostics", "training", "calibration")}
    if not isinstance(content["hard"], bool):
        raise _damaged(where, f"hard {shown(content['hard'])}; true or false is needed")
    config = from_dict(content["config"], where)
    _check_rest(rest, SHARES + PIXEL_SHARES if config.network.pyramid else SHARES, where)
    network = _network(config, content, tuple(shape), where)
    network.set_mode(content["hard"], replace(config.network.surrogate, slope=float(content["slope"])))
    bad = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        raise HardspikeError(f"{where}: {bad[0]} holds NaN or infinity; the run diverged, train again with a lower lr")
    return Checkpoint(config=config, network=network.eval(), shape=tuple(shape), **rest)


def _network(config: FitConfig, content: dict, shape: tuple[int, int, int], where: str) -> Network:
    """The network with its weights; it is not made larger than what the file holds."""
    weights = content["network"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise _damaged(where, "its network holds no tensors by name")
    held = sum(value.numel() for value in weights.values())
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and replaced
        network = build(config.network, shape, content["classes"], most=held)
        integers = None
        if content.get("integers") is not None:  # older files have none
            network = folded(network)
            integers = _integers(content, network, where)
    for name, value in network.state_dict().items():
        if name not in weights or weights[name].shape != value.shape:
            found = tuple(weights[name].shape) if name in weights else "not there"
            raise _damaged(where, f"{name} is {found}; layers {shown(config.network.layers)} have it of shape "
                                  f"{tuple(value.shape)}")
        # snnTorch keeps the kind of reset among the weights, and runs the one that it was made with
        if name.endswith("reset_mechanism_val") and not torch.equal(weights[name], value):
            raise _damaged(where, f"{name} is {shown(weights[name].tolist())}, where reset '{config.network.reset}' "
                                  f"has {value.item()}")
    network.load_state_dict(weights)
    if integers is None:
        return network
    kept = integers.target == "loihi1" or any(neuron.beta for neuron in network.neurons().values())
    if kept and counts(network):
        raise _damaged(where, "integers of neurons with several thresholds, which no chip gives a lasting membrane")
    return IntegerNetwork(network, integers)


def _integers(content: dict, network: Network, where: str) -> Integers:
    """How a folded network is in integers."""
    found = from_values(Integers, content["integers"], f"{where}: damaged checkpoint: integers")
    if found.target not in TARGETS or not 2 <= found.bits <= 8:
        raise _damaged(where, f"integers of {found.bits} bits for {shown(found.target)}; 2 to 8 and "
                              f"{', '.join(TARGETS)} are known")
    wires = wiring(network)
    neurons = {name: network.layers[name] for name in wires.inputs}
    step, levels = found.grid
    if list(found.layers) != list(neurons) or (found.readout > 0) != (READOUT in wires.neurons):
        raise _damaged(where, f"integers of layers {shown(list(found.layers))}, where the network has "
                              f"{', '.join(neurons)} and readout {network.readout}")
    for name, units in found.layers.items():
        neuron, weights = neurons[name], range(step, step * levels + 1, step) if wires.shortcuts(name) else (0,)
        odd = isinstance(neuron, LevelLeaky) and units.threshold % 2
        held = units.threshold >= 1 and highest(neuron, units.threshold) <= THRESHOLD and not odd
        if not (1 / LARGEST_SCALE < units.scale < LARGEST_SCALE and held and units.shortcut in weights):
            raise _damaged(where, f"layer {shown(name)} has scale {units.scale}, threshold {units.threshold}, shortcut "
                                  f"{units.shortcut}, which no chip holds")
    return found


def _check_rest(rest: dict, shares: tuple[str, ...], where: str) -> None:
    """Refuse what the run said of itself, where it is of another form than `Checkpoint` says; older files have no
    calibration. `shares`: numbers of every epoch that lie in [0, 1]."""
    if not _count(rest["epoch"], 0):
        raise _damaged(where, f"epoch {shown(rest['epoch'])}; a whole number is needed")
    if not isinstance(rest["history"], list):
        raise _damaged(where, f"history {shown(rest['history'])}; a list of epochs is needed")
    for number, row in enumerate(rest["history"], 1):
        wrong = [key for key in ROW if not isinstance(row, dict) or not _number(row.get(key))]
        if wrong:
            raise _damaged(where, f"history, epoch {number}: no number for '{wrong[0]}'")
        wrong = [key for key in shares if not _number(row.get(key)) or not 0 <= row[key] <= 1]
        if wrong:
            raise _damaged(where, f"history, epoch {number}: {wrong[0]} {shown(row.get(wrong[0]))}; 0 to 1 is possible")
        layers = row.get("layers", {})
        if not isinstance(layers, dict) or not all(map(_measured, layers.values())):
            raise _damaged(where, f"history, epoch {number}: layers {shown(layers)}; numbers of each layer are needed")
    for key in ("diagnostics", "training", "calibration"):
        if not isinstance(rest[key], dict) and not (rest[key] is None and key != "diagnostics"):
            raise _damaged(where, f"{key} {shown(rest[key])}; keys and values are needed")
    said = rest["diagnostics"]
    wrong = [key for key in MEASURES if not _number(said.get(key))]
    if wrong or not isinstance(said.get("theory_aligned"), bool) or not isinstance(said.get("why_not"), str):
        raise _damaged(where, f"diagnostics {shown(said)}; {', '.join(MEASURES)}, theory_aligned and "
                              "why_not are needed")
    if rest["training"] is not None and (lacking := [key for key in TRAINING if key not in rest["training"]]):
        raise _damaged(where, f"its training state has no '{lacking[0]}'; the run cannot go on, begin it anew")
    kind = None if rest["calibration"] is None else rest["calibration"].get("kind")
    if rest["calibration"] is not None and not (isinstance(kind, str) and kind and kind.isprintable()):
        raise _damaged(where, f"calibration of kind {shown(kind)}; a name is needed")


def _measured(layer) -> bool:
    """Whether a layer's values are numbers, or lists of them where these are asked for; NaN where there was nothing to
    measure."""
    if not isinstance(layer, dict):
        return False
    for name, value in layer.items():
        listed = isinstance(value, list | tuple)
        if listed is not (name in LISTS) or (listed and not value and name != "tgc"):
            return False
        if not all(type(number) in (int, float) for number in (value if listed else [value])):
            return False
    return True


def _damaged(where: str, what: str) -> HardspikeError:
    return HardspikeError(f"{where}: damaged checkpoint: {what}")


def _count(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1 << 31


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
