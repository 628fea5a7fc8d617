"""C++ for the CPU, compiled on the machine that runs it, on first use.

Nothing is compiled at install and nothing depends on it: where `library` finds a reason against, torch code runs. A
library lies in `hardspike.cache_folder()/kernels`, named by a hash of source, compiler, flags and processor, and is
loaded as `hardspike.libraries` says.
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
from torch import Tensor, nn

from hardspike import HardspikeError, one_line
from hardspike.libraries import loaded, run

FOLDER = Path(__file__).parent
HEADER = FOLDER / "native.h"
# contracted or reordered operations would move spikes; what is left out here (errno, traps) changes no value
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno",
         "-fno-trapping-math")
C_TYPES = {torch.float32: "float", torch.float64: "double"}


@cache
def library(name: str) -> tuple[ctypes.CDLL | None, str]:
    """`trainer/{name}.cpp` compiled, and its path; or None and the reason why it is not. Asked once a process."""
    reason = "no C++ compiler (c++, g++, clang++, or what $CXX names)"
    for compiler in [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]:
        try:
            command = shlex.split(compiler)
        except ValueError as error:  # a quotation mark without its other one
            return None, f"no C++ compiler: $CXX cannot be read ({error})"
        if not command or not shutil.which(command[0]):
            continue
        for flags in (("-march=native", *FLAGS), FLAGS):
            try:
                compiled, path = _compiled(FOLDER / f"{name}.cpp", command, flags)
            except subprocess.CalledProcessError as error:
                lines = error.stderr.strip().splitlines() or ["no message"]
                reason = f"{compiler} failed: {next((line for line in lines if 'error' in line), lines[0])}"
            except (OSError, subprocess.TimeoutExpired) as error:
                reason = f"{compiler}: {one_line(error)}"
            except HardspikeError as error:  # the cache's, whichever compiler fills it
                return None, str(error)
            else:
                compiled.use_pool(_torch_pool())
                _keep_freed_memory()
                return compiled, str(path)
    return None, reason


def refusal(device: str, *tensors: Tensor) -> str | None:
    """Why compiled code for `device` cannot take these, of which the first has the type of all; or None."""
    first = tensors[0]
    if os.environ.get("HARDSPIKE_KERNEL") == "torch":
        return "HARDSPIKE_KERNEL=torch"
    if first.device.type != device:
        return f"tensors on {first.device.type}"
    if first.dtype not in C_TYPES:
        return f"tensors of {first.dtype}"
    if any(other.dtype != first.dtype or other.device != first.device for other in tensors):
        return "parameters of another type or device than the input"
    if type(first) is not Tensor or torch.compiler.is_compiling() or any(other.is_neg() for other in tensors):
        return "tensors without memory of their own"
    return None if first.numel() else "no elements"


def obstacle(name: str, *tensors: Tensor) -> str | None:
    """Why the library `name` cannot take these, of which the first has the type of all; or None."""
    return refusal("cpu", *tensors) or (None if library(name)[0] else library(name)[1])


def call(name: str, function: str, *arguments: Tensor | ctypes.Structure | int | None) -> None:
    """`function` of the library `name`; tensors as pointers to their elements, structures by reference.

    Raises:
        MemoryError: what it needs for itself is not to be had.
    """
    def given(argument):
        if argument is None or isinstance(argument, Tensor):
            return ctypes.c_void_p(None if argument is None else argument.data_ptr())
        return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_int64(argument)

    if getattr(library(name)[0], function)(*map(given, arguments)):
        raise MemoryError(f"{function}: out of memory")


def hooked(layer: nn.Module) -> bool:
    """Whether somebody listens to calls of the layer, which compiled code in its place would not make."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def _torch_pool() -> ctypes.c_void_p:
    """`GOMP_parallel` of the OpenMP library that torch runs on; null where torch has none that we know.

    After an operation torch's threads wait for the next one in a busy loop. Threads of our own would have to share the
    cores with them.
    """
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return ctypes.c_void_p(None)


def _keep_freed_memory() -> None:
    """Let the process keep up to 1 GiB that tensors gave back, on glibc.

    Otherwise every training step gives its memory back to the system and takes it again page by page, which costs more
    than the scan.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            libc.mallopt(option, 1 << 30)


def _compiled(source: Path, command: list[str], flags: tuple[str, ...]) -> tuple[ctypes.CDLL, Path]:
    """The library and its file, from the cache where it has it."""
    version = run([*command, "--version"])
    content = "\n".join((source.read_text(), HEADER.read_text(), version, *command, *flags, _processor()))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]

    def compile_to(out: Path) -> None:
        run([*command, *flags, f"-I{FOLDER}", str(source), "-o", str(out)], out)

    return loaded(f"{source.stem}-{digest}", compile_to)


def _processor() -> str:
    """What -march=native depends on; a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("vendor", "cpu family", "model", "flags", "Features",
                                                                "CPU ")))
