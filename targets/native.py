"""C compiled on the machine that runs it, kept by content. Nothing depends on it: who gets a reason instead runs torch.

What is loaded is code; see `hardspike.libraries`.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from hardspike import HardspikeError, cache_folder, libraries, one_line, scratch_folder

FLAGS = ("-std=gnu99", "-O3", "-fPIC", "-shared", "-frounding-math", "-fno-math-errno", "-fno-trapping-math", "-w")
TUNED = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ())
"""Tried in this order: not every compiler knows the first two."""
TIMEOUT = 300
"""Seconds that a compiler gets."""


def compilers() -> list[list[str]]:
    """C compilers of this machine: what $CC names, else cc, gcc, clang."""
    return [list(command) for command in _found(os.environ.get("CC", ""), os.environ.get("PATH", ""))]


@cache
def _found(named: str, path: str) -> list[tuple[str, ...]]:
    """Of $CC, or of the usual names, those on $PATH; as it was when somebody first asked."""
    names = [tuple(shlex.split(name)) for name in ([named] if named else ["cc", "gcc", "clang"])]
    return [name for name in names if name and shutil.which(name[0], path=path or None)]


def is_compiled(source: str) -> bool:
    """Whether `library` need not compile `source`."""
    return any(_loaded.get((source, tuple(command))) or _path(source, command, flags).is_file()
               for command in compilers() for flags in TUNED)


def library(source: str) -> tuple[ctypes.CDLL | None, str]:
    """C `source` compiled, and its path; or None and the reason why it is not."""
    reason = "no C compiler (cc, gcc, clang, or what $CC names)"
    for command in compilers():
        if (source, tuple(command)) in _loaded:
            return _loaded[source, tuple(command)]
        for flags in TUNED:
            try:
                found = _compiled(source, _path(source, command, flags), [*command, *flags, *FLAGS])
            except subprocess.CalledProcessError as error:
                reason = f"{command[0]} failed: {_first_error(error.stderr)}"
            except (OSError, subprocess.TimeoutExpired) as error:
                reason = f"{command[0]}: {one_line(error)}"
            except HardspikeError as error:  # the cache's, whichever compiler fills it
                return None, str(error)
            else:
                _loaded[source, tuple(command)] = found
                return found
    return None, reason


_loaded: dict[tuple[str, tuple[str, ...]], tuple[ctypes.CDLL, str]] = {}


def run_compiler(command: list[str], folder: Path | None = None, timeout: float = TIMEOUT, source: IO | None = None,
                 sink: IO | None = None) -> str:
    """Run a compiler, or what it made; its standard output. Ends with us, and whatever it started as well.

    Args:
        folder: where it runs.
        timeout: seconds.
        source, sink: its standard input and output, where they are files.

    Raises:
        subprocess.CalledProcessError: it fails; with what it said.
        subprocess.TimeoutExpired: it takes longer than `timeout` seconds.
        OSError: there is no such program.
    """
    process = subprocess.Popen(command, cwd=folder, stdin=source or subprocess.DEVNULL, stdout=sink or subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        out, said = process.communicate(timeout=timeout)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, said)
    return out or ""


def _first_error(said: str) -> str:
    lines = said.strip().splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[0])


def _path(source: str, command: list[str], flags: tuple[str, ...]) -> Path:
    content = "\n".join((source, version(tuple(command)), *command, *flags, *FLAGS, processor()))
    return cache_folder() / "kernels" / f"snn-{hashlib.sha256(content.encode()).hexdigest()[:32]}.so"


def _compiled(source: str, path: Path, command: list[str]) -> tuple[ctypes.CDLL, str]:
    def compile_to(out: Path) -> None:
        with scratch_folder() as folder:
            text = folder / "kernel.c"
            text.write_text(source)
            libraries.run([*command, str(text), "-o", str(out), "-lm"], out, TIMEOUT)

    found, file = libraries.loaded(path.stem, compile_to)
    return found, str(file)


@cache
def version(command: tuple[str, ...]) -> str:
    """What a compiler says of itself; nothing where it does not run."""
    try:
        return run_compiler([*command, "--version"], timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def processor() -> str:
    """What -march=native depends on; a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("vendor", "cpu family", "model", "flags", "Features", "CPU ")
    return "\n".join(line for line in lines if line.startswith(kept))
