"""Files are written whole or not at all."""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from hardspike.errors import HardspikeError
from hardspike.memory import require_memory
from hardspike.streams import answer

__all__ = ["STDOUT", "alive", "atomic_path", "cache_folder", "file_size", "host", "read_bytes", "require_writable",
           "scratch_folder", "write_bytes", "write_text"]

STDOUT = Path("-")
"""Where text goes to standard output; a file of this name is `./-` on the command line."""

LONGEST_NAME = 255
"""Bytes of a file's name on every usual file system."""
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
          stat.S_IFSOCK: "a socket"}
_TEMPORARY = re.compile(r"\..*-(?P<pid>\d{1,10})-(?P<host>[0-9a-f]{6})[0-9a-f]{8}\.tmp(\..*)?", re.DOTALL)


_SCRATCH = re.compile(r"hardspike-(?P<pid>\d{1,10})-(?P<host>[0-9a-f]{6})[0-9a-f]{8}\.tmp")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` when the block succeeds, delete it when not.

    The temporary keeps the suffix, since writers such as `np.savez` choose their format by it. The content is
    flushed to disk before the rename, so that a crash leaves the old file or the new one, never half of one. A link is
    followed: its target is replaced and the link stays. A file that is there keeps its permissions. What processes
    that were killed have left in the folder is removed.

    Raises:
        HardspikeError: the folder of `path` cannot be made or written, or `path` is a folder, a device or a pipe.
    """
    try:
        target = _followed(path)
        if _kind(target.parent) is None:
            require_writable(path)  # before folders are made for it
            target.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode(path, target)
        _sweep(target.parent)
        temporary = _temporary(target, 0o666 if mode is None else mode | 0o600)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _refusal(path, error, "; choose another place") from error
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes | bytearray | memoryview) -> None:
    """Write `content` through `atomic_path`: for libraries that would crash on a full disk, serialise in memory.

    Raises:
        HardspikeError: as `atomic_path`; also when the disk is full. The old file is whole.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 through `write_bytes`; halves of surrogate pairs, which have no UTF-8, are escaped.

    `STDOUT` is standard output.
    """
    if Path(path) == STDOUT:
        answer(text if text.endswith("\n") else f"{text}\n")
    else:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))


def require_writable(path: str | Path, folder: bool = False) -> None:
    """Try whether `path` can be written, before the work whose result goes there; nothing is left behind.

    Folders that are missing will be made by `atomic_path`, and are no reason to refuse.

    Args:
        folder: it is a folder that files are written into.

    Raises:
        HardspikeError: as `atomic_path`, as far as it can be known.
    """
    try:
        place = _followed(path, folder)
        if not folder:
            _mode(path, place)
            place = place.parent
        while (found := _kind(place)) is None:
            if len(os.fsencode(place.name)) > LONGEST_NAME:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            place = place.parent
        if found != stat.S_IFDIR:
            raise HardspikeError(f"{path}: is {_KINDS.get(found, 'a file')}; give the name of a folder")
        _temporary(place / "new", 0o600).unlink()
    except (OSError, ValueError) as error:
        raise _refusal(path, error, "; choose another place") from error


def file_size(path: str | Path, largest: int, kind: str) -> int:
    """Bytes of a regular file that is about to be read.

    Args:
        largest: bytes that a file of this kind may have.
        kind: what it should be, for the message.

    Raises:
        HardspikeError: it is missing, no regular file, may not be looked at, or is larger.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise HardspikeError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise HardspikeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); give another "
                             f"{kind}") from error
    if not stat.S_ISREG(found.st_mode):
        raise HardspikeError(f"{path}: is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}; give a {kind}")
    if found.st_size > largest:
        raise HardspikeError(f"{path}: {found.st_size / 1e9:.3g} GB; a {kind} of at most {largest / 1e9:.3g} GB is "
                             "read")
    return found.st_size


def read_bytes(path: str | Path, largest: int, kind: str) -> bytes:
    """The content of a file; arguments and errors as `file_size`."""
    size = file_size(path, largest, kind)
    require_memory(size, f"{path}: reading it", "free some")
    try:
        with open(path, "rb") as file:
            return file.read(size)  # not more, should it grow
    except OSError as error:
        raise HardspikeError(f"{path}: cannot be read ({error.strerror})") from error


def cache_folder() -> Path:
    """$HARDSPIKE_CACHE, or ~/.cache/hardspike. Everything in it can be deleted at any time.

    Raises:
        HardspikeError: neither that variable nor a home folder.
    """
    named = os.environ.get("HARDSPIKE_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "hardspike"
    except RuntimeError as error:
        raise HardspikeError("no home folder to keep a cache in; set HARDSPIKE_CACHE to a folder") from error


@contextmanager
def scratch_folder(longest: int | None = None) -> Iterator[Path]:
    """A folder of this process alone, which goes when the block ends. Those of killed processes go before it is made.

    Args:
        longest: letters that its path may have; where the folder for temporary files has a longer one, it lies in /tmp.

    Raises:
        HardspikeError: the system's folder for temporary files cannot be written.
    """
    root, name = Path(tempfile.gettempdir()), f"hardspike-{os.getpid()}-{host()}{os.urandom(4).hex()}.tmp"
    if longest is not None and len(os.fsencode(root / name)) > longest:
        root = Path("/tmp")
    _sweep_scratch(root)
    folder = root / name
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise _refusal(folder, error, "; set TMPDIR to another place") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def host() -> str:
    """Six hexadecimal digits of this machine's name: process numbers mean something on one machine only."""
    import hashlib
    import platform

    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def alive(pid: int) -> bool:
    """Whether the process `pid` of this machine runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        pass
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _mode(path: str | Path, target: Path) -> int | None:
    """Permissions of the file that is there; None where there is none."""
    try:
        found = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        kind = _KINDS.get(stat.S_IFMT(found), "no file")
        raise HardspikeError(f"{path}: is {kind}, which cannot be replaced by a file; give the name of a file")
    return stat.S_IMODE(found)


def _kind(path: Path) -> int | None:
    """What `path` is, as `stat.S_IFMT` has it; None where nothing is."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _followed(path: str | Path, folder: bool = False) -> Path:
    """Where `path` leads. A link that leads to no place is somebody's mistake: nothing is made there."""
    target = Path(os.path.realpath(path))
    missing = target if folder else target.parent
    if os.path.islink(path) and _kind(missing) is None:
        raise HardspikeError(f"{path}: is a link to {target}, and there is no {missing}; make that folder, or choose "
                             "another place")
    return target


def _temporary(target: Path, mode: int) -> Path:
    """A new file `.STEM-PID-TOKEN.tmp.SUFFIX`, the stem cut so that it is a possible name; the token begins with the
    host. It is made here, so that the umask decides about its permissions as about any other file's."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= 64 else ""
    end = f"-{os.getpid()}-{host()}{os.urandom(4).hex()}.tmp{suffix}"
    room = LONGEST_NAME - len(os.fsencode(end)) - 1
    temporary = target.parent / f".{os.fsencode(target.stem)[:room].decode(errors='ignore')}{end}"
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    return temporary


@cache
def _sweep(folder: Path) -> None:
    """Remove what killed processes of this machine have left in `folder`; once a process and folder."""
    with suppress(OSError), os.scandir(folder) as entries:  # who may not list the folder may still write to it
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found and found["host"] == host() and not alive(int(found["pid"])):
                with suppress(OSError):
                    os.unlink(entry.path)


@cache
def _sweep_scratch(root: Path) -> None:
    """Remove folders of `scratch_folder` that killed processes of ours have left; once a process."""
    with suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            found = _SCRATCH.fullmatch(entry.name)
            if (found and found["host"] == host() and not alive(int(found["pid"]))
                    and entry.is_dir(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_uid == getattr(os, "getuid", lambda: 0)()):
                shutil.rmtree(entry.path, ignore_errors=True)


def _refusal(path: str | Path, error: OSError | ValueError, advice: str = "") -> HardspikeError:
    return HardspikeError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}){advice}")
