"""What lies about between runs: frames as they come, locks, claims, kept results, compiled libraries."""

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz import mutate, seeds

Make = Callable[[random.Random, Path], Path]


def _json(r: random.Random, folder: Path, good: Any) -> bytes:
    """A JSON text: its bytes, its values, or something that JSON allows and nobody expects."""
    match r.randrange(3):
        case 0:
            return mutate.mutated(r, json.dumps(good).encode())
        case 1:
            odd = ("", "[" * 5000, "{" * 500, "1e999", "NaN", "-Infinity", '"\\ud800"', "9" * 5000, '{"a": 1, "a": 2}',
                   "\ufeff{}", "null", "true", "\0", '{"pid": 1e400}', "[[[[]]]]", "{}{}", "-0", "1" * 300_000)
            return r.choice(odd).encode()
    tree = mutate.mutated_tree(r, good, lambda: mutate.value(r, str(folder.parent / "canaries")))
    try:
        return json.dumps(tree).encode()
    except (ValueError, TypeError):  # more digits than Python writes
        return b"9" * 5000


def make_stream(r: random.Random, folder: Path) -> Path:
    """Lines of frames, one to three of them odd."""
    size = seeds.spikes()[0, 0].numel()
    lines = [
        r.choice((
            lambda: json.dumps([r.randrange(2) for _ in range(size)]),
            lambda: json.dumps({"events": [[r.randrange(2), r.randrange(6), r.randrange(6)] for _ in range(5)]}),
            lambda: '{"reset": true}',
            lambda: "",
        ))().encode()
        for _ in range(6)
    ]
    for _ in range(r.choice((1, 1, 3))):
        good = r.choice(({"events": [[0, 1, 2], [1, 5, 5]]}, seeds.spikes()[0, 0].long().tolist(), {"reset": True}))
        lines[r.randrange(len(lines))] = r.choice((
            lambda: _json(r, folder, json.loads(json.dumps(good))),  # noqa: B023
            lambda: json.dumps([r.choice((0, 1, 0.5, 1e300, 1 << 62, -1, True, 2, 255)) for _ in range(size)]).encode(),
            lambda: json.dumps({"events": [[r.choice((0, -1, 6, 10**9, 1.0, True, "1", None))] * 3]}).encode(),
            lambda: json.dumps([[[r.choice((0, 1, 1e30))] * 6] * 6] * r.choice((1, 2, 3))).encode(),
        ))()
    path = folder / "in.jsonl"
    path.write_bytes(r.choice((b"\n", b"\n", b"\r\n", b"\r")).join(lines))
    return path


def use_stream(path: Path) -> None:
    """Each frame through a network, as `targets run --stream` takes them."""
    from targets.stream import stream
    from targets.table import TARGETS

    stream(TARGETS["reference"], seeds.graph(), path)


def _owner(r: random.Random) -> dict[str, Any]:
    from hardspike.lock import ourselves

    found = {**ourselves(), "token": "a" * 16}
    if r.random() < 0.5:
        found["pid"] = r.choice((1, 0, -1, 2**31, 2**63, 10**30, True, 99999, os.getppid()))
    if r.random() < 0.3:
        found["host"] = r.choice(("elsewhere", mutate.name(r), None, 5, [], {}))
    return found


def _state(name: str) -> Make:
    def make(r: random.Random, folder: Path) -> Path:
        place = folder / "run"
        place.mkdir()
        file = place / name
        if r.random() < 0.06:
            r.choice((lambda: file.mkdir(), lambda: file.symlink_to(place), lambda: file.symlink_to("nowhere"),
                      lambda: file.touch()))()
        else:
            file.write_bytes(_json(r, folder, _owner(r)))
        if file.is_file() and r.random() < 0.3:
            os.utime(file, (0, r.choice((0, 1, 2**33, -1))))
        return place

    return make


def use_lock(path: Path) -> None:
    """A lock that nobody holds is taken, whatever it says."""
    from hardspike.lock import run_lock

    with run_lock(path):
        pass
    assert not (path / ".lock").exists(), "the lock stays"


def use_claim(path: Path) -> None:
    """Claimed, or somebody's."""
    from hardspike import claim, claimed

    taken = claimed(path)
    with claim(path) as ours:
        assert ours or taken or claimed(path), "nobody's, and not to be had"


