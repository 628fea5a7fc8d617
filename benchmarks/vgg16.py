"""A training step of VGG-16 on pictures as CIFAR has them: this project's preset against spikingjelly's SpikingVGG.

    python -m benchmarks.vgg16 measure                  # some minutes; --help for time steps, batch, threads
    python -m benchmarks.vgg16 measure --device cuda    # on a GPU, against each of spikingjelly's backends there

Both are one network: 13 convolutions with BatchNorm over batch and time, average pooling, two dense layers of 512, LIF
neurons of tau 2 whose soft reset leaks, the same weights; in float64 logits and gradients agree to rounding, which is
printed (in float32 a membrane that rounds across its threshold changes all that follows). Of `spiking_vgg16_bn`
(multi-step) the convolutions' stack is taken as it is, but for average instead of maximal pooling and without the
biases that BatchNorm cancels; its head is CIFAR's, not ImageNet's.

A step is forward, cross-entropy and backward, without optimizer, on random pictures shown at T steps (direct encoding),
in float32. Both take turns; ratios are of the same round. Memory is what autograd holds between forward and backward,
which is counted, not sampled.
"""

import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks import Device, now, where
from hardspike import print_table, progress, run
from trainer.hardware import choose_device
from trainer.methods.a2sg import A2SG, A2sgConfig
from trainer.networks import NetworkConfig, build
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows

SHAPE, CLASSES, TAU = (3, 32, 32), 10, 2.0
SLOPE = Surrogate().slope
OURS, A2SG_STEP, THEIRS = "hardspike, vgg16", "hardspike, vgg16, a2sg's windows", "spikingjelly, SpikingVGG"
BACKENDS = ("cupy", "triton")
"""Of spikingjelly, on a GPU, beside its torch code."""


def ours(windows: bool = False, steps: int = 4) -> nn.Module:
    """The preset `vgg16`, hard spikes; `windows`: A2SG's instead of an arctan's derivative."""
    torch.manual_seed(0)
    network = build(NetworkConfig("vgg16", beta=1 - 1 / TAU, reset="subtract_leaky", detach_reset=True,
                                  surrogate=Surrogate("arctan")), SHAPE, CLASSES)
    network.set_mode(hard=A2SG.hard)
    options = A2sgConfig()
    for neuron in network.neurons().values() if windows else ():
        neuron.windows = Windows(options.window, torch.full((steps,), options.width, dtype=torch.float64),
                                 options.height)
    return network


@contextmanager
def without_torchvision() -> Iterator[None]:
    """spikingjelly's VGG asks torchvision for a function that downloads weights; nobody calls it here. Where there is
    torchvision, it is left alone."""
    if importlib.util.find_spec("torchvision"):
        yield
        return
    name = "torchvision._internally_replaced_utils"
    stand_ins = {"torchvision": ModuleType("torchvision"), name: ModuleType(name)}
    stand_ins[name].load_state_dict_from_url = None
    missing = {key: module for key, module in stand_ins.items() if key not in sys.modules}
    sys.modules.update(missing)
    try:
        yield
    finally:
        for key in missing:
            sys.modules.pop(key)


class Theirs(nn.Module):
    """spikingjelly's SpikingVGG on T pictures, its logits averaged over time.

    Args:
        backend: of its neurons: torch, or on a GPU cupy or triton.

    Raises:
        ImportError: spikingjelly is not installed, or what the backend needs.
    """

    def __init__(self, backend: str = "torch"):
        super().__init__()
        if backend != "torch":
            importlib.import_module(backend)
        layer, neuron, surrogate, self.functional = (importlib.import_module(f"spikingjelly.activation_based.{name}")
                                                     for name in ("layer", "neuron", "surrogate", "functional"))
        with without_torchvision():
            vgg = importlib.import_module("spikingjelly.activation_based.model.spiking_vgg")
        options = {"tau": TAU, "decay_input": False, "v_reset": None, "detach_reset": True,
                   "surrogate_function": surrogate.ATan(2 * SLOPE)}
        self.network = vgg.spiking_vgg16_bn(spiking_neuron=neuron.LIFNode, num_classes=CLASSES, **options)
        features = self.network.features
        for index, module in enumerate(features):
            if isinstance(module, nn.MaxPool2d):
                features[index] = layer.AvgPool2d(2)
            elif isinstance(module, nn.Conv2d):
                module.bias = None
        self.network.avgpool = nn.Identity()
        self.network.avgpool.step_mode = "m"
        self.network.classifier = nn.Sequential(
            *(part for _ in range(2) for part in (layer.Linear(512, 512, bias=False), layer.BatchNorm1d(512),
                                                  neuron.LIFNode(**options))), layer.Linear(512, CLASSES))
        self.functional.set_step_mode(self.network, "m")
        self.functional.set_backend(self.network, backend, instance=neuron.LIFNode)
        own, other = list(self.parameters()), list(ours().parameters())
        with torch.no_grad():
            for mine, its in zip(own, other, strict=True):
                mine.copy_(its)

    def forward(self, frames: Tensor) -> Tensor:
        self.functional.reset_net(self.network)
        return self.network(frames).mean(0)


