"""Work that processes and machines share by a folder: each piece is claimed by one, and given up by the dead."""

import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hardspike.errors import HardspikeError
from hardspike.lock import ourselves, owner_lives

__all__ = ["claim", "claimed"]

NAME = ".claim"
BEAT = 20.0
"""Seconds between the signs of life of a claim's owner."""
PATIENCE = 180.0
"""Seconds without a sign of life after which the claim of another machine is taken over."""


@contextmanager
def claim(folder: str | Path, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[bool]:
    """Whether `folder` is this process's until the block ends; the folder is made where there is none.

    The claim is the file `FOLDER/.claim`, which only one process can make: any shared file system will do, with or
    without locks. It names its owner, whose thread touches it every `beat` seconds. A claim is taken over where its
    owner was a process of this machine that is gone, or one of another machine that has given no sign of life for
    `patience` seconds of the file system's own clock. A process that was taken for dead so, and was not, goes on
    unaware: what it does in the folder should end in files that are replaced whole.

    Raises:
        HardspikeError: the folder cannot be written, or something else than a claim has its name.
    """
    file = Path(folder) / NAME
    _check(file)
    ours = json.dumps({**ourselves(), "token": os.urandom(8).hex()}).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        got = _made(file, ours) or (_abandoned(file, patience) and _made(file, ours))
    except OSError as error:
        raise HardspikeError(f"{folder}: cannot be claimed ({error.strerror}); choose another folder") from error
    if not got:
        yield False
        return
    done = threading.Event()
    alive = threading.Thread(target=_live, args=(file, ours, done, beat), daemon=True)
    alive.start()
    try:
        yield True
    finally:
        done.set()
        alive.join()
        if _content(file) == ours:  # not what somebody claimed who took us for dead
            with suppress(OSError):
                file.unlink()


def claimed(folder: str | Path, patience: float = PATIENCE) -> bool:
    """Whether somebody has `folder` now; by the time that the answer is read it may have changed.

    Raises:
        HardspikeError: something else than a claim has its name.
    """
    file = Path(folder) / NAME
    _check(file)
    content = _content(file)
    return content is not None and not _gone(file, content, patience)


def _check(file: Path) -> None:
    """Refuse what nobody could ever claim or give up: who waits for it would wait for ever."""
    with suppress(OSError):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise HardspikeError(f"{file}: is a folder, a link or a pipe, where a claim is a file; remove it")


def _made(file: Path, content: bytes) -> bool:
    """Make the file with its content, unless it is there. Who sees it empty, sees it young."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as opened:
        opened.write(content)
    return True


def _content(file: Path) -> bytes | None:
    with suppress(OSError):
        return file.read_bytes()
    return None


def _abandoned(file: Path, patience: float) -> bool:
    """Remove the claim if its owner is gone; of several processes that find so, one does."""
    content = _content(file)
    if content is None:
        return True
    if not _gone(file, content, patience):
        return False
    aside = file.with_name(f"{NAME}-{os.urandom(8).hex()}")
    try:
        os.rename(file, aside)
    except FileNotFoundError:
        return True
    if _content(aside) != content:  # another process was faster, and this is its claim: put it back
        _made(file, _content(aside) or content)
    aside.unlink(missing_ok=True)
    return True


def _gone(file: Path, content: bytes, patience: float) -> bool:
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        owner = None
    ours = ourselves()
    if (isinstance(owner, dict) and isinstance(owner.get("pid"), int)
            and all(owner.get(key) == ours[key] for key in ("host", "boot"))):
        return not owner_lives(owner)
    probe = file.with_name(f"{NAME}-{os.urandom(8).hex()}")
    try:
        probe.touch()  # the clock of the file system: machines' own may differ
        return probe.stat().st_mtime - file.stat().st_mtime > patience
    except FileNotFoundError:
        return True
    finally:
        probe.unlink(missing_ok=True)


def _live(file: Path, ours: bytes, done: threading.Event, beat: float) -> None:
    while not done.wait(beat):
        if _content(file) != ours:
            return
        with suppress(OSError):
            os.utime(file)
