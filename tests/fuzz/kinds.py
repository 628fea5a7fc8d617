"""The kinds of file: how an input is made, and what is done with it."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fuzz import kinds_commands, kinds_events, kinds_sources, kinds_state, kinds_text, mutate, seeds
from tests.fuzz.kinds_graphs import KINDS as GRAPHS

Make = Callable[[random.Random, Path], Path]
"""(random numbers, a folder of its own) -> the file or folder that was made."""


@dataclass(frozen=True)
class Kind:
    """`make` an input, `use` it; `use` ends well or in a HardspikeError.

    `share`: of the inputs of a campaign, against 1 of the others: whole commands take a hundred times as long.
    """

    make: Make
    use: Callable[[Path], Any]
    share: float = 1.0


# ------------------------------------------------------------------------------------------ checkpoints


def make_checkpoint(r: random.Random, folder: Path) -> Path:
    """Bytes, the pickle, the members of the zip, or the values."""
    path, data = folder / "in.pt", r.choice(seeds.files(folder)[".pt"])
    match r.randrange(6):
        case 0:
            path.write_bytes(mutate.mutated(r, data))
        case 1:
            path.write_bytes(
                mutate.zipped(
                    [
                        (name, mutate.mutated(r, content) if name.endswith("data.pkl") else content)
                        for name, content in mutate.unzipped(data)
                    ]
                )
            )
        case 2:
            parts = [
                (name, content if r.random() < 0.8 else mutate.mutated(r, content))
                for name, content in mutate.unzipped(data)
                if r.random() < 0.97
            ]
            path.write_bytes(mutate.zipped(parts, r.choice((0, 0, 8))))
        case _:
            content = torch.load(io.BytesIO(data), weights_only=True)
            content["network"] = dict(content["network"])
            if r.random() < 0.4:  # where it hurts: what the network is made of
                key, values = r.choice(
                    (
                        ("config", (1, "x", [], {}, None)),
                        ("shape", ((2, 6), (2, 10**9, 6), "abc", None)),
                        ("classes", (10**10, 4.0, True, -1)),
                        ("history", (5, [1], [{}], {}, "x")),
                        ("epoch", ("x", -1, 10**30)),
                        ("slope", (0, float("nan"), "x")),
                    )
                )
                content[key] = r.choice(values)
                if r.random() < 0.5:
                    content["config"] = {
                        "network": {
                            "layers": r.choice(
                                ("1000000-1000000", "9c9s9", "1c1p1000000", "x", "-".join(["4"] * 3000), "²", "4c3s2-٣")
                            )
                        }
                    }
            else:
                mutate.mutated_tree(r, content, lambda: _leaf(r, folder))
            torch.save(content, path)
    return path


def _leaf(r: random.Random, folder: Path) -> Any:
    if r.random() < 0.5:
        return mutate.value(r, str(folder.parent / "canaries"))
    return r.choice(
        (
            lambda: torch.zeros(3),
            lambda: torch.full((2, 2), float("nan")),
            lambda: torch.zeros(0),
            lambda: b"bytes",
            lambda: torch.zeros(3, dtype=torch.int64),
            lambda: torch.zeros(2, dtype=torch.complex64),
            lambda: (1, 2),
            lambda: torch.zeros(1, dtype=torch.bool),
            lambda: torch.tensor(5),
            lambda: {1: 2},
            lambda: {(1, 2): 3},
            lambda: torch.zeros(3).to_sparse(),
            lambda: torch.zeros(3, dtype=torch.bfloat16),
            lambda: set(),
            lambda: torch.empty(3, device="meta"),
            lambda: torch.zeros(1).expand(10**12),
            lambda: complex(1, 2),
            lambda: bytearray(3),
            lambda: {"a": {"b": [1]}},
        )
    )()


def use_checkpoint(path: Path) -> None:
    """Read it, run it, freeze it."""
    from export.model import frozen
    from trainer.checkpoint import load

    found = load(path)
    with torch.inference_mode(), found.network.mode(True):
        if found.shape == seeds.SHAPE:
            found.network(seeds.spikes())
    frozen(found)


# ----------------------------------------------------------------------------------------------- arrays


TYPES = ("u1", "i1", "i8", "u8", "f2", "f4", "f8", "g", "?", "u2", "u4", ">i4", ">f8", "c8", "U2", "S3", "M8[s]")


def _odd_arrays(r: random.Random) -> dict[str, np.ndarray]:
    """Arrays of other types, values, shapes and names."""
    x = seeds.spikes().numpy().astype(r.choice(TYPES))
    if x.dtype.kind in "iuf" and r.random() < 0.6:
        with np.errstate(all="ignore"):
            x.flat[r.randrange(x.size)] = np.float64(
                r.choice((np.nan, np.inf, -1, 2, 300, 0.5, 1e30, 2.0**40, -(2.0**62)))).astype(x.dtype)
    x = r.choice((x, x, x[:0], x[:, :0], x[:, :, :1], x[..., :3], x.reshape(-1), x[..., None], x[:1], x.T))
    labels = r.choice((np.array([0, 1]), np.array([0, 9]), np.array([2**63, 1], np.uint64), np.array([-1, 0]),
                       np.array([0.5, 1]), np.array(["a", "b"]), np.array(5), np.array([0])))
    return r.choice(({"spikes": x, "labels": labels}, {"spikes": x}, {"output": x},
                     {"output": x, "spikes/a": x, "membrane/a": labels}))


def make_spikes(r: random.Random, folder: Path) -> Path:
    """An `.npz` of spikes: bytes, headers, names, types, values."""
    path, data = folder / "in.npz", seeds.files(folder)[".npz"][0]
    match r.randrange(4):
        case 0:
            path.write_bytes(mutate.mutated(r, data))
        case 1:
            path.write_bytes(
                mutate.zipped(
                    [
                        (name, mutate.array_header(r, content) if r.random() < 0.6 else content)
                        for name, content in mutate.unzipped(data)
                    ],
                    8,
                )
            )
        case 2:
            path.write_bytes(
                mutate.zipped(
                    [
                        (r.choice((name, mutate.name(r) + ".npy", "output.npy", "spikes")), content)
                        for name, content in mutate.unzipped(data)
                    ]
                )
            )
        case _:
            path.write_bytes(seeds.arrays(**_odd_arrays(r)))
    return path


def use_spikes(path: Path) -> None:
    """As input of a graph, and as a recording."""
    from hardspike import HardspikeError
    from targets import recording, reference
    from targets.inputs import load_spikes

    try:
        spikes, _ = load_spikes(path)
        if spikes.numel() < 10**6:
            reference.run(seeds.graph(), spikes)
    except HardspikeError:
        recording.load(path)


def make_cache(r: random.Random, folder: Path) -> Path:
    """A file of frames in the cache."""
    path, data = folder / "in.npy", _cached(folder)
    path.write_bytes(
        r.choice(
            (
                lambda: mutate.mutated(r, data),
                lambda: mutate.array_header(r, data),
                lambda: b"",
                lambda: b"PK\3\4" + data[4:],
                lambda: mutate.zipped([("a.npy", data)]),
                lambda: b"\x80\4N.",
            )
        )()
    )
    return path


def _cached(folder: Path) -> bytes:
    from trainer.data import cache

    cache._write(folder / "seed.npy", (5, 40), _rows())
    return (folder / "seed.npy").read_bytes()


def _rows() -> list[np.ndarray]:
    return [np.arange(40, dtype=np.uint8) + i for i in range(5)]


def use_cache(path: Path) -> None:
    """Whatever lies there, the rows come back."""
    from trainer.data import cache

    found = cache._open(path, (5, 40))
    assert found is None or np.array_equal(found, np.stack(_rows())), "a damaged file of the cache was taken"


def make_stamp(r: random.Random, folder: Path) -> Path:
    """What the set-up of Lava left behind."""
    from targets.lava import setup

    good = {
        "base": "x",
        "versions": {"python": "3.10", "lava-nc": "0.10.0"},
        "patched": False,
        "requirements": setup._fingerprint(),
    }
    place = folder / "lava" / setup._NAME
    place.mkdir(parents=True, exist_ok=True)
    if r.random() < 0.5:
        content = mutate.mutated(r, json.dumps(good).encode())
    else:
        tree = mutate.mutated_tree(r, good, lambda: mutate.value(r, str(folder.parent / "canaries")))
        content = json.dumps(tree).encode() if "-1000" not in str(type(tree)) else b""
    (place / setup._STAMP).write_bytes(content)
    return folder / "lava"


def use_stamp(path: Path) -> None:
    """Found or not, never an exception."""
    from targets.lava.setup import find

    find(path)


KINDS: dict[str, Kind] = {
    **{name: Kind(*pair) for name, pair in GRAPHS.items()},
    "pt": Kind(make_checkpoint, use_checkpoint),
    "npz": Kind(make_spikes, use_spikes),
    "cache": Kind(make_cache, use_cache),
    **{name: Kind(*pair) for name, pair in kinds_text.KINDS.items()},
    "stamp": Kind(make_stamp, use_stamp),
    **{name: Kind(*pair) for name, pair in kinds_events.KINDS.items()},
    **{name: Kind(*pair) for name, pair in kinds_sources.KINDS.items()},
    **{name: Kind(*pair) for name, pair in kinds_state.KINDS.items()},
    **{name: Kind(*pair, share=0.2) for name, pair in kinds_commands.KINDS.items()},
}
"""All kinds, by the name that a corpus file begins with."""