def variants(steps: int, device: str) -> dict[str, Callable[[], nn.Module]]:
    """What takes part on this device."""
    found = {OURS: ours, A2SG_STEP: lambda: ours(windows=True, steps=steps), THEIRS: Theirs}
    return found | {f"{THEIRS}, {name}": partial(Theirs, name) for name in BACKENDS if device == "cuda"}


def batch(steps: int, count: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Pictures (T, B, C, H, W), alike at all steps, and labels."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(count, *SHAPE, generator=generator).to(device)
    labels = torch.randint(CLASSES, (count,), generator=generator).to(device)
    return pictures.expand(steps, *pictures.shape), labels


def gradient(network: nn.Module, frames: Tensor, labels: Tensor) -> Tensor:
    """One step; gives the logits, leaves the gradients."""
    network.zero_grad(set_to_none=True)
    logits = network(frames)
    nn.functional.cross_entropy(logits, labels).backward()
    return logits.detach()


def kept(network: nn.Module, frames: Tensor, labels: Tensor) -> int:
    """Bytes that autograd holds between forward and backward, parameters apart, each storage once."""
    storages = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def hold(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda x: x):
        loss = nn.functional.cross_entropy(network(frames), labels)  # holds all of them: no address is used twice
    del loss
    return sum(size for place, size in storages.items() if place not in own)


def compare(steps: int, device: str = "cpu") -> str:
    """How far logits and gradients of both are apart on two pictures, in float64, relative to the largest."""
    frames, labels = batch(steps, 2, device)
    found = []
    for network in (ours().double().to(device), Theirs().double().to(device)):
        logits = gradient(network, frames.double(), labels)
        found.append((logits, [parameter.grad for parameter in network.parameters()]))
    logits = (found[0][0] - found[1][0]).abs().max() / found[0][0].abs().max()
    gradients = max(((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()
                    for a, b in zip(found[0][1], found[1][1], strict=True))
    return f"largest difference in float64, relative: logits {logits.item():.1e}, gradients {gradients:.1e}"


def measure(steps: int = 4, count: int = 16, rounds: int = 5, threads: int = 1,
            device: str = "cpu") -> tuple[list[dict], list[str]]:
    """One row a variant, and what there is to say."""
    torch.set_num_threads(threads)
    frames, labels = batch(steps, count, device)
    networks, said = {}, []
    for name, make in variants(steps, device).items():
        try:
            networks[name] = make().to(device)
        except ImportError as error:
            said.append(f"{name} left out: {error}")
    if THEIRS in networks:
        said.append(compare(steps, device))
    held = {name: kept(network, frames, labels) for name, network in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in progress(range(rounds + 1), f"vgg16, T={steps}, B={count}"):
        for name, network in networks.items():
            began = now(device)
            gradient(network, frames, labels)
            seconds[name].append(now(device) - began)
    rows = []
    for name, found in seconds.items():
        # the first round warms up
        speed = sorted(a / b for a, b in zip(seconds[THEIRS][1:], found[1:], strict=True)) if THEIRS in seconds else []
        against = {"speed / spikingjelly": statistics.median(speed), "least": speed[0], "most": speed[-1],
                   "memory / spikingjelly": held[name] / held[THEIRS]} if speed else {}
        rows.append({"variant": name, "ms": 1e3 * statistics.median(found[1:]), "memory MB": held[name] / 1e6,
                     **against})
    return rows, said


def vgg16(steps: int = 4, batch: int = 16, threads: int = 1, rounds: int = 5, device: Device = "cpu",
          json: Path | None = None) -> None:
    """Time and memory of a training step of VGG-16 at CIFAR's size.

    Args:
        steps: time steps T
        batch: pictures B
        threads: threads of torch
        rounds: rounds that are timed
        device: cpu or cuda
        json: file for the table's values
    """
    choose_device(device)
    rows, said = measure(steps, batch, rounds, threads, device)
    print_table(rows, f"a training step of VGG-16, {batch} pictures of {SHAPE}, T={steps}, {where(device, threads)}",
                json_file=json)
    print(*said, sep="\n", end="\n" * bool(said))


if __name__ == "__main__":
    sys.exit(run("benchmarks.vgg16", {"measure": vgg16}))
