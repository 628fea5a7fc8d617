"""Recordings of event cameras, one kind for every reader."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import mutate

ODD = (
    "",
    "-1",
    "1e9",
    "9" * 20,
    "9" * 5000,
    "nan",
    "é",
    "/etc/passwd",
    "..",
    "**",
    "../x",
    '"',
    "1000000000000000000",
    "x" * 300,
    "\x1b[31m",
    "0x10",
    "٣",
    "[",
    "a/b",
    "99999999999",
    "1.5",
    mutate.CANARY,
)


def five_bytes(r: random.Random, side: int = 34, count: int = 60) -> bytes:
    """N-MNIST's format."""
    made, t = b"", 0
    for _ in range(count):
        t += r.randrange(9000)
        made += bytes(
            (r.randrange(side), r.randrange(side), (r.randrange(2) << 7) | (t >> 16 & 127), t >> 8 & 255, t & 255)
        )
    return made


def aedat3(r: random.Random, packets: int = 3) -> bytes:
    """AEDAT 3.1, as the original DVS128 Gesture."""
    made, t = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n", 0
    for _ in range(packets):
        number = r.randrange(1, 30)
        made += struct.pack("<hhiiiiii", r.choice((1, 1, 1, 0, 2)), 1, 8, 4, 0, number, number, number)
        for _ in range(number):
            t += r.randrange(5000)
            made += struct.pack("<II", r.randrange(128) << 17 | r.randrange(128) << 2 | r.randrange(2) << 1 | 1, t)
    return made


def aedat2(r: random.Random) -> bytes:
    """AEDAT 2.0, as the original CIFAR10-DVS."""
    made, t = b"#!AER-DAT2.0\r\n# x\r\n", 0
    for _ in range(r.randrange(1, 60)):
        t += r.randrange(9000)
        made += struct.pack(">Ii", r.randrange(1 << 15), t)
    return made


def array(r: random.Random, side: int = 128) -> np.ndarray:
    """(N, 4): x, y, p, t (ms), as tonic's DVS128 Gesture; sometimes with one value off."""
    made = np.array(
        [[r.randrange(side), r.randrange(side), r.randrange(2), t] for t in sorted(r.randrange(99) for _ in range(50))]
    )
    made = made.astype(r.choice(("i8", "f8", "u8", "i2", "f4", "u1")))
    if r.random() < 0.5:
        with np.errstate(all="ignore"):
            made[r.randrange(50), r.randrange(4)] = np.float64(
                r.choice((np.nan, np.inf, -1, 2, 1e18, 300, 2.0**40, 0.5))
            ).astype(made.dtype)
    return made


def one_file(valid: Callable[[random.Random], bytes], suffix: str) -> Callable[[random.Random, Path], Path]:
    """Changed bytes of a valid recording."""

    def make(r: random.Random, folder: Path) -> Path:
        path = folder / f"in{suffix}"
        path.write_bytes(mutate.mutated(r, valid(r), [valid(r)]))
        return path

    return make


def _frames(events: np.ndarray, side: int) -> None:
    from trainer.data.events import to_counts

    counts = to_counts(events, 4, side, 0, 300_000, 16)
    assert counts.sum() <= len(events) and counts.shape == (4, 2, 16, 16)


def use_five_bytes(path: Path) -> None:
    """N-MNIST's reader."""
    from trainer.data.readers.five_bytes import read_five_bytes

    _frames(read_five_bytes(path, 34), 34)


def use_aedat3(path: Path) -> None:
    """The reader of AEDAT 3.1."""
    from trainer.data.readers.aedat import read_aedat

    _frames(read_aedat(path, 128), 128)


def use_aedat2(path: Path) -> None:
    """The reader of AEDAT 2.0."""
    from trainer.data.readers.aedat import read_aedat2

    _frames(read_aedat2(path), 128)


def make_columns(r: random.Random, folder: Path) -> Path:
    """spikingjelly's `.npz` of CIFAR10-DVS."""
    path, n = folder / "in.npz", 30
    columns = {
        "t": np.sort(np.array([r.randrange(10**6) for _ in range(n)])),
        **{key: np.array([r.randrange(128) for _ in range(n)]) for key in "xy"},
        "p": np.array([r.randrange(2) for _ in range(n)]),
    }
    for key in columns:
        if r.random() < 0.3:
            columns[key] = columns[key].astype(r.choice(("i8", "u8", "u4", "i2", "?", "f8", "c8", "U3")))
    if r.random() < 0.3:
        columns[r.choice("txyp")] = r.choice(
            (np.arange(5), np.zeros((1, n)), np.array(5), np.array([]), np.array(["a"]))
        )
    made = io.BytesIO()
    np.savez(made, **columns)
    data = made.getvalue()
    path.write_bytes(
        r.choice(
            (
                lambda: data,
                lambda: mutate.mutated(r, data),
                lambda: mutate.zipped(
                    [
                        (name, mutate.array_header(r, content) if r.random() < 0.6 else content)
                        for name, content in mutate.unzipped(data)
                    ],
                    r.choice((0, 8)),
                ),
            )
        )()
    )
    return path


