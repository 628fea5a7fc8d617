"""Full disks, kills and two at once: every final file is loadable, and nothing is left over.

    make faults                       everything, some minutes
    python -m tests.fuzz.faults disk  one of disk, kills, concurrency

A full disk is a limit on the size of a file (RLIMIT_FSIZE), which needs no rights: a write beyond it fails as on a full
disk, in the middle of a file.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from hardspike import HardspikeError, run
from tests.fuzz import seeds

SIZES = 20
TINY = [
    "--epochs",
    "2",
    "--method",
    "hard",
    "--data.steps",
    "3",
    "--data.size",
    "8",
    "--network.layers",
    "4c5s4",
    "--device",
    "cpu",
]
QUICK = ["--samples", "8", "--corrupted", "4", "--severities", "0,0.5", "--bits", "8", "--targets", "reference,loihi2"]
STUDY = (
    "base: {epochs: 1, method: hard, device: cpu, data: {steps: 3, size: 8}, network: {layers: 4c5s4}}\n"
    "variants: {a: {lr: 0.003}, b: {lr: 0.01}}\n"
)
Problem = str
"""One line about what should not have been."""


def forked(work: Callable[[], object], limit: int | None = None, kill_after: float | None = None) -> int | str:
    """Exit status of `work` in a child: 0, 1 for a HardspikeError of one line; "killed", "signal N" or a traceback's
    last line.

    Args:
        limit: bytes of the longest file that it may write.
        kill_after: seconds until SIGKILL.
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
            result = work()
            status = result if isinstance(result, int) else 0
        except HardspikeError as error:
            status, said = 1, "" if str(error).isprintable() and len(str(error)) < 500 else f"bad line {error!r}"
        except BaseException as error:
            status, said = 77, f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:2000])
        os._exit(status)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = os.read(read, 4000).decode()
    os.close(read)
    if os.WIFSIGNALED(status):
        return "killed" if kill_after is not None else f"signal {os.WTERMSIG(status)}"
    return said or os.WEXITSTATUS(status)


# ------------------------------------------------------------------------------------------ full disks


def writers() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Name -> (suffix, what writes a file of about ten kilobytes or more)."""
    from hardspike import print_table, write_text
    from targets import graph as graphs
    from targets import reference
    from targets.lava.netx import write_net
    from trainer import checkpoint
    from trainer.data import cache

    made = Path(tempfile.mkdtemp(prefix="seeds-"))
    (made / "q.nir").write_bytes(seeds.files(made)[".nir"][1])
    integers = graphs.read(made / "q.nir")
    recording = reference.run(seeds.graph(), seeds.spikes())
    recording.output = torch.rand(50, 9, 8).double()
    shutil.rmtree(made)
    rows = [{"a": i, "b": "x" * 40} for i in range(300)]
    rng = [bytes(random.Random(i).randbytes(400)) for i in range(40)]
    return {
        "checkpoint": (".pt", lambda path: checkpoint.save(seeds.checkpoint(), path)),
        "graph": (".nir", lambda path: graphs.write(integers, path)),
        "net": (".net", lambda path: write_net(integers, path)),
        "recording": (".npz", lambda path: recording.save(path)),
        "table": (".json", lambda path: print_table(rows, json_file=path)),
        "csv": (".csv", lambda path: print_table(rows, csv_file=path)),
        "text": (".html", lambda path: write_text(path, "x" * 20_000)),
        "cache": (".npy", lambda path: cache.cached(path.stem, (40, 400), _bytes_of(rng)).any() and None),
    }


def _bytes_of(rows: list[bytes]) -> Iterator:
    import numpy as np

    for row in rows:
        yield np.frombuffer(row, np.uint8)


def full_disk(name: str, sizes: int = SIZES) -> Iterator[Problem]:
    """A writer at `sizes` sizes of the disk, with an older file in its place."""
    suffix, write = writers()[name]
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder)
    path = folder / f"out{suffix}"
    try:
        if forked(lambda: write(path)) != 0:
            yield f"{name}: does not write at all"
            return
        whole = path.read_bytes()
        for step in range(sizes):
            size = len(whole) * step // sizes
            path.write_bytes(b"old")
            status = forked(lambda: write(path), limit=size)
            left = sorted(found.name for found in folder.iterdir() if found != path)
            content = path.read_bytes() if path.exists() else None
            if content == whole:
                yield f"{name}: {size} of {len(whole)} bytes were enough"
            if status != 1 or content != b"old" or left:
                yield (
                    f"{name}, {size} of {len(whole)} bytes: {status}; the old file is "
                    f"{'whole' if content == b'old' else 'gone'}; left: {left}"
                )
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ kills


def _command(package: str, *words: object) -> Callable[[], int]:
    """A command of ours, in this process."""

    def call() -> int:
        from importlib import import_module

        try:
            return run(package, import_module(f"{package}.__main__").COMMANDS, [str(word) for word in words])
        except SystemExit as end:
            return int(end.code or 0)

    return call


def unloadable(folder: Path) -> list[str]:
    """Final files that cannot be read."""
    import onnx
    import yaml

    from targets import graph as graphs
    from targets.lava.net_file import read_net
    from trainer import checkpoint

    readers = {
        ".pt": checkpoint.load,
        ".nir": graphs.read,
        ".net": read_net,
        ".onnx": onnx.load,
        ".json": lambda path: json.loads(path.read_text()),
        ".yaml": lambda path: yaml.safe_load(path.read_text()),
        ".html": lambda path: path.read_text().index("</html>"),
    }
    bad = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix in readers:
            try:
                readers[path.suffix](path)
            except Exception as error:
                bad.append(f"{path.name}: {type(error).__name__} {str(error)[:80]}")
    return bad


def temporaries(folder: Path) -> list[str]:
    """What should be gone after the next run; a lock's file may stay where its owner was killed, and is taken over."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The network of a checkpoint."""
    from trainer import checkpoint

    return checkpoint.load(path).network.state_dict()


