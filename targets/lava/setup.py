"""Makes the Python environment that runs Lava, which is archived and wants Python 3.10 and numpy 1.

It lies in `$HARDSPIKE_CACHE/lava` (default `~/.cache/hardspike/lava`) and takes about 500 MB. Linux and macOS.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hardspike import HardspikeError, cache_folder, logger, parse_json

_log = logger(__name__)

WORKER = Path(__file__).with_name("worker.py")
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_NAME = "lava-nc-0.10.0"
_STAMP = "hardspike.json"
_PROBE = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
_PATCHABLE = ((3, 11), (3, 12), (3, 13))
"""Versions on which lava-nc runs as well (`worker.allow_unhashable_defaults`), against its own declared limit."""


@dataclass(frozen=True)
class Environment:
    """A Lava environment: its interpreter, the interpreter it was made from, what is in it.

    `patched`: it runs on a newer Python than lava-nc declares, with a change to how Lava's dataclasses are made.
    """

    python: Path
    base: str
    versions: dict[str, str]
    patched: bool


def default_folder() -> Path:
    """`$HARDSPIKE_CACHE/lava`, or `~/.cache/hardspike/lava`."""
    return cache_folder() / "lava"


def find(folder: Path | None = None) -> Environment | None:
    """The environment that `setup` finished in `folder`, if there is one that fits this version of hardspike."""
    env = (folder or default_folder()) / _NAME
    try:
        stamp = parse_json((env / _STAMP).read_bytes(), "stamp")
        if stamp["requirements"] != _fingerprint():
            return None
        found = Environment(env / "bin" / "python", stamp["base"], stamp["versions"], stamp["patched"])
    except (OSError, HardspikeError, KeyError, TypeError):  # none, or cut short
        return None
    whole = isinstance(found.base, str) and isinstance(found.patched, bool) and isinstance(found.versions, dict)
    return found if whole and isinstance(found.versions.get("python"), str) else None


def required(folder: Path | None = None) -> Environment:
    """The environment.

    Raises:
        HardspikeError: there is none; says how to make it.
    """
    environment = find(folder)
    if environment is None:
        raise HardspikeError(f"no Lava environment in {folder or default_folder()}; make it with "
                             "`hardspike targets setup lava`")
    return environment


def setup(python: Path | None = None, folder: Path | None = None) -> Environment:
    """Make the environment, or return at once where it exists and works. Progress goes to standard error.

    Without `python`, in this order: every python3.10 found that really runs; one that uv downloads; the Python that
    runs this, if Lava can be patched to run on it (3.11 to 3.13).

    Args:
        python: interpreter to make it from, 3.10 (or 3.11 to 3.13, patched)
        folder: where it goes (default: $HARDSPIKE_CACHE/lava or ~/.cache/hardspike/lava)

    Raises:
        HardspikeError: no interpreter serves, or a package cannot be installed.
    """
    folder = folder or default_folder()
    with _locked(folder):
        found = find(folder)
        if not found or (python and found.base != str(python)) or not _check(found.python)[0]:
            _build(folder / _NAME, python, folder / "setup.log")
            found = required(folder)
    how = "patched to run there, against lava-nc's own limit" if found.patched else "as lava-nc wants it"
    _say(f"{found.python.parents[1]} is ready: Python {found.versions['python']}, {how}")
    return found


def _build(env: Path, python: Path | None, log: Path) -> None:
    shutil.rmtree(env, ignore_errors=True)
    log.unlink(missing_ok=True)
    base, version = _create(env, python, log)
    patched = version != (3, 10)
    _say(f"installing {_NAME} and lava-dl-0.6.0 for Python {version[0]}.{version[1]} ({base}), about 500 MB")
    _install(env, patched, log)
    works, answer = _check(env / "bin" / "python")
    if not works:
        raise HardspikeError(f"Lava environment {env}: installed, but does not work: {answer}; log: {log}")
    stamp = {"base": base, "versions": json.loads(answer), "patched": patched, "requirements": _fingerprint()}
    (env / _STAMP).write_text(json.dumps(stamp))  # last: without it the environment counts as unfinished


def _fingerprint() -> str:
    return hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()


def _say(text: str) -> None:
    _log.warning(f"setup lava: {text}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One setup at a time. A pip that outlives a killed setup inherits the lock, so that nobody builds beside it."""
    import fcntl  # absent on Windows, where Lava's set-up is not offered but this module still has to import

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as file:
            os.set_inheritable(file.fileno(), True)
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise HardspikeError(f"{folder}: {error.strerror}; choose another place (HARDSPIKE_CACHE)") from error


