"""The scan on the CPU in C++ (scan_native.cpp), compiled on the machine that runs it, on first use.

Nothing is compiled at install and nothing depends on it: where `obstacle` finds a reason, `trainer.scan` runs its torch
code. The library lies in `hardspike.cache_folder()/kernels`, named by a hash of source, compiler, flags and processor.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hardspike import HardspikeError, atomic_path, cache_folder
from trainer.spikes import Surrogate
from trainer.windows import Windows

SOURCE = Path(__file__).with_suffix(".cpp")
# contracted or reordered operations would move spikes; what is left out here (errno, traps) changes no value
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno",
         "-fno-trapping-math")
RESETS = ("subtract", "zero", "none")
FUNCTIONS = ("arctan", "fast_sigmoid", "sigmoid")
WINDOWS = ("", "box", "tri", "asy", "arc")
GRAIN = 32768
"""Elements below which a second thread does not pay; torch's own figure."""

_C_TYPES = {torch.float32: "float", torch.float64: "double"}


class _Parameter(ctypes.Structure):
    _fields_ = (("values", ctypes.c_void_p), ("each", ctypes.c_int64))


class _Scan(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("steps", "neurons", "threads")),
                *((name, ctypes.c_int32) for name in ("hard", "reset", "detach_reset", "function", "rest_at_zero",
                                                      "window")),
                ("slope", ctypes.c_double), ("height", ctypes.c_double), ("widths", ctypes.c_void_p),
                *((name, _Parameter) for name in ("beta", "threshold", "rest", "rest_slope")))


# ------------------------------------------------------------------------------------------------ compiler


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled library and its path, or None and the reason why there is none. Asked once a process."""
    reason = "no C++ compiler (c++, g++, clang++, or what $CXX names)"
    for compiler in [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]:
        command = shlex.split(compiler)
        if not shutil.which(command[0]):
            continue
        for flags in (("-march=native", *FLAGS), FLAGS):
            try:
                path = _compile(command, flags)
                compiled = ctypes.CDLL(str(path))
            except subprocess.CalledProcessError as error:
                reason = f"{compiler} failed: {(error.stderr.strip().splitlines() or ['no message'])[0]}"
            except (OSError, HardspikeError, subprocess.TimeoutExpired) as error:
                reason = f"{compiler}: {error}"
            else:
                _keep_freed_memory()
                return compiled, str(path)
    return None, reason


def _keep_freed_memory() -> None:
    """Let the process keep up to 1 GiB that tensors gave back, on glibc.

    Otherwise every training step gives its memory back to the system and takes it again page by page, which costs more
    than the scan.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            libc.mallopt(option, 1 << 30)


def _compile(command: list[str], flags: tuple[str, ...]) -> Path:
    """The library, from the cache where it has it."""
    def run(*arguments: str) -> str:
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, timeout=300).stdout

    content = "\n".join((SOURCE.read_text(), run("--version"), *command, *flags, _processor()))
    path = cache_folder() / "kernels" / f"scan-{hashlib.sha256(content.encode()).hexdigest()[:16]}.so"
    if not path.is_file():
        with atomic_path(path) as temporary:  # two processes may compile at once
            run(*flags, str(SOURCE), "-o", str(temporary))
    return path


