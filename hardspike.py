"""What the four commands share: errors, atomic files, tables and the command line.

It lies below `trainer` and `targets`, which do not know each other, and imports neither.
"""

import csv
import dataclasses
import difflib
import inspect
import json
import os
import stat
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import docstring_parser
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

__all__ = [
    "HardspikeError",
    "UsageError",
    "atomic_path",
    "cache_folder",
    "choice",
    "few",
    "file_size",
    "free_memory",
    "nearest",
    "one_line",
    "print_table",
    "printable",
    "progress",
    "read_bytes",
    "require_memory",
    "run",
    "versions",
    "words",
    "write_bytes",
]


class HardspikeError(Exception):
    """What went wrong, where, which limit and what to do, in one line. Exit status 1."""


class UsageError(HardspikeError):
    """The call itself is off (unknown key, impossible value, missing argument). Exit status 2."""


# ----------------------------------------------------------------------------------------------- files


@contextmanager
def atomic_path(path: str | Path):
    """Yield a temporary path beside `path`; rename it onto `path` when the block succeeds, delete it when not.

    The temporary keeps the suffix, since writers such as `np.savez` choose their format by it. The content is
    flushed to disk before the rename, so that a crash leaves the old file or the new one, never half of one.

    Raises:
        HardspikeError: the folder of `path` cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise HardspikeError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; the result should be like any other file
        os.replace(temporary, path)
    except OSError as error:
        raise HardspikeError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes | bytearray | memoryview) -> None:
    """Write `content` through `atomic_path`: for libraries that would crash on a full disk, serialise in memory.

    Raises:
        HardspikeError: as `atomic_path`; also when the disk is full. The old file is whole.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


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
        raise HardspikeError(f"{path}: is {'a folder' if stat.S_ISDIR(found.st_mode) else 'no file'}; give a {kind}")
    if found.st_size > largest:
        raise HardspikeError(f"{path}: {found.st_size / 1e9:.3g} GB; a {kind} of at most {largest / 1e9:.3g} GB is "
                             "read")
    return found.st_size


def read_bytes(path: str | Path, largest: int, kind: str) -> bytes:
    """The content of a file; arguments and errors as `file_size`."""
    require_memory(file_size(path, largest, kind), f"{path}: reading it", "free some")
    try:
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise HardspikeError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > largest:  # it has grown meanwhile
        raise HardspikeError(f"{path}: a {kind} of at most {largest / 1e9:.3g} GB is read")
    return content