def use_columns(path: Path) -> None:
    """The reader of these."""
    from trainer.data.sources.cifar10_dvs import _read_npz

    _frames(_read_npz(path), 128)


def _cells(r: random.Random, table: str) -> bytes:
    rows = [line.split(",") for line in table.splitlines()]
    if r.random() < 0.6:
        row = r.choice(rows)
        row[r.randrange(len(row))] = r.choice(ODD)
        return "\n".join(map(",".join, rows)).encode()
    return mutate.mutated(r, table.encode(), [b'"' * 7, b"\0\0\0", b"," * 9, b"a" * 140_000])


def make_gesture(r: random.Random, folder: Path) -> Path:
    """A folder of DVS128 Gesture in one of its three layouts."""
    path, layout = folder / "gesture", r.randrange(3)
    path.mkdir()
    if layout == 0:
        for i in range(3):
            data = five_bytes(r, 128, 150)
            (path / f"{i}.bs2").write_bytes(data if r.random() < 0.8 else mutate.mutated(r, data))
        table = "file,tonic_target_0based\n" + "".join(f"{i}.bs2,{i}\n" for i in range(3))
        (path / "labels.csv").write_bytes(_cells(r, table) if r.random() < 0.7 else table.encode())
    elif layout == 1:
        for part in ("train", "test"):
            names = f"user_{part}.aedat\n"
            (path / f"trials_to_{part}.txt").write_bytes(_cells(r, names) if r.random() < 0.3 else names.encode())
            (path / f"user_{part}.aedat").write_bytes(
                aedat3(r, 9) if r.random() < 0.8 else mutate.mutated(r, aedat3(r))
            )
            table = "class,startTime_usec,endTime_usec\n" + "".join(
                f"{i + 1},{i * 100},{i * 100 + 40000}\n" for i in range(4)
            )
            (path / f"user_{part}_labels.csv").write_bytes(_cells(r, table) if r.random() < 0.5 else table.encode())
    else:
        for part in ("Train", "Test"):
            place = path / f"ibmGesture{part}" / "u"
            place.mkdir(parents=True)
            for i in range(2):
                made = io.BytesIO()
                np.save(made, array(r))
                data = made.getvalue()
                name = str(i) if r.random() < 0.9 else r.choice(("x", "-1", "99", "1e3", "._0"))
                change = r.choice((None, None, mutate.mutated, mutate.array_header))
                (place / f"{name}.npy").write_bytes(change(r, data) if change else data)
    return path


def use_gesture(path: Path) -> None:
    """List its recordings and read the first ones."""
    from trainer.data import DataConfig
    from trainer.data.sources.dvs_gesture import source

    found = source(DataConfig(name="dvs_gesture", path=path, window_ms=20))
    for sample in [*found.train, *found.test, *(found.validation or [])][:30]:
        _frames(found.read(sample), found.sensor)


def aedat4(r: random.Random, folder: Path) -> bytes:
    """AEDAT 4.0: valid, or with another compression or stream than its packets have."""
    from tests.trainer.test_data_cifar10_dvs import write_aedat4

    times = sorted(r.randrange(300_000) for _ in range(r.randrange(1, 30)))
    events = [(t, r.randrange(128), r.randrange(128), r.randrange(2)) for t in times]
    write_aedat4(folder / "made", events, start=r.choice((0, 1_640_000_000_000_000)), packet=r.randrange(1, 9))
    data = (folder / "made").read_bytes()
    if r.random() < 0.3:  # what the header says in XML: types, sizes, names of streams
        old = r.choice((b"EVTS<", b">128<", b'name="0"', b'"sizeX"', b'"int"', b"outInfo", b"<attr", b"</dv>"))
        new = r.choice((b"FRME<", b"IMUS<", b">-1<", b">99999<", b'name="9"', b"<", b"", b"\xff\xfe", b"&x;", b">1e9<"))
        data = data.replace(old, (new * len(old))[: len(old)])  # of one length: FlatBuffers name places
    return data