def _processor() -> str:
    """What -march=native depends on; a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("vendor", "cpu family", "model", "flags", "Features",
                                                                "CPU ")))


# ------------------------------------------------------------------------------------------------ the scan


def obstacle(current: Tensor, beta: Tensor, threshold: Tensor) -> str | None:
    """Why the library cannot take these, or None."""
    if os.environ.get("HARDSPIKE_KERNEL") == "torch":
        return "HARDSPIKE_KERNEL=torch"
    if current.device.type != "cpu":
        return f"tensors on {current.device.type}"
    if current.dtype not in _C_TYPES:
        return f"tensors of {current.dtype}"
    if any(p.dtype != current.dtype or p.device != current.device for p in (beta, threshold)):
        return "beta or threshold of another type or device than the current"
    if type(current) is not Tensor or torch.compiler.is_compiling():
        return "tensors without memory of their own"
    if current.numel() == 0:
        return "no elements"
    return None if library()[0] else library()[1]


def forward(current: Tensor, beta: Tensor, threshold: Tensor, surrogate: Surrogate, hard: bool,
            reset: str) -> tuple[Tensor, Tensor]:
    """As `trainer.scan.lif_forward`."""
    current = _dense(current.detach())
    spikes, membrane = torch.empty_like(current), torch.empty_like(current)
    scan, _kept = _describe(current, beta, threshold, surrogate, hard, reset)
    _call("forward", current, scan, current, spikes, membrane)
    return spikes, membrane


def backward(grad: Tensor, grad_membrane: Tensor | None, membrane: Tensor, beta: Tensor, threshold: Tensor,
             surrogate: Surrogate, hard: bool, reset: str, detach_reset: bool, windows: Windows | None,
             learned: tuple[bool, bool]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As `trainer.scan.lif_backward`. Gradients of beta and threshold are summed in float64, in the same order
    whatever the number of threads."""
    scan, kept = _describe(membrane, beta, threshold, surrogate, hard, reset)
    scan.detach_reset = detach_reset
    if windows:
        scan.window, scan.height = WINDOWS.index(windows.name), windows.height
        kept.append(widths := windows.widths.to("cpu", torch.float64).contiguous())
        scan.widths = widths.data_ptr()
    grad_current = torch.empty_like(membrane)
    sums = [None if not needed else torch.empty_like(membrane[0], dtype=torch.float64) if value.numel() > 1 else
            torch.empty(library()[0].lif_blocks(ctypes.c_int64(scan.neurons)), dtype=torch.float64)
            for value, needed in zip((beta, threshold), learned, strict=True)]
    _call("backward", membrane, scan, membrane, _laid_out_as(membrane, grad), _laid_out_as(membrane, grad_membrane),
          grad_current, *sums)
    return grad_current, *(None if found is None else
                           (found.sum_to_size(value.shape) if value.numel() > 1 else found.sum().reshape(value.shape))
                           .to(value.dtype) for value, found in zip((beta, threshold), sums, strict=True))


def _describe(like: Tensor, beta: Tensor, threshold: Tensor, surrogate: Surrogate, hard: bool,
              reset: str) -> tuple[_Scan, list[Tensor]]:
    """What the library is told, and the tensors that it points to."""
    kept = []

    def parameter(value: Tensor) -> _Parameter:
        if value.numel() > 1:
            value = torch.empty_like(like[0]).copy_(value)
        kept.append(value)
        return _Parameter(value.data_ptr(), value.numel() > 1)

    scan = _Scan(steps=len(like), neurons=like[0].numel(), hard=hard, reset=RESETS.index(reset),
                 threads=torch.get_num_threads() if like.numel() > GRAIN else 1,
                 function=FUNCTIONS.index(surrogate.name), slope=surrogate.slope,
                 rest_at_zero=surrogate.rest_at_zero, beta=parameter(beta), threshold=parameter(threshold))
    if surrogate.rest_at_zero:
        scan.rest = parameter(surrogate.rest(threshold))
        scan.rest_slope = parameter(surrogate.derivative(-threshold, threshold))
    return scan, kept


def _call(name: str, like: Tensor, scan: _Scan, *tensors: Tensor | None) -> None:
    pointers = (ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors)
    getattr(library()[0], f"lif_{name}_{_C_TYPES[like.dtype]}")(ctypes.byref(scan), *pointers)


def _dense(x: Tensor) -> Tensor:
    """x, copied unless its time steps follow each other in memory without gaps, in whatever order of other axes:
    `channels_last` stays what it is."""
    order = sorted(range(1, x.dim()), key=lambda axis: -x.stride(axis))
    return x if x.permute(0, *order).is_contiguous() else x.contiguous()


def _laid_out_as(like: Tensor, x: Tensor | None) -> Tensor | None:
    return x if x is None or x.stride() == like.stride() else torch.empty_like(like).copy_(x)