def killed_fits(count: int, seed: int = 0) -> Iterator[Problem]:
    """`trainer fit` killed at random moments and resumed: the same weights, bit for bit."""
    r, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="kill-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    try:
        for name in ("warm", "whole"):
            began = time.monotonic()
            if forked(_command("trainer", "fit", *TINY, "--out", folder / name)) != 0:
                yield "fit: does not run at all"
                return
            took = time.monotonic() - began
        whole = [weights(folder / "whole" / name) for name in ("best.pt", "last.pt")]
        for number in range(count):
            out = folder / f"run{number}"
            moment = r.uniform(0.1, took)
            forked(_command("trainer", "fit", *TINY, "--out", out), kill_after=moment)
            yield from (f"fit killed after {moment:.2f} s: {bad}" for bad in (unloadable(out) if out.exists() else ()))
            resume = ["--resume"] if (out / "last.pt").exists() else []
            status = forked(_command("trainer", "fit", *TINY, "--out", out, *resume))
            if status != 0:
                yield f"fit killed after {moment:.2f} s: the next run ends with {status}"
                continue
            for before, name in zip(whole, ("best.pt", "last.pt"), strict=True):
                after = weights(out / name)
                if not all(torch.equal(before[key], after[key]) for key in before):
                    yield f"fit killed after {moment:.2f} s: {name} has other weights than an uninterrupted run's"
            if left := temporaries(folder):
                yield f"fit killed after {moment:.2f} s: left after the next run: {left}"
            shutil.rmtree(out)
    finally:
        shutil.rmtree(folder)


def killed_commands(count: int, seed: int = 0) -> Iterator[Problem]:
    """Exports, the report and the cache of frames, killed at random moments over an older file."""
    r, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="kill-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    try:
        if forked(_command("trainer", "fit", *TINY, "--out", folder / "run")) != 0:
            yield "fit: does not run at all"
            return
        model = folder / "run" / "best.pt"
        (folder / "study.yaml").write_text(STUDY)
        commands = {
            "nir": ("export", "nir", model, "--out", "x.nir", "--samples", "8"),
            "quantise": ("export", "quantise", model, "--out", "x.nir", "--samples", "8"),
            "onnx": ("export", "onnx", model, "--out", "x.onnx", "--samples", "4"),
            "lava": ("export", "lava", model, "--out", "x.net", "--no-check"),
            "report": ("eval", "report", model, "--out", "x.html", *QUICK),
            "study": ("eval", "study", folder / "study.yaml", "--out", "x.runs", "--seeds", "1", "--jobs", "1"),
            "data": ("trainer", "data", "digits", "--steps", "3", "--out", "x.npz"),
        }
        for name, (package, *words) in commands.items():
            yield from _killed(name, package, words, count, r, folder)
    finally:
        shutil.rmtree(folder)


def _killed(name: str, package: str, words: list, count: int, r: random.Random, folder: Path) -> Iterator[Problem]:
    out = folder / name
    out.mkdir()
    command = _command(package, *(out / word if str(word).startswith("x.") else word for word in words))
    began = time.monotonic()
    if forked(command) != 0:
        yield f"{name}: does not run at all"
        return
    took = time.monotonic() - began
    for _ in range(count):
        moment = r.uniform(0.05, took)
        forked(command, kill_after=moment)
        yield from (f"{name} killed after {moment:.2f} s: {bad}" for bad in unloadable(out))
        if (status := forked(command)) != 0:
            yield f"{name} killed after {moment:.2f} s: the next run ends with {status}"
        if left := temporaries(out):
            yield f"{name} killed after {moment:.2f} s: left after the next run: {left}"


# ------------------------------------------------------------------------------------------ two at once


def concurrency() -> Iterator[Problem]:
    """Two runs into one folder: one wins, the other is refused."""
    folder = Path(tempfile.mkdtemp(prefix="two-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    try:
        forked(_command("trainer", "data", "digits", "--steps", "3", "--out", folder / "warm.npz"))
        children = []
        for number in (1, 2):
            child = os.fork()
            if child == 0:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 1)
                os.dup2(null, 2)
                os._exit(_command("trainer", "fit", *TINY, "--seed", number, "--out", folder / "run")())
            children.append(child)
        statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        if statuses[0] != 0 or statuses[1] not in (1, 2):
            yield f"two fits into one folder end with {statuses}"
        seeds_kept = {_seed(folder / "run" / name) for name in ("best.pt", "last.pt")}
        if len(seeds_kept) != 1 or unloadable(folder / "run"):
            yield f"two fits into one folder: files of runs {seeds_kept}; {unloadable(folder / 'run')}"
    finally:
        shutil.rmtree(folder)


def _seed(path: Path) -> int:
    from trainer import checkpoint

    return checkpoint.load(path).config.seed


def main() -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.faults", description=__doc__)
    parser.add_argument("what", nargs="*", default=["disk", "kills", "concurrency"])
    parser.add_argument("--sizes", type=int, default=SIZES, help="of the disk, for each writer")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = 0
    for what in options.what:
        parts = {
            "disk": lambda: (problem for name in writers() for problem in full_disk(name, options.sizes)),
            "kills": lambda: (*killed_fits(options.kills, options.seed), *killed_commands(options.kills, options.seed)),
            "concurrency": concurrency,
        }[what]
        began = time.monotonic()
        problems = list(parts())
        found += len(problems)
        print(f"{what}: {len(problems)} problems in {time.monotonic() - began:.0f} s", flush=True)
        for problem in problems:
            print(f"    {problem}", flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
