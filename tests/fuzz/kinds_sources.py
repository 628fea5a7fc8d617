"""Recordings of one's own: Prophesee's files, numpy's, and folders of all that the source `events` reads."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import mutate
from tests.fuzz.kinds_events import NAMES, five_bytes, one_file

SIDE = 40


def dat(r: random.Random) -> bytes:
    """Prophesee's .dat of CD events."""
    made, t = b"% Data file\n% Version 2\n% Width 40\n% end\n" + bytes((12, r.choice((8, 8, 8, 8, 4, 0)))), 0
    for _ in range(r.randrange(1, 60)):
        t += r.randrange(9000)
        made += struct.pack("<II", t, r.randrange(SIDE) | r.randrange(SIDE) << 14 | r.randrange(2) << 28)
    return made


def raw(r: random.Random) -> bytes:
    """Prophesee's .raw in EVT 2.0."""
    made, t = b"% evt 2.0\n% format EVT2;width=40;height=40\n% end\n", 0
    for _ in range(r.randrange(1, 60)):
        t += r.randrange(9000)
        made += struct.pack("<I", 8 << 28 | t >> 6)
        kind = r.choice((0, 1, 1, 1, 10, 15))
        made += struct.pack("<I", kind << 28 | (t & 63) << 22 | r.randrange(SIDE) << 11 | r.randrange(SIDE))
    return made


def arrays(r: random.Random, structured: bool) -> bytes:
    """Columns by name, or one structured array; some of another type, length, shape or spelling."""
    n, made = 30, io.BytesIO()
    columns = {"x": np.array([r.randrange(SIDE) for _ in range(n)]),
               "y": np.array([r.randrange(SIDE) for _ in range(n)]),
               "t": np.sort(np.array([r.randrange(10**5) for _ in range(n)])),
               "p": np.array([r.randrange(2) for _ in range(n)])}
    if r.random() < 0.5:
        key = r.choice("xytp")
        column = columns.pop(key)
        with np.errstate(all="ignore"):
            columns[r.choice((key, key, key, "ts", "pol", mutate.name(r).replace("/", "") or "z"))] = r.choice((
                column.astype(r.choice(("u1", "i2", "f2", "f8", ">i4", "c8", "U5", "?", "M8[s]"))),
                column * r.choice((-1, 1e3, 1e18, np.nan)),
                column if structured else column[:5],
                column if structured else column[None],
                column if structured else np.array(5),
            ))
    if structured:
        table = np.zeros(n, [(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            table[name] = column
        np.save(made, table[r.choice((slice(None), slice(0, 0), slice(None, None, -1)))], allow_pickle=False)
    else:
        np.savez(made, **{name: column for name, column in columns.items() if name != "file"})
    return made.getvalue()


def make_own(r: random.Random, folder: Path) -> Path:
    """A folder for each class, its files of any kind."""
    writers: dict[str, Callable[[random.Random], bytes]] = {
        ".dat": dat, ".raw": raw, ".bin": lambda r: five_bytes(r, SIDE), ".npz": lambda r: arrays(r, False),
        ".npy": lambda r: arrays(r, True)}
    path = folder / "own"
    parts = r.choice((("train", "test"), ("",)))
    suffix = r.choice(list(writers))
    for part in parts:
        for label in ("cat", "dog"):
            place = path / part / (label if r.random() < 0.97 else r.choice(NAMES))
            place.mkdir(parents=True, exist_ok=True)
            for number in range(4):
                data = writers[suffix](r)
                name = str(number) if r.random() < 0.98 else r.choice(NAMES)
                own = suffix if r.random() < 0.98 else r.choice((*writers, ".aedat", ".aedat4", ".DAT", ".x"))
                (place / f"{name}{own}").write_bytes(data if r.random() < 0.98 else mutate.mutated(r, data))
    return path


def use_own(path: Path) -> None:
    """All frames, as a command loads them."""
    from trainer.data import DataConfig, load

    data = load(DataConfig(name="events", path=path, sensor=(SIDE, SIDE), window_ms=300, steps=2, size=8,
                           validation=0.3))
    assert data.classes and len(data.train)


def use_dat(path: Path) -> None:
    """The reader of `.dat`."""
    from trainer.data.events import Sensor
    from trainer.data.readers.prophesee import read_dat

    read_dat(path, Sensor(SIDE, SIDE))


def use_raw(path: Path) -> None:
    """The reader of `.raw`."""
    from trainer.data.events import Sensor
    from trainer.data.readers.prophesee import read_raw

    read_raw(path, Sensor(SIDE, SIDE))


def _make_array(structured: bool) -> Callable[[random.Random, Path], Path]:
    def make(r: random.Random, folder: Path) -> Path:
        path, data = folder / ("in.npy" if structured else "in.npz"), arrays(r, structured)
        if r.random() < 0.3:
            data = mutate.mutated(r, data)
        elif structured and r.random() < 0.4:
            data = mutate.array_header(r, data)
        path.write_bytes(data)
        return path
    return make


def use_array(path: Path) -> None:
    """The readers of numpy's files."""
    from trainer.data.events import Sensor
    from trainer.data.readers.numpy_files import read_npy, read_npz_events

    (read_npy if path.suffix == ".npy" else read_npz_events)(path, Sensor(SIDE, SIDE))


KINDS: dict[str, tuple[Callable[[random.Random, Path], Path], Callable[[Path], Any]]] = {
    "dat": (one_file(dat, ".dat"), use_dat),
    "raw": (one_file(raw, ".raw"), use_raw),
    "events": (_make_array(False), use_array),
    "table": (_make_array(True), use_array),
    "own": (make_own, use_own),
}
"""Name -> (make, use); see `kinds`."""
