"""What is done to a valid file."""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

CANARY = "hardspike_canary"
"""A module and a file of this name must never be imported or opened; `machine` watches."""
ODD = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
)


def mutated(r: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to eight changes of bytes."""
    content = bytearray(data)
    for _ in range(r.choice((1, 1, 1, 2, 3, 8))):
        at = r.randrange(len(content)) if content else 0
        size = r.choice((1, 2, 4, 8, 40, 512))
        match r.randrange(8):
            case 0 if content:
                content[at] ^= 1 << r.randrange(8)
            case 1:
                del content[at:]
            case 2:
                content[at:at] = r.randbytes(size)
            case 3:
                del content[at : at + size]
            case 4:
                width = r.choice((1, 2, 4, 8))
                content[at : at + width] = (r.choice(ODD) & (1 << 8 * width) - 1).to_bytes(
                    width, r.choice(("little", "big"))
                )
            case 5:
                content[at:at] = content[at : at + size]
            case 6:
                content[at : at + size] = bytes(len(content[at : at + size]))
            case 7 if others:
                other = r.choice(others)
                content = content[:at] + other[r.randrange(len(other)) :]
    return bytes(content)


def name(r: random.Random) -> str:
    """A name as nobody should give one."""
    return r.choice(
        (
            'x"><img src=x onerror=alert(1)>',
            "a\\1b",
            "$\\frac$",
            "[bold]",
            "[/x]",
            "\x1b]0;t\x07x",
            "é\u202e",
            "=1+1",
            "",
            " ",
            ".",
            "..",
            "a/b",
            "../../x",
            "a.b",
            "a.b.c",
            "x" * 300,
            "input",
            "output",
            "0",
            "lif.v",
            "{}",
            "%s",
            "a\nb",
            "a\tb",
            "\u2028",
            "a\u0000b"[: 1 + r.randrange(3)],
            CANARY,
            f"{CANARY}.X",
            "NIRGraph",
            "nodes",
            "type",
        )
    )


def number(r: random.Random) -> float:
    """A number at an end of something."""
    return r.choice(
        (
            0,
            1,
            -1,
            2,
            3,
            0.5,
            -0.0,
            127,
            128,
            255,
            1 << 31,
            -(1 << 31),
            1 << 62,
            (1 << 63) - 1,
            1e-320,
            1e-30,
            1e-5,
            1e38,
            1e300,
            float("nan"),
            float("inf"),
            float("-inf"),
            True,
        )
    )


def value(r: random.Random, canaries: str) -> Any:
    """Any plain value; `canaries` is a folder of files that must not be opened."""
    path = f"{canaries}/{CANARY}"
    return r.choice(
        (
            lambda: None,
            lambda: number(r),
            lambda: number(r),
            lambda: name(r),
            lambda: name(r),
            lambda: [],
            lambda: {},
            lambda: [number(r), name(r)],
            lambda: {name(r): number(r)},
            lambda: 10**30,
            lambda: -(10**4000),
            lambda: [[[[]]]],
            lambda: "1e5",
            lambda: f"{path}.yaml",
            lambda: f"{path}.npz",
            lambda: "/etc/passwd",
            lambda: f"@{path}.yaml",
            lambda: {"class_path": f"{CANARY}.X", "init_args": {}},
            lambda: f"{CANARY}.X",
            lambda: {"__path__": path},
            lambda: {"path": f"{path}.yaml"},
            lambda: {"name": "nmnist", "path": canaries},
            lambda: "x" * 70_000,
            lambda: {"class_path": f"{CANARY}.X"},
        )
    )()


def mutated_tree(r: random.Random, tree: Any, leaf: Callable[[], Any]) -> Any:
    """Replace, delete, add or rename something somewhere in nested dicts and lists, in place."""
    places: list[tuple[Any, Any]] = []

    def walk(node):
        for key, inner in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            places.append((node, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(tree)
    for _ in range(r.choice((1, 1, 2, 3))):
        if not places:
            return tree
        node, key = r.choice(places)
        try:
            match r.randrange(6):
                case 4:
                    del node[key]
                case 5 if isinstance(node, dict):
                    node[name(r)] = leaf()
                case _:
                    node[key] = leaf()
        except (KeyError, IndexError):  # of a part that is gone by now
            pass
    return tree


def unzipped(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(parts: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of names and contents."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for filename, content in parts:
            archive.writestr(filename or "_", content)
    return made.getvalue()


def array_header(r: random.Random, content: bytes) -> bytes:
    """A `.npy` whose header says something else."""
    length = struct.unpack("<H", content[8:10])[0]
    head = content[10 : 10 + length]
    for key, others in (
        (
            b"'shape': ",
            (
                b"(0,)",
                b"(-1,)",
                b"()",
                b"(1, 0)",
                b"(99999999999,)",
                b"(2, 2, 2, 2)",
                b"(4611686018427387904, 4)",
                b"(True,)",
                b"(1.5,)",
                b"[3]",
                b"(" * 30,
            ),
        ),
        (
            b"'descr': ",
            (
                b"'|O'",
                b"'<f8'",
                b"'<f2'",
                b"'<c8'",
                b"'|S9'",
                b"'<U4'",
                b"'<M8[s]'",
                b"'|V4'",
                b"'>i2'",
                b"'|b1'",
                b"'<f16'",
                b"[('a', '|O')]",
                b"'|u1'",
            ),
        ),
    ):
        if key in head and r.random() < 0.6:
            begin = head.index(key) + len(key)
            end = head.index(b")", begin) + 1 if key == b"'shape': " else head.index(b",", begin)
            head = head[:begin] + r.choice(others) + head[end:]
    head = head.rstrip(b"\n ")
    padding = -(len(head) + 11) % 64
    return (
        content[:8]
        + struct.pack("<H", len(head) + padding + 1)
        + head
        + b" " * padding
        + b"\n"
        + content[10 + length :]
    )