def cache_folder() -> Path:
    """$HARDSPIKE_CACHE, or ~/.cache/hardspike. Everything in it can be deleted at any time."""
    return Path(os.environ.get("HARDSPIKE_CACHE") or Path.home() / ".cache" / "hardspike")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages` and of Python; "absent" for what is not installed."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


# ---------------------------------------------------------------------------------------------- memory

SHARE = 0.8
"""Of the memory that is free, what one thing may ask for."""


def free_memory() -> int:
    """Bytes that this process can still get: the least of the machine's, its control group's and its own limit's."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            root = Path("/sys/fs/cgroup")
            found.append(int((root / limit).read_text()) - int((root / used).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource  # absent on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(found, default=1 << 62))


def require_memory(needed: float, what: str, advice: str) -> None:
    """Refuse, before it is begun, what needs more than `SHARE` of the free memory.

    Args:
        needed: bytes, as estimated.
        what: begins the message: the file or the place, and what it holds.
        advice: the way out.

    Raises:
        HardspikeError: it needs more.
    """
    free = free_memory()
    if needed > SHARE * free:
        raise HardspikeError(f"{what} needs about {needed / 1e9:.3g} GB of memory, where {SHARE * free / 1e9:.3g} GB "
                             f"({SHARE:.0%} of what is free) may be taken; {advice}")


# ----------------------------------------------------------------------------------- tables and progress


def print_table(rows: list[dict], title: str = "", json_file: str | Path | None = None, extra: dict | None = None,
                csv_file: str | Path | None = None) -> None:
    """Print `rows` (dicts with the same keys) as a table; the same values, unrounded, go to `json_file`/`csv_file`.

    The JSON is `{"title", "rows", **extra}`. Floats print with four significant digits.
    """
    table = Table(title=title or None, title_justify="left")
    for key in rows[0] if rows else ():
        number = any(isinstance(row[key], int | float) for row in rows)
        table.add_column(key, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # A pipe has no width: rich would assume 80 columns and fold; wide is what grep and a log want.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table if rows else title)
    if json_file:
        with atomic_path(json_file) as temporary:
            content = json.loads(json.dumps({"title": title, "rows": rows, **(extra or {})}, default=str),
                                 parse_constant=lambda name: None)  # JSON has no NaN and no infinity
            temporary.write_text(json.dumps(content, indent=2))
    if csv_file:
        with atomic_path(csv_file) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def progress(items: Iterable, description: str, **options) -> tqdm:
    """A progress bar on standard error, shown only to a person (a terminal), gone when it is done."""
    return tqdm(items, desc=description, leave=False, disable=None, dynamic_ncols=True, **options)


# ---------------------------------------------------------------------------------------- command line


def one_line(error: BaseException) -> str:
    """What an exception of somebody else says, in one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    r"""`text` with everything that steers a terminal or hides itself escaped (`\x1b`, `\n`, `\u202e`, `\udcff`)."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def few(names: Iterable[str], most: int = 6) -> str:
    """The first names, shortened, and how many more there are: a list that an error message can hold."""
    names = [printable(str(name))[:40] for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def words(text: str) -> list[str]:
    """The words of a comma-separated option, each once, in order."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def choice(kind: str, word: str, known: Iterable[str]) -> str:
    """`word`, if it is one of `known`.

    Raises:
        UsageError: it is not; names the nearest and all.
    """
    known = list(known)
    if word not in known:
        raise UsageError(f"{kind} '{word}' is unknown{nearest(word, known)}; known: {', '.join(known)}")
    return word


def nearest(word: str, known: Iterable[str]) -> str:
    """`; nearest: KNOWN` for an error message, or nothing where none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


class _Parser(ArgumentParser):
    """argparse with dataclasses and YAML (jsonargparse); a usage error is one line that names the nearest option."""

    def error(self, message, ex=None):
        message = " ".join(str(message).split())
        keys = self._keys()
        if "unrecognized arguments:" in message:
            word = message.split("unrecognized arguments:")[1].split()[0].split("=")[0]
            message += nearest(word.removeprefix("--"), keys)
        elif "does not accept" in message and message.count("'") >= 2:
            message += nearest(message.split("'")[-2], keys)
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        sys.exit(2)

    def _keys(self) -> list[str]:
        keys = [option.removeprefix("--") for option in self._option_string_actions if option.startswith("--")]
        for action in self._actions:
            if isinstance(action.choices, dict):  # the subcommands, whose parsers hold the options
                keys += [key for child in action.choices.values() for key in child._keys()]
        return keys


def run(prog: str, commands: dict[str, Callable], argv: list[str] | None = None) -> int:
    """The command line of one package: parse, call one function, return the exit status.

    Each function's docstring is its help, its parameters are its arguments (without default: positional;
    `*names: Path`: one or more; a bool with default False: a flag). A parameter called `config` that is a dataclass
    is flattened into `--key value` options, with `--config FILE` (YAML) under them and `--print_config` beside them.

    Returns:
        0; 1 for a `HardspikeError`; 2 for a usage error; 130 when interrupted. A bool result `False` is 1
        (a check that found something).
    """
    parser = _Parser(allow_abbrev=False, prog=f"python -m {prog}",
                     description=(sys.modules["__main__"].__doc__ or "").strip())
    subcommands = parser.add_subcommands(dest="command", required=True)
    for name, function in commands.items():
        child = _Parser(allow_abbrev=False, description=_description(function))
        _add_arguments(child, function)
        subcommands.add_subcommand(name, child, help=(inspect.getdoc(function) or "").split("\n")[0])
    try:
        try:
            parsed = parser.parse_args([_underscored(word) for word in (sys.argv[1:] if argv is None else argv)])
        except UnicodeDecodeError as error:
            raise UsageError("the --config file is no text; give a YAML file") from error
        name = parsed.command
        values = parser.instantiate_classes(parsed)[name]
        result = _call(commands[name], values)
    except UsageError as error:
        sys.stderr.write(f"python -m {prog}: error: {error}\n")
        return 2
    except HardspikeError as error:
        sys.stderr.write(f"python -m {prog}: error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"python -m {prog}: interrupted\n")
        return 130
    except BrokenPipeError:  # `| head` closed the pipe: not our failure
        sys.stderr.close()
        return 0
    return 1 if result is False else 0


def _parameters(function: Callable) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def _underscored(word: str) -> str:
    """`--no-check=x` as `--no_check=x`, and `-o` as `--out`: both spellings work."""
    if word == "-o":
        return "--out"
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _description(function: Callable) -> str:
    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    return "\n\n".join(text for text in (parsed.short_description, parsed.long_description) if text)


def _is_config(parameter: inspect.Parameter) -> bool:
    return parameter.name == "config" and dataclasses.is_dataclass(parameter.annotation)


def _add_arguments(parser: _Parser, function: Callable) -> None:
    helps = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(function) or "").params}
    many = [p for p in _parameters(function) if p.kind is p.VAR_POSITIONAL]
    for p in many:
        parser.add_argument(p.name, type=p.annotation, nargs="+", help=helps.get(p.name))
    config = [p for p in _parameters(function) if _is_config(p)]
    if config:
        parser.add_argument("--config", action="config", help="YAML file; later arguments override it")
        parser.add_class_arguments(config[0].annotation, None)
    flags = [p for p in _parameters(function) if p.annotation is bool and p.default is False]
    for p in flags:
        parser.add_argument(f"--{p.name}", action="store_true", help=helps.get(p.name))
    parser.add_function_arguments(function, as_positional=True, skip={p.name for p in [*many, *config, *flags]})


def _call(function: Callable, values) -> typing.Any:
    values = vars(values)
    args, kwargs = [], {}
    for p in _parameters(function):
        if p.kind is p.VAR_POSITIONAL:
            args = values[p.name]
        elif _is_config(p):
            names = [field.name for field in dataclasses.fields(p.annotation)]
            kwargs[p.name] = p.annotation(**{name: values[name] for name in names})
        else:
            kwargs[p.name] = values[p.name]
    return function(*args, **kwargs)