def make_aedat4(r: random.Random, folder: Path) -> Path:
    """AEDAT 4.0: headers, packets, FlatBuffers, bytes; and packets that are packed."""
    path, data = folder / "in.aedat4", aedat4(r, folder)
    at = data.index(b"</dv>") + 5 if b"</dv>" in data else 300
    match r.randrange(4):
        case 0:
            data = mutate.mutated(r, data)
        case 1:  # in the packets alone: their stream, length, and tables of places
            data = data[:at] + mutate.mutated(r, data[at:])
        case 2:
            magic = r.choice((b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"))  # LZ4's and Zstandard's
            data = data[: at + 8] + magic + mutate.mutated(r, data[at + 8 :])
        case 3:
            words = [i for i in range(at, len(data) - 4, 4)]
            for _ in range(r.choice((1, 2, 6))):
                place = r.choice(words) if words else 20
                value = r.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1 << 28, r.randrange(1 << 16)))
                data = data[:place] + struct.pack("<I", value) + data[place + 4 :]
    path.write_bytes(data)
    return path


def use_aedat4(path: Path) -> None:
    """The decoder, as the project calls it."""
    from trainer.data.readers.aedat4 import read_aedat4

    events = read_aedat4(path, 128)
    events["t"] -= events["t"][0]
    _frames(events, 128)


def make_nmnist(r: random.Random, folder: Path) -> Path:
    """A folder of N-MNIST: recordings, names and folders."""
    path = folder / "nmnist"
    for part in ("Train", "Test"):
        for digit in range(10):
            place = path / part / (str(digit) if r.random() < 0.998 else r.choice(("x", "10", "-1", mutate.CANARY)))
            place.mkdir(parents=True)
            for number in range(2 if part == "Train" else 1):
                name = f"{number:05}" if r.random() < 0.99 else r.choice(NAMES)
                data = five_bytes(r, count=20)
                (place / f"{name}.bin").write_bytes(data if r.random() < 0.99 else mutate.mutated(r, data))
    if r.random() < 0.2:
        file = path / "Test" / r.choice("0123456789x") / "00000.bin"
        r.choice((_link, _gone, _folder))(file, folder)
    return path


NAMES = ("._00001", "x" * 240, "\x1b[31m", "a\nb", "é\u202e", "$\\frac$", "[x]", "<img src=x onerror=alert(1)>", " ",
         "cifar10_cat_1000", "cifar10_cat_-1", "cifar10_cat_99999999999999999999", "cifar10_cat_٣", "cat")
"""Names of recordings as nobody should give them."""


def _link(file: Path, folder: Path) -> None:
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to("nowhere")


def _gone(file: Path, folder: Path) -> None:
    file.unlink(missing_ok=True)


def _folder(file: Path, folder: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir(parents=True)


def make_cifar(r: random.Random, folder: Path) -> Path:
    """A folder of CIFAR10-DVS in one of its three kinds of file."""
    from tests.trainer.test_data_cifar10_dvs import WRITERS
    from trainer.data.sources.cifar10_dvs import CLASSES

    path, suffix = folder / r.choice(("cifar", "cifar", "extract")), r.choice(list(WRITERS))
    for name in CLASSES:
        (path / name).mkdir(parents=True)
        for number in (0, 1, 2, 900):
            times = sorted(r.randrange(1_300_000) for _ in range(8))
            made = folder / f"made{suffix}"
            WRITERS[suffix](made, [(t, r.randrange(128), r.randrange(128), r.randrange(2)) for t in times])
            data = made.read_bytes()
            stem = f"cifar10_{name}_{number}" if r.random() < 0.99 else r.choice(NAMES)
            file = path / name / f"{stem}{suffix}"
            file.write_bytes(data if r.random() < 0.99 else mutate.mutated(r, data))
    if r.random() < 0.2:
        r.choice((_link, _gone, _folder))(path / r.choice(CLASSES) / f"cifar10_cat_900{suffix}", folder)
    return path


def use_source(path: Path) -> None:
    """All frames of a data set's folder, as a command loads them."""
    from trainer.data import DataConfig, load

    name = "nmnist" if path.name == "nmnist" else "cifar10_dvs"
    data = load(DataConfig(name=name, path=path, steps=2, size=8, validation=0.3))
    assert len(data.train) and len(data.test) and data.classes == 10


KINDS = {
    "aedat4": (make_aedat4, use_aedat4),
    "nmnist": (make_nmnist, use_source),
    "cifar": (make_cifar, use_source),
    "bin": (one_file(five_bytes, ".bin"), use_five_bytes),
    "aedat3": (one_file(aedat3, ".aedat"), use_aedat3),
    "aedat2": (one_file(aedat2, ".aedat"), use_aedat2),
    "columns": (make_columns, use_columns),
    "gesture": (make_gesture, use_gesture),
}
"""Name -> (make, use); see `kinds`."""
