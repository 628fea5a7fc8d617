"""Work in children that are killed, or whose disk is full, and what has to be true of the folder afterwards."""

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from hardspike import HardspikeError, run

Problem = str
"""One line about what should not have been."""
PATIENCE = 600
"""Seconds of the clock after which a child hangs."""
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree")


def forked(work: Callable[[], object], limit: int | None = None, kill_after: float | None = None,
           kill_at: int | None = None, kill_clock: float | None = None) -> int | str:
    """Exit status of `work` in a child: 0, 1 for a HardspikeError of one line; "killed", "signal N" or a traceback's
    last line.

    Args:
        limit: bytes of the longest file that it may write.
        kill_after: seconds of the processor until SIGKILL: a machine may be busy.
        kill_clock: seconds of the clock until SIGKILL, for a child that waits for others.
        kill_at: number of the change to the file system (opened for writing, renamed, removed, ...) before which it
            kills itself.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status, said = 0, ""
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if kill_at is not None:
                sys.addaudithook(_killer(kill_at))
            result = work()
            status = result if isinstance(result, int) else 0
        except HardspikeError as error:
            status, said = 1, "" if str(error).isprintable() and len(str(error)) < 500 else f"bad line {error!r}"
        except BaseException as error:
            status, said = 77, f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:2000])
        os._exit(status)
    os.close(write)
    if kill_clock is not None:
        time.sleep(kill_clock)
        os.kill(child, signal.SIGKILL)
    if kill_after is not None:
        _kill(child, kill_after)
    status = _ended(child)
    said = os.read(read, 4000).decode()
    os.close(read)
    if os.WIFSIGNALED(status):
        aimed = (kill_after, kill_at, kill_clock) != (None, None, None)
        return "killed" if aimed and os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
    return said or os.WEXITSTATUS(status)


def _ended(child: int) -> int:
    """What waitpid says of a child; one that does not end is ended with SIGALRM."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGALRM)
        time.sleep(0.005)


def _changes(event: str, arguments: tuple) -> bool:
    if event == "open":
        _, mode, flags = arguments
        return (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
            isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    return event in WRITES


def _killer(number: int) -> Callable[[str, tuple], None]:
    """Kills this process before its change number `number`, from 1."""
    seen = [0]

    def hook(event: str, arguments: tuple) -> None:
        if _changes(event, arguments):
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def changes(work: Callable[[], object], note: Path) -> tuple[int, float, float, int | str]:
    """How often `work` changes the file system, its seconds of the processor and of the clock, and its status.

    Args:
        note: a file that is written and removed.
    """

    def counted() -> object:
        seen, before = [0], time.process_time()
        sys.addaudithook(lambda event, arguments: seen.__setitem__(0, seen[0] + _changes(event, arguments)))
        try:
            return work()
        finally:
            count, used = seen[0], time.process_time() - before
            note.write_text(f"{count} {used}")

    began = time.monotonic()
    status = forked(counted)
    took = time.monotonic() - began
    count, used = note.read_text().split()
    note.unlink()
    return int(count), float(used), took, status


def _kill(child: int, seconds: float) -> None:
    """SIGKILL once the child has used the processor for `seconds`."""
    while True:
        words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if words[0] == "Z":
            return
        if sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK") >= seconds:
            break
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)


def command(package: str, *words: object) -> Callable[[], int]:
    """A command of ours, in this process."""

    def call() -> int:
        try:
            return run(package, import_module(f"{package}.__main__").COMMANDS, [str(word) for word in words])
        except SystemExit as end:
            return int(end.code or 0)

    return call


def unloadable(folder: Path) -> list[str]:
    """Final files that cannot be read, and models beside which another one's report lies."""
    import onnx
    import yaml

    from hardspike import read_npz
    from targets import graph as graphs
    from targets.lava.net_file import read_net
    from trainer import checkpoint

    readers = {
        ".pt": checkpoint.load,
        ".nir": graphs.read,
        ".net": read_net,
        ".onnx": onnx.load,
        ".npz": read_npz,
        ".json": lambda path: json.loads(path.read_text()),
        ".yaml": lambda path: yaml.safe_load(path.read_text()),
        ".html": lambda path: path.read_text().index("</html>"),
        ".svg": lambda path: path.read_text().index("</svg>"),
        ".c": lambda path: path.read_text().rindex("}"),
        ".h": lambda path: path.read_text().rindex("#endif"),
    }
    bad = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix in readers:
            try:
                readers[path.suffix](path)
            except Exception as error:
                bad.append(f"{path.name}: {type(error).__name__} {str(error)[:80]}")
    return bad + [f"{path.name} is another model's" for path in folder.rglob("*.parity.json") if _foreign(path)]


def _foreign(report: Path) -> bool:
    said = json.loads(report.read_text())
    model = report.with_name(said["model"])
    return model.exists() and hashlib.sha256(model.read_bytes()).hexdigest() != said["file_sha256"]


def temporaries(folder: Path) -> list[str]:
    """What should be gone after the next run; a lock's file may stay where its owner was killed, and is taken over."""
    hidden = [path for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"]
    return sorted(str(path.relative_to(folder)) for path in [*hidden, *folder.glob("tmp/*")])


def running(folder: Path, patience: float = 20.0) -> list[str]:
    """Processes that still work for `folder`, which their environment or command names, after `patience` seconds."""
    deadline = time.monotonic() + patience
    while found := _processes(str(folder)):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.1)
    return []


def _processes(words: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            said = (place / "cmdline").read_bytes() + b"\0" + (place / "environ").read_bytes()
            if words.encode() in said and int(place.name) != os.getpid():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80])
        except OSError:
            continue
    return found


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The network of a checkpoint."""
    from trainer import checkpoint

    return checkpoint.load(path).network.state_dict()


def emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
