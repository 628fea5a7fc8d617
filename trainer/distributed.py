"""One training run in several processes that `torchrun` started, each with its shard of every minibatch.

What is promised is the run of one process with the joint minibatch, to rounding. So all that one process would compute
over the minibatch is computed over all shards: gradients (`average`), BatchNorm's statistics (`trainer.layers.norm`),
and what A2SG's search looks at (`gather`). Every process takes the same step from the same gradient; process 0 alone
evaluates, prints and writes.

Gradients are averaged here, explicitly, and not by wrapping the network in DistributedDataParallel. Its hooks fire in
`backward()` and not in `torch.autograd.grad`, which takes SAM's ascent direction; and SAM needs the joint gradient of
the first pass before it perturbs: perturbed by the gradient of its own shard, each process would descend from another
point (m-sharpness, another method).

In one process none of these functions does anything.
"""

import atexit
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from hardspike import HardspikeError

FEW = 1 << 12
"""So few values are averaged sooner by gathering them: gloo's all_reduce takes more than one exchange."""


def join(device: torch.device) -> torch.device:
    """Join the other processes of `torchrun`, for as long as this one lives: by NCCL on CUDA, one GPU a process, else
    by gloo.

    Returns:
        this process's device.

    Raises:
        HardspikeError: fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise HardspikeError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                                 "start as many processes as GPUs, or take --device cpu")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # The optimizer would import it later. What comes with it has the group as a default argument, which then
        # outlives destroy_process_group, with its threads; these abort the process when they let go of a tensor while
        # the interpreter ends.
        importlib.import_module("torch._dynamo")
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return device


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(count: int) -> slice:
    """This process's part of a minibatch of `count` recordings; parts are equal (`trainer.fit` sees to that)."""
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 runs the block before the others do: it makes the files that they read.

    Raises:
        HardspikeError: in the others, where the block failed in process 0, whose own error stands above.
    """
    if size() == 1:
        yield
    elif rank() == 0:
        made = False
        try:
            yield
            made = True
        finally:
            _say(made)
    else:
        if not _say(True):
            raise HardspikeError(f"process {rank()} ends, since process 0 failed in what this one waits for")
        yield


def _say(made: bool) -> bool:
    """What process 0 says, in every process."""
    said = torch.tensor(int(made), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.broadcast(said, 0)
    return bool(said)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, bit for bit the same in all of them."""
    if size() == 1:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    if flat.numel() <= FEW:
        flat = gather(flat[None]).mean(0)
    else:
        _wait(dist.all_reduce(flat, async_op=True))
        flat /= size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.view(tensor.shape))


def gather(shard: Tensor) -> Tensor:
    """Shards (B, ...) of all processes, in their order, (size*B, ...); no gradient."""
    if size() == 1:
        return shard
    parts = [torch.empty_like(shard, memory_format=torch.contiguous_format) for _ in range(size())]
    _wait(dist.all_gather(parts, shard.contiguous(), async_op=True))
    return torch.cat(parts)


def _wait(work: dist.Work) -> None:
    """On CPUs without going to sleep: to be woken up takes longer than the exchange of a few values."""
    if dist.get_backend() == "gloo":
        while not work.is_completed():
            os.sched_yield()
    work.wait()


def check_same(tensors: Sequence[Tensor], where: str) -> None:
    """Raise a HardspikeError unless every process holds the same values, bit for bit."""
    if size() == 1:
        return
    # integers: their sums do not depend on an order
    bits = torch.stack([tensor.detach().float().view(torch.int32).long().sum() for tensor in tensors])
    found = gather(bits[None])
    if not (found == found[0]).all():
        raise HardspikeError(f"{where}: the weights of the {size()} processes have come apart; all have to be "
                             "of the same hardware, versions and number of threads")
