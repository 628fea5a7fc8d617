"""Full disks: every writer at twenty sizes; one line, and the old file whole.

A full disk is a limit on the size of a file (RLIMIT_FSIZE), which needs no rights: a write beyond it fails as on a full
disk, in the middle of a file. Where a small file system may be mounted (root on Linux), it is one as well: there all
files of a command share what is left.
"""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import snntorch as snn
import torch
from torch import nn

from tests.fuzz import seeds
from tests.fuzz.forks import Problem, command, forked
from tests.fuzz.kills import TINY

SIZES = 20
PAGE = 4096
"""Bytes by which the size of a mounted file system can differ."""


def writers(made: Path) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Name -> (suffix, what writes a file of `SIZES` pages or more).

    Args:
        made: a folder for what they write from.
    """
    from hardspike import print_table, write_csv, write_text
    from targets import graph as graphs
    from targets import reference
    from targets.lava import processes
    from targets.lava.netx import write_net
    from targets.loihi.layers import split
    from trainer import checkpoint
    from trainer.data import cache

    stored = seeds.checkpoint("40c3s2-64")
    (made / "q.nir").write_bytes(seeds.files(made)[".nir"][1])
    integers = seeds.integers(stored)
    recording = reference.run(seeds.graph(), seeds.spikes())
    recording.output = torch.rand(50, 90, 8).double()
    rows = [{"a": i, "b": "x" * 40} for i in range(1800)]
    rng = [bytes(random.Random(i).randbytes(4000)) for i in range(40)]
    network = split(graphs.plan(integers))
    return {
        "checkpoint": (".pt", lambda path: checkpoint.save(stored, path)),
        "graph": (".nir", lambda path: graphs.write(integers, path)),
        "net": (".net", lambda path: write_net(integers, path)),
        "processes": (".npz", lambda path: processes.describe(network, 4, path) and None),
        "recording": (".npz", lambda path: recording.save(path)),
        "table": (".json", lambda path: print_table(rows, json_file=path)),
        "csv": (".csv", lambda path: print_table(rows, csv_file=path)),
        "rows": (".csv", lambda path: write_csv(path, rows)),
        "text": (".html", lambda path: write_text(path, "x" * 100_000)),
        "frames": (".npy", lambda path: cache.cached(path.stem, (40, 4000), _bytes_of(rng)).any() and None),
    } | _commands(made, stored, integers)


def _commands(made: Path, stored, integers) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """What only a whole command writes."""
    from eval import cache as results
    from eval.plots import picture
    from targets import graph as graphs
    from trainer import checkpoint

    checkpoint.save(stored, made / "m.pt")
    graphs.write(integers, made / "m.nir")
    spikes = np.resize(np.random.default_rng(0).random(4000) < 0.4, (4, 16, *seeds.SHAPE)).astype("u1")
    (made / "s.npz").write_bytes(seeds.arrays(spikes=spikes, labels=np.arange(16) % 4))
    given = ("--input", made / "s.npz")

    def svg(path: Path) -> None:
        with picture(path, (6, 4)) as figure:
            figure.subplots().plot(np.random.default_rng(0).random(6000))

    def exported(*words: object) -> Callable[[Path], object]:
        return lambda path: command("export", *words, *given, "--out", path)()

    return {
        "picture": (".svg", svg),
        "result": (".json", lambda path: results._keep(path, lambda temporary: temporary.write_text("1" * 100_000))),
        "export nir": (".nir", exported("nir", made / "m.pt")),
        "export watched": (".nir", _watched),
        "export quantise": (".nir", exported("quantise", made / "m.pt", "--scale", "max_abs")),
        "export onnx": (".onnx", exported("onnx", made / "m.nir", "--no_check")),
        "export lava": (".net", exported("lava", made / "m.nir", "--no_check")),
        "export c": (".c", exported("c", made / "m.nir", "--no_check")),
        "calibrate": (".pt", lambda path: command("eval", "calibrate", made / "m.pt", "--kind", "bias", *given, "--out",
                                                  path)()),
        "frames of a split": (".npz", lambda path: command("trainer", "data", "digits", "--steps", "8", "--out",
                                                           path)()),
        "map": (".svg", lambda path: command("targets", "map", made / "m.nir", "--picture", path)()),
    }


class Hosted(nn.Module):
    """A network with something for the host before and behind it, so with three files of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(90, 160), snn.Leaky(beta=0.9)
        self.head = nn.Linear(160, 4)
        self.fc1.weight.data *= 3

    def forward(self, x):
        mem, total = self.lif1.init_leaky(), 0
        for step in torch.tanh(x):
            spk, mem = self.lif1(self.fc1(step), mem)
            total = total + spk
        return torch.softmax(self.head(total), -1)