# ---------------------------------------------------------------------------------------------- interpreters


def _create(env: Path, python: Path | None, log: Path) -> tuple[str, tuple[int, int]]:
    """Make the empty environment; returns the interpreter it comes from and its version."""
    failures = []
    for candidate in [str(python)] if python else _interpreters():
        version, why = _probe(candidate)
        if version == (3, 10) or (python and version in _PATCHABLE):
            why = _call([candidate, "-m", "venv", str(env)], log)
            if why is None:
                return candidate, version
        failures.append(f"{candidate}: {why or 'is Python ' + '.'.join(map(str, version or ()))}")
    if python:
        raise HardspikeError(f"--python {failures[0]}; Lava needs Python 3.10 (3.11 to 3.13 work patched)")
    why = _download(env, log)
    if why is None:
        return "downloaded by uv", (3, 10)
    failures.append(why)
    if sys.version_info[:2] in _PATCHABLE:
        why = _call([sys.executable, "-m", "venv", str(env)], log)
        if why is None:
            return sys.executable, sys.version_info[:2]
    failures.append(f"{sys.executable}: {why or 'Lava cannot be patched to run on it'}")
    raise HardspikeError(f"no interpreter for Lava: {'; '.join(failures)}; install Python 3.10 and name it with "
                         f"--python PATH (log: {log})")


def _interpreters() -> list[str]:
    """Whatever is called python3.10 here, working or not: on PATH, in pyenv, in uv."""
    found = [Path(folder) / "python3.10" for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found += sorted(pyenv.glob("versions/3.10.*/bin/python"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    found += sorted(uv.glob("cpython-3.10.*/bin/python3.10"))
    return list(dict.fromkeys(str(path) for path in found if path.is_file()))


def _probe(python: str) -> tuple[tuple[int, int] | None, str | None]:
    """The version of an interpreter that runs and can make environments, or why it does not (pyenv leaves shims
    called python3.10 that only print an error)."""
    try:
        result = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, error.strerror if isinstance(error, OSError) else "does not answer"
    if result.returncode:
        return None, f"exit status {result.returncode} ({_first_line(result.stderr)})"
    major, minor = result.stdout.split()
    return (int(major), int(minor)), None


def _download(env: Path, log: Path) -> str | None:
    """Make the environment from a Python 3.10 that uv downloads; returns why it did not work."""
    _say("no Python 3.10 here that works; trying uv's download")
    uv = shutil.which("uv")
    if uv is None:
        tools = env.with_name("uv")
        uv = str(tools / "bin" / "uv")
        why = _call([sys.executable, "-m", "venv", str(tools)], log) or _call(
            [str(tools / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "uv"], log)
        if why:
            return f"uv: {why}"
    # only-managed: uv would trip over the broken shims as well
    why = _call([uv, "venv", "--seed", "--python", "3.10", "--python-preference", "only-managed", str(env)], log)
    return why and f"uv's download: {why}"


# ---------------------------------------------------------------------------------------------- packages


def _install(env: Path, patched: bool, log: Path) -> None:
    command = [str(env / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--no-deps", "--only-binary", ":all:", "--retries", "2", "-r", str(_REQUIREMENTS)]
    why = _call([*command, "--ignore-requires-python"] if patched else command, log)
    if why:
        raise HardspikeError(f"Lava environment {env}: pip could not install its packages: {why}; check the network "
                             f"(or pip's index) and run setup again; log: {log}")


def _check(python: Path) -> tuple[bool, str]:
    """Whether Lava and netx import there, and what the worker says: versions as JSON, or the error."""
    try:
        result = subprocess.run([str(python), str(WORKER), "check"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return result.returncode == 0, result.stdout.strip() if result.returncode == 0 else _last_line(result.stderr)


def _call(command: list[str], log: Path) -> str | None:
    """Run a step of the set-up, its output to `log`; returns why it failed, or None."""
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        start = file.tell()
        try:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                    close_fds=False).returncode
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
    if status == 0:
        return None
    said = log.read_bytes()[start:].decode(errors="replace")
    errors = [line for line in said.splitlines() if line.lower().startswith("error")]
    return f"exit status {status} ({errors[-1] if errors else _last_line(said)})"


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "no message")


def _last_line(text: str) -> str:
    return _first_line("\n".join(reversed(text.splitlines())))
