"""Compiled libraries on disk: in a folder of this user alone, with a checksum, made by a compiler that ends with us.

What is loaded runs with all rights of its user. So a library is loaded only from a regular file of this user, in a
folder that nobody else can write to, and only if its SHA-256 is the one that was noted when it was compiled.
"""

import ctypes
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from hardspike.errors import HardspikeError
from hardspike.files import atomic_path, cache_folder
from hardspike.log import logger

_log = logger(__name__)

LARGEST = 1 << 28
"""Bytes of a library."""
_OURS = getattr(os, "getuid", lambda: None)()
# Runs between us and the compiler: when we end, however that is, our end of its standard input closes, and it ends the
# compiler with all that it has started, and removes what is half written. A compiler of our own would outlive SIGKILL.
_WATCH = """
import os, signal, subprocess, sys, tempfile, threading
out, *command = sys.argv[1:]
with tempfile.TemporaryDirectory(prefix="hardspike-") as scratch:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                             env={**os.environ, "TMPDIR": scratch})
    ended = threading.Lock()
    left = False
    def wait():
        global left
        sys.stdin.buffer.read()
        with ended:
            left = True
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
    threading.Thread(target=wait, daemon=True).start()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with ended:
        child.wait()
if left and out:
    try:
        os.unlink(out)
    except OSError:
        pass
os._exit(child.returncode & 255)
"""


def run(command: list[str], out: Path | None = None, timeout: float = 300) -> str:
    """What `command` prints; it and all that it starts end with this process, and then its file `out` is removed.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took too long, and was ended.
    """
    watched = [sys.executable, "-I", "-S", "-c", _WATCH, str(out or ""), *command]
    # Sessions of their own: what ends our group, such as a terminal that closes, leaves the watcher time to clean up.
    # Its standard input is kept open by us alone: other children of ours do not inherit it.
    inlet, ours = os.pipe()
    process = subprocess.Popen(watched, stdin=inlet, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    os.close(inlet)
    try:
        said, complained = (text.decode(errors="replace") for text in process.communicate(timeout=timeout))
    except BaseException:
        os.close(ours)
        process.communicate()
        raise
    os.close(ours)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said, complained)
    return said


def loaded(name: str, compile_to: Callable[[Path], None]) -> tuple[ctypes.CDLL, Path]:
    """The library `name`, from the cache where it is whole there, else made by `compile_to`, which is given its file.

    Raises:
        HardspikeError: the folder or the file is not this user's alone, or cannot be written; says what to do.
        OSError: the system does not load it.
    """
    path = _folder() / f"{name}.so"
    found = _verified(path)
    if found is None:
        with atomic_path(path) as temporary:  # two processes may compile at once
            compile_to(temporary)
            temporary.chmod(0o600)
            digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        with atomic_path(_checksum(path)) as temporary:
            temporary.write_text(f"{digest}\n")
            temporary.chmod(0o600)
        found = _verified(path)
    if found is None:  # another process of ours has just replaced it, or the disk is broken
        raise HardspikeError(f"{path}: is not what was compiled a moment ago; remove it, or set HARDSPIKE_CACHE to "
                             "another folder")
    # through the descriptor that was looked at: what the name means may have changed since. It stays open, since the
    # system tells loaded libraries apart by these names.
    handle = Path(f"/proc/self/fd/{found}")
    try:
        return ctypes.CDLL(str(handle if handle.exists() else path)), path
    except OSError:
        os.close(found)
        raise


def _folder() -> Path:
    """`kernels` in the cache, or where that belongs to another user, `kernels-UID`; made where there is none."""
    for name in ("kernels", f"kernels-{_OURS}"):
        folder = cache_folder() / name
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            found = folder.lstat()
        except OSError as error:
            raise HardspikeError(f"{folder}: cannot be written ({error.strerror}); set HARDSPIKE_CACHE to another "
                                 "folder") from error
        if not stat.S_ISDIR(found.st_mode):
            _refuse(f"{folder}: is no folder but a link or a file, from which nothing is loaded; remove it")
        if _OURS is None or found.st_uid == _OURS:
            break
    else:
        _refuse(f"{folder}: belongs to another user (uid {found.st_uid}), from whom nothing is loaded; remove it")
    if _OURS is not None and found.st_mode & 0o022:
        _refuse(f"{folder}: other users can write to it (mode {stat.S_IMODE(found.st_mode):o}), so nothing is loaded "
                f"from it; look at what it holds, then `chmod 700 {folder}`")
    if _OURS is not None and found.st_mode & 0o077:
        with suppress(OSError):
            folder.chmod(0o700)
    return folder


def _refuse(what: str) -> NoReturn:
    what += ", or set HARDSPIKE_CACHE to another folder"
    _warn(f"warning: {what}; slower code runs meanwhile")
    raise HardspikeError(what)


@cache
def _warn(line: str) -> None:
    """Once a process."""
    _log.warning(line)


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _verified(path: Path) -> int | None:
    """A descriptor of the library, if it is whole; None where there is none, or another one than was compiled.

    Raises:
        HardspikeError: it or its checksum may be somebody else's.
    """
    descriptors = []
    try:
        for file in (path, _checksum(path)):
            found = _opened(file)
            if found is None:
                return None
            descriptors.append(found)
        with open(descriptors[0], "rb", closefd=False) as library:
            content = library.read(min(LARGEST, os.fstat(descriptors[0]).st_size))
        whole = os.pread(descriptors[1], 100, 0).decode("ascii", "replace").strip()
        if not content or hashlib.sha256(content).hexdigest() != whole:
            return None
        return descriptors.pop(0)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _opened(file: Path) -> int | None:
    """A descriptor of a file that is ours alone; None where there is none, or no file."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        _refuse(f"{file}: is a link or cannot be opened ({error.strerror}), and is not loaded; remove it")
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (_OURS is None or (found.st_uid == _OURS and not found.st_mode & 0o022)):
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        _refuse(f"{file}: is no file, and is not loaded; remove it")
    _refuse(f"{file}: belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}, where others could have "
            "written it, and is not loaded; remove it")
