"""Inputs that once were faults, as small as they could be made; every run of the tests tries them again."""

import hashlib
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import machine
from tests.fuzz.kinds import KINDS

FOLDER = Path(__file__).parent / "corpus"
TRIES = 60
"""Smaller files that are tried for one that is kept."""
LARGEST = 60_000
"""Bytes of a file that is kept."""


def files() -> Iterator[tuple[str, Path]]:
    """Kind and file of everything kept."""
    for path in sorted(FOLDER.glob("*-*")):
        yield path.name.split("-")[0], path


def laid_out(name: str, path: Path, folder: Path) -> Path:
    """A kept file as its kind uses it: a copy, or for kinds that are folders what the zip holds."""
    if path.name.endswith(".folder.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / name)
        return folder / name
    return Path(shutil.copy(path, folder / f"in{path.suffix}"))


def keep(name: str, seed: int, outcome: machine.Outcome, folder: Path) -> Path | str:
    """Put the input of a fault into the corpus, made smaller where the fault stays the same."""
    work = machine.fresh(folder / "work")
    path = KINDS[name].make(random.Random(f"{name}/{seed}/{outcome.number}"), work)
    if path.is_dir():
        digest = hashlib.sha256(f"{name}/{seed}/{outcome.number}".encode()).hexdigest()[:8]
        kept = FOLDER / f"{name}-{digest}.folder"
        return shutil.make_archive(str(kept), "zip", path)
    data = path.read_bytes()
    if outcome.result != "hang":
        data = _smaller(name, path, data, (outcome.result, outcome.place), folder)
    if len(data) > LARGEST:
        return f"too large ({len(data)} bytes); {name} --seed {seed} --one {outcome.number}"
    kept = FOLDER / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}{path.suffix}"
    kept.write_bytes(data)
    return kept


def _smaller(name: str, path: Path, data: bytes, fault: tuple[str, str], folder: Path) -> bytes:
    """Leave out ever smaller parts as long as the fault stays."""
    tries, size = TRIES, len(data) // 2
    while size and tries:
        for start in range(0, len(data), size):
            shorter = data[:start] + data[start + size :]
            path.write_bytes(shorter)
            tries -= 1
            found = machine.once(name, path, folder)
            if (found.result, found.place) == fault:
                data = shorter
                break
            if not tries:
                break
        else:
            size //= 2
    return data