RESULT = {"rows": [1.5, {"a": [1, 2, None]}], "text": "x" * 300}


def make_kept(r: random.Random, folder: Path) -> Path:
    """A result of the evaluation's cache and its checksum, one of them damaged."""
    from eval import cache

    os.environ["HARDSPIKE_CACHE"], before = str(folder / "kept"), os.environ.get("HARDSPIKE_CACHE")
    try:
        cache.cached({"a": 1}, lambda: RESULT)
    finally:
        os.environ.pop("HARDSPIKE_CACHE")
        if before is not None:
            os.environ["HARDSPIKE_CACHE"] = before
    files = sorted((folder / "kept" / "eval").iterdir())
    file = r.choice(files)
    r.choice((
        lambda: file.write_bytes(mutate.mutated(r, file.read_bytes())),
        lambda: file.write_bytes(_json(r, folder, json.loads(json.dumps(RESULT)))),
        lambda: file.write_bytes(b"\xff\xfe"),
        lambda: file.unlink(),
        lambda: (file.unlink(), file.mkdir()),
        lambda: (file.unlink(), file.symlink_to("nowhere")),
    ))()
    return folder / "kept"


def use_kept(path: Path) -> None:
    """Whatever lies there, the result comes back."""
    from eval import cache

    os.environ["HARDSPIKE_CACHE"], before = str(path), os.environ.get("HARDSPIKE_CACHE")
    try:
        assert cache.cached({"a": 1}, lambda: RESULT) == RESULT, "a damaged file of the cache was taken"
    finally:
        os.environ.pop("HARDSPIKE_CACHE")
        if before is not None:
            os.environ["HARDSPIKE_CACHE"] = before


def _library() -> bytes:
    """The smallest that a system loads: some library that is here already, cut to nothing else."""
    import _struct  # any extension of Python's own: loading it once more has no effect

    return Path(getattr(_struct, "__file__", None) or struct.__file__).read_bytes()


def make_library(r: random.Random, folder: Path) -> Path:
    """A compiled library and its checksum in the cache, one or both of them changed."""
    kernels = folder / "cache" / "kernels"
    kernels.mkdir(parents=True)
    kernels.chmod(r.choice((0o700,) * 8 + (0o755, 0o777, 0o770)))
    library, checksum = kernels / "trial.so", kernels / "trial.so.sha256"
    data = _library()
    whole = hashlib.sha256(data).hexdigest() + "\n"
    library.write_bytes(r.choice((lambda: data, lambda: mutate.mutated(r, data), lambda: data[: r.randrange(9000)],
                                  lambda: b"", lambda: b"\0" * 5000))())
    damaged = mutate.mutated(r, whole.encode())
    checksum.write_bytes(r.choice((whole.encode(), whole.encode(), damaged, b"", b"\xff" * 99)))
    for file in (library, checksum):
        file.chmod(r.choice((0o600,) * 9 + (0o666, 0o622, 0)))
        if r.random() < 0.05:
            file.unlink()
            r.choice((lambda f: f.mkdir(), lambda f: f.symlink_to(__file__), lambda f: os.mkfifo(f),
                      lambda f: None))(file)
    return folder / "cache"


def use_library(path: Path) -> None:
    """Only the library that was compiled is loaded; `trial` compiles to it."""
    from hardspike.libraries import loaded

    os.environ["HARDSPIKE_CACHE"], before = str(path), os.environ.get("HARDSPIKE_CACHE")
    try:
        _, file = loaded("trial", lambda out: out.write_bytes(_library()) and None)
        assert file.read_bytes() == _library(), "a damaged library was loaded"
    finally:
        os.environ.pop("HARDSPIKE_CACHE")
        if before is not None:
            os.environ["HARDSPIKE_CACHE"] = before


KINDS: dict[str, tuple[Make, Callable[[Path], Any]]] = {
    "stream": (make_stream, use_stream),
    "lock": (_state(".lock"), use_lock),
    "claim": (_state(".claim"), use_claim),
    "kept": (make_kept, use_kept),
    "library": (make_library, use_library),
}
"""Name -> (make, use); see `kinds`."""