def _watched(path: Path) -> None:
    from export.nir_file import write_checked

    generator = torch.Generator().manual_seed(0)
    write_checked(Hosted(), torch.rand(6, 4, 90, generator=generator), path)


def _bytes_of(rows: list[bytes]) -> Iterator:
    for row in rows:
        yield np.frombuffer(row, np.uint8)


@contextmanager
def place(name: str, suffix: str) -> Iterator[tuple[Path, Path]]:
    """A new folder and a file in it to write; the cache lies there, too, where it is what is written."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder if name == "frames" else folder.parent / "cache")
    try:
        yield folder, folder / f"out{suffix}"
    finally:
        shutil.rmtree(folder)


def limited(name: str, suffix: str, write: Callable[[Path], object], sizes: int) -> Iterator[Problem]:
    """A writer at `sizes` limits of a file's length, with an older file in its place."""
    with place(name, suffix) as (folder, path):
        if (status := forked(lambda: write(path))) != 0:
            yield f"{name}: does not write at all ({status})"
            return
        whole = path.read_bytes()
        if len(whole) < sizes:
            yield f"{name}: {len(whole)} bytes are too few for {sizes} sizes"
        beside = {found for found in folder.rglob("*") if found != path}
        for step in range(sizes):
            size = len(whole) * step // sizes
            path.write_bytes(b"old")
            status = forked(lambda: write(path), limit=size)
            yield from _judged(f"{name}, {size} of {len(whole)} bytes", status, path, folder, beside)


def mounted(name: str, suffix: str, write: Callable[[Path], object], sizes: int) -> Iterator[Problem]:
    """The same on a file system of `sizes` sizes, all of them too small."""
    with place(name, suffix) as (folder, path):
        if (status := forked(lambda: write(path))) != 0:
            yield f"{name}: does not write at all ({status})"
            return
        pages = sum(-(-found.stat().st_size // PAGE) for found in folder.rglob("*") if found.is_file())
        if pages < sizes:
            print(f"disk: {name}: skipped here: {pages} pages are no {sizes} sizes", flush=True)
            return
        for step in range(sizes):
            room = 1 + max(1, pages * step // sizes)  # the old file has one
            with mount(folder, room * PAGE):
                path.write_bytes(b"old")
                status = forked(lambda: write(path))
                yield from _judged(f"{name}, disk of {room} pages for {pages}", status, path, folder, set())


class mount:
    """A file system of some bytes on a folder, for a block."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size

    def __enter__(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "none", str(self.folder)], check=True,
                       capture_output=True)

    def __exit__(self, *_) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def mountable() -> str:
    """Why no file system can be mounted here; empty where one can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mount(Path(folder), PAGE):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            return said.decode(errors="replace").strip()[:200] or "mount fails"


def _judged(where: str, status: int | str, path: Path, folder: Path, beside: set[Path]) -> Iterator[Problem]:
    content = path.read_bytes() if path.exists() else None
    left = sorted(str(found.relative_to(folder)) for found in folder.rglob("*")
                  if found != path and found not in beside)
    if status != 1 or content != b"old" or left:
        state = "whole" if content == b"old" else "gone" if content is None else "replaced"
        yield f"{where}: {status}; the old file is {state}; left: {left}"


def full_disks(sizes: int = SIZES, only: str = "") -> Iterator[Problem]:
    """Every writer under both kinds of full disk; prints how many sizes were tried of each."""
    made = Path(tempfile.mkdtemp(prefix="seeds-"))
    try:
        found = {name: pair for name, pair in writers(made).items() if not only or name in only.split(",")}
        for what, kind in (("limits of a file's length", limited), ("full file systems", mounted)):
            why = mountable() if kind is mounted else ""
            if why:
                print(f"disk: skipped: {what}: {why}", flush=True)
                continue
            for name, (suffix, write) in found.items():
                yield from kind(name, suffix, write, sizes)
            print(f"disk: {len(found)} writers at {sizes} {what} each: {', '.join(found)}", flush=True)
        if not only:
            yield from full_run()
    finally:
        shutil.rmtree(made)


def full_run() -> Iterator[Problem]:
    """A whole run on a full file system: one line, and what was finished before can be read."""
    if mountable():
        return
    from tests.fuzz.forks import unloadable

    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder.parent / "cache")
    try:
        for pages in range(1, 2 * SIZES, 2):
            with mount(folder, pages * PAGE):
                status = forked(command("trainer", "fit", *TINY, "--out", folder / "run"))
                bad = unloadable(folder)
                left = [str(path) for path in folder.rglob(".*") if path.is_file()]
            if status not in (0, 1) or bad or left:
                yield f"fit, disk of {pages} pages: {status}; {bad}; left: {left}"
    finally:
        shutil.rmtree(folder)
