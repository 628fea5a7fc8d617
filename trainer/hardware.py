"""What a run is computed on: the device, mixed precision, memory, minibatches made ahead of the step."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from hardspike import HardspikeError, logger
from trainer import distributed

_log = logger(__name__)

LEAST_COSINE, MOST_LOSS = 0.5, 0.05
"""Between bf16 and float32, on one minibatch: the gradients' cosine and the relative difference of the losses.

With smooth spikes the cosine is above 0.98; with hard ones behind BatchNorm 0.75 to 0.95, as bf16 moves some membranes
across the threshold.
"""


def choose_device(name: str | None) -> torch.device:
    """cpu or cuda; None takes cuda where there is one.

    Raises:
        HardspikeError: cuda is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise HardspikeError("device cuda: this PyTorch sees no GPU; install a CUDA build of it, or take --device cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """So many threads of torch within the block, as many as before after it; None leaves them alone.

    More than there are processors help nobody, and where the system has no more, OpenMP ends the process: then they are
    as many as the processors. A run that is resumed on a smaller machine keeps its configuration.
    """
    before, most = torch.get_num_threads(), os.cpu_count() or 1
    if count and count > most:
        _log.warning(f"threads {count}: this machine has {most} processors, of which each gets one")
        count = most
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)


@contextmanager
def repeatable() -> Iterator[None]:
    """Within the block cuDNN takes algorithms that give the same values each time, so that a run that is resumed on a
    GPU reaches the weights of one that was not; on the CPU they always do."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and linear layers in `precision` (float32 or bf16) within the block."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def check_precision(weights: list[Tensor], loss: Callable[[str], Tensor]) -> str:
    """Compare loss and gradient of one minibatch in bf16 with those in float32.

    Args:
        weights: what the gradient is taken in.
        loss: precision -> the loss, differentiable.

    Returns:
        One line that says how they compare.

    Raises:
        HardspikeError: they are too far apart to train by.
    """
    values, gradients = [], []
    for precision in ("float32", "bf16"):
        value = loss(precision)
        gradient = torch.autograd.grad(value, weights)
        value = value.detach()
        distributed.average([value, *gradient])
        values.append(value.item())
        gradients.append(torch.cat([g.flatten() for g in gradient]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    found = f"loss {values[1]:.5f} against float32's {values[0]:.5f}, cosine of the gradients {cosine:.4f}"
    if not (cosine >= LEAST_COSINE and abs(values[1] - values[0]) <= MOST_LOSS * abs(values[0])):
        raise HardspikeError(f"precision bf16: on the first minibatch {found}; at least {LEAST_COSINE} and at most "
                             f"{100 * MOST_LOSS:.0f} % apart is asked for: take --precision float32")
    return f"bf16 on the first minibatch: {found}"


def made_ahead(items: Iterator, depth: int = 2) -> Iterator:
    """The same endless `items`, made in a thread of their own, up to `depth` ahead of the reader."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items) for _ in range(depth))
        while True:
            item = waiting.popleft().result()
            waiting.append(pool.submit(next, items))
            yield item


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes that this process has held so far: of tensors on a GPU, of its whole memory, mapped files included, on
    the CPU. None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError, ValueError):  # Linux; ru_maxrss begins there with what the parent held
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory(device: torch.device) -> str:
    """`peak_bytes` in words."""
    host = peak_bytes(torch.device("cpu"))
    found = "peak memory not known on this system" if host is None else f"peak memory {host / 1e9:.2f} GB"
    if device.type == "cuda":
        found += f", on the GPU {peak_bytes(device) / 1e9:.2f} GB"
    return found + (f" in process 0 of {distributed.size()}" if distributed.size() > 1 else "")
