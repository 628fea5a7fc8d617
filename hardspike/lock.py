"""One process writes a run's folder."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hardspike.errors import HardspikeError
from hardspike.files import alive

try:
    import fcntl
except ImportError:  # Windows: the owner's process number decides alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["ourselves", "owner_lives", "run_lock"]

NAME = ".lock"


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold `folder` for this process until the block ends; the folder is made where there is none.

    The lock is `FOLDER/.lock`, held by `flock`, which the system gives back when its owner dies, however it dies. The
    file also says who that is (process, its start, machine and boot). Where a file system has no `flock`, that decides:
    the lock of a process that is gone, or of an earlier boot, is taken over.

    Raises:
        HardspikeError: another process holds it, which is named; the folder cannot be written.
    """
    file = Path(folder) / NAME
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(file)
    except OSError as error:
        raise HardspikeError(f"{folder}: cannot be locked ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # before it is given back: whoever waits for this file sees that it is no longer the one
        os.close(descriptor)


def _acquired(file: Path) -> int:
    """The lock's descriptor, which is to be kept open."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            locked = _flock(descriptor)
            owner = _owner(descriptor)
            if locked is False or (locked is None and owner_lives(owner)):
                raise _held(file, owner)
            if _is_still(file, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(ourselves()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it between our opening and our locking it: once more


def _flock(descriptor: int) -> bool | None:
    """Whether the file is locked by us now; None where the file system cannot say."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # network file systems without locks
        return None
    return True


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def ourselves() -> dict:
    """What tells this process from every other one: process, its start, machine and boot."""
    import platform

    return {"pid": os.getpid(), "started": _started(os.getpid()), "host": platform.node(), "boot": _boot()}


def _owner(descriptor: int) -> dict:
    """Who the file says holds it; nobody where it says nothing."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) and isinstance(said.get("pid"), int) else {}


def owner_lives(owner: dict) -> bool:
    """Whether the process is there that the file names; that of another machine is taken to be."""
    ours = ourselves()
    if not owner:
        return False
    if owner.get("host") != ours["host"]:
        return True
    return (owner.get("boot") == ours["boot"] and 0 < owner["pid"] < 2**31 and alive(owner["pid"])
            and owner.get("started") == _started(owner["pid"]))


def _held(file: Path, owner: dict) -> HardspikeError:
    who = f"process {owner['pid']} on {owner.get('host')}" if owner else "another process"
    return HardspikeError(f"{file.parent}: {who} is writing to this folder; wait for it, or choose another (if it is "
                          f"surely gone, remove {file})")


def _boot() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks after the boot; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return None

