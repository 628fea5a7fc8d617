"""Results kept on disk under a hash of all that they follow from, so that a second run costs seconds."""

import dataclasses
import functools
import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardspike import HardspikeError, atomic_path, cache_folder, logger, versions

__all__ = ["cached", "cached_file", "fingerprint", "own_files", "program_key"]

_log = logger(__name__)

OWN = ("hardspike", "trainer", "targets", "export", "eval")
LIBRARIES = ("torch", "numpy", "scipy", "nir", "snntorch", "onnx", "onnxruntime", "scikit-learn", "tonic")


def cached(key: dict, compute: Callable[[], Any]) -> Any:
    """What `compute()` gives, from the file of an earlier call with the same `key`, or computed and written there.

    The name of the file is a hash of `key`, of our own source files and of the versions of the libraries that compute:
    a changed model, recording, option or program never meets an old result. Lies in `cache_folder()/eval`; the files
    can be deleted at any time.

    Args:
        key: all that decides about the result, as `fingerprint` takes it: the command's name, the model's file as a
            Path, its options, the frames and labels it runs on (or their fingerprint).
        compute: gives what JSON holds.

    Returns:
        the result as JSON gives it back, whether it was computed or read: tuples are lists, keys are strings.

    Raises:
        HardspikeError: a file in `key` cannot be read, or the cache cannot be written.
    """
    path = _path(key, ".json")
    if not _whole(path):
        text = json.dumps(compute())
        _keep(path, lambda temporary: temporary.write_text(text))
    return json.loads(path.read_text())


def cached_file(key: dict, suffix: str, write: Callable[[Path], object]) -> Path:
    """The file that `write(path)` wrote in an earlier call with the same `key`, or writes now; see `cached`.

    Raises:
        HardspikeError: a file in `key` cannot be read, or the cache cannot be written.
    """
    path = _path(key, suffix)
    if not _whole(path):
        _keep(path, write)
    return path


def _path(key: dict, suffix: str) -> Path:
    return cache_folder() / "eval" / f"{fingerprint(key, program_key())}{suffix}"


def _whole(path: Path) -> bool:
    """Whether the file is there and is what was written."""
    checksum = _checksum_file(path)
    if not checksum.exists():
        return False
    try:
        if checksum.read_text() == fingerprint(path):
            return True
    except (OSError, ValueError, HardspikeError):
        pass
    _log.warning(f"{path}: damaged; made anew")
    return False


def _keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file and, once it lies there, its checksum."""
    with atomic_path(path) as temporary:
        write(temporary)
        found = fingerprint(temporary)
    with atomic_path(_checksum_file(path)) as temporary:
        temporary.write_text(found)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(f"{path.suffix}.sha256")


def fingerprint(*values: Any) -> str:
    """SHA-256 (hex) of values: plain ones, lists, dicts (in any order), dataclasses, arrays, and files by content.

    A Path stands for the bytes of its file, whatever its name; a tensor or array for its type, shape and elements.

    Raises:
        HardspikeError: a file cannot be read.
        TypeError: a value of another kind.
    """
    digest = hashlib.sha256()
    for value in values:
        _update(digest, value)
    return digest.hexdigest()


def _update(digest, value: Any) -> None:
    """Each value with its kind and length before it, so that no two different ones give the same bytes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if value is None or isinstance(value, bool | int | float | str):
        content = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(content)} ".encode() + content)
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)} ".encode())
        for name in sorted(value, key=str):
            _update(digest, str(name))
            _update(digest, value[name])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)} ".encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, Path):
        try:
            with open(value, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise HardspikeError(f"{value}: cannot be read ({error.strerror})") from error
        digest.update(f"file {found}".encode())
    elif hasattr(value, "__array__"):
        _update_array(digest, value)
    else:
        raise TypeError(f"{type(value).__name__} has no fingerprint")


def _update_array(digest, value: Any) -> None:
    array = value.__array__()
    digest.update(f"array {array.dtype.str} {array.shape} ".encode())
    # Row by row: a transposed view of a large file would be copied whole otherwise.
    for row in array if array.ndim > 1 else (array,):
        digest.update(row.tobytes())


@functools.cache
def program_key() -> str:
    """Fingerprint of our own source and tables, by their places in the tree, and of the libraries' versions."""
    return fingerprint([[place, file] for place, file in own_files()], versions(*LIBRARIES))


def own_files() -> list[tuple[str, Path]]:
    """Every file of ours that may decide about a result, with its place in the tree (`eval/cache.py`), in order."""
    found = []
    for name in OWN:
        module = Path(str(importlib.import_module(name).__file__))
        folder = module.parent if module.stem == "__init__" else None
        files = sorted(folder.rglob("*")) if folder else [module]
        found += [(file.relative_to((folder or module).parent).as_posix(), file) for file in files
                  if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")]
    return found
