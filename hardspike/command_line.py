"""The command line of a package: find the command, call it, turn whatever happens into an exit status and one line."""

import importlib
import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from hardspike import log
from hardspike.arguments import arguments, docstring
from hardspike.errors import HardspikeError, UsageError, nearest, one_line
from hardspike.streams import Interrupts, answer_alone, say, standard_streams, stdout_trouble

__all__ = ["Command", "run"]

Command = Callable | tuple[str, str]
"""A function, or ("module:function", its summary in one line)."""


def run(prog: str, commands: Mapping[str, Command], argv: list[str] | None = None, called: str = "",
        about: str | None = None, ours: bool = False) -> int:
    """The command line of one package: parse, call one function, return the exit status.

    Each function's docstring is its help, its parameters are its arguments (without default: positional;
    `*names: Path`: one or more; a bool with default False: a flag). A parameter called `config` that is a dataclass
    is flattened into `--key value` options, with `--config FILE` (YAML) under them and `--print_config` beside them;
    dataclasses of other names are flattened alike, without a file: options that several commands share. Values are
    checked as by `hardspike.from_values`. A parameter called `given` gets the keys of `config` that the caller set, as
    "network.beta".

    A command is a function, or ("module:function", summary): then nothing is imported for the package's own help,
    `--version` and unknown commands, and only that module for the command's. **Rule**: such a module imports no torch
    at its top, nor anything that does; what computes is imported within the function. Then its `--help` and usage
    errors take no second either.

    Args:
        prog: the package, `python -m PROG`.
        commands: name -> command.
        argv: words of the command line. Without them, those of this process, which then is ours: an interrupt during
            an import ends it at once.
        called: what begins usage and errors, instead of `python -m PROG`.
        about: what the package's help begins with, instead of the running module's docstring.
        ours: the process is ours also with `argv`.

    Returns:
        0; 1 for a `HardspikeError` or any other failure; 2 for a usage error; 130 when interrupted. A bool result
        `False` is 1 (a check that found something). Where what was printed did not arrive, 141 for a pipe that was
        closed (`| head`), as a shell says it of its own tools, and else 1; the command's files are whole all the same.
        HARDSPIKE_TRACE=1 prints where an error came from, too.

    Raises:
        SystemExit: 2 for words that do not fit, as argparse does.
    """
    name = called or f"python -m {prog}"
    about = sys.modules["__main__"].__doc__ if about is None else about
    with standard_streams(), Interrupts(name, ours=ours or argv is None) as interrupts:
        try:
            status = _status(name, about or "", commands, sys.argv[1:] if argv is None else list(argv), interrupts)
            lost = _arrived(name)
            return status or lost
        except SystemExit:
            stdout_trouble()
            raise
        except BaseException as error:
            return _failed(name, error, interrupts)


def _arrived(name: str) -> int:
    """0 where all that was printed has arrived."""
    trouble = stdout_trouble()
    if trouble is None:
        return 0
    if isinstance(trouble, BrokenPipeError):  # who closed it knows
        return 128 + signal.SIGPIPE
    say(f"{name}: error: standard output cannot be written ({trouble.strerror})")
    return 1


def _status(name: str, about: str, commands: Mapping[str, Command], words: list[str], interrupts: Interrupts) -> int:
    try:
        words, level = log.taken_out(words)
        log.show(level)
    except UsageError as error:
        return _refused(name, str(error))
    if not words or words[0].startswith("-"):
        return _without_command(name, about, commands, words)
    command = words[0]
    if command not in commands:
        return _refused(name, f"command '{command}' is unknown{nearest(command, commands)}; known: "
                              f"{', '.join(commands)}")
    interrupts.importing = True
    function = _function(commands[command])
    interrupts.importing = False
    try:
        call = arguments(function, f"{name} {command}", words[1:])
    except UsageError as error:
        return _refused(f"{name} {command}", str(error))
    if isinstance(call, str):
        print(call, end="")
        return 0
    try:
        with answer_alone() if call.alone else nullcontext():
            return 1 if function(*call.args, **call.kwargs) is False else 0
    except UsageError as error:  # of what may stand in such a file
        if not call.origin or call.origin in str(error):
            raise
        raise UsageError(f"{error} (with --config {call.origin})") from error


def _without_command(name: str, about: str, commands: Mapping[str, Command], words: list[str]) -> int:
    if not words:
        return _refused(name, f"a command is missing; known: {', '.join(commands)}; --help tells more")
    if words[0] in ("-h", "--help"):
        print(_help(name, about, commands), end="")
    elif words[0] == "--version":
        from hardspike import __version__

        print(f"hardspike {__version__}")
    else:
        return _refused(name, f"unrecognized arguments: {' '.join(words)}; options follow a command, known: "
                              f"{', '.join(commands)}")
    return 0


def _refused(name: str, what: str) -> int:
    say(f"{name}: error: {what}")
    raise SystemExit(2)


def _function(command: Command) -> Callable[..., Any]:
    if callable(command):
        return command
    module, _, function = command[0].partition(":")
    return getattr(importlib.import_module(module), function)


def _help(name: str, about: str, commands: Mapping[str, Command]) -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    longest = max(map(len, commands))
    lines = [f"usage: {name} COMMAND [options]", "", about.strip(), "", "commands:"]
    for command, what in commands.items():
        summary = docstring(what)[0] if callable(what) else what[1]
        first, *others = textwrap.wrap(summary, width - longest - 4) or [""]
        lines += [f"  {command:{longest}}  {first}".rstrip(), *(f"{'':{longest + 4}}{line}" for line in others)]
    lines += ["", f"{name} COMMAND --help tells a command's options; {name} --version, the version.",
              "With any command: --quiet (warnings and results in tables alone), --log-level debug|info|warning|error."]
    return "\n".join(lines) + "\n"


def _failed(name: str, error: BaseException, interrupts: Interrupts) -> int:
    """Say in one line what ended the command; the exit status."""
    if isinstance(error, KeyboardInterrupt) or interrupts.happened:
        stdout_trouble()
        say(f"{name}: interrupted")
        # An interrupt within exec() of a text, as dataclasses are made, leaves a note that Python itself then ends by
        # that signal, status or not; the next exec() of a text removes it.
        exec("")
        return 130
    if os.environ.get("HARDSPIKE_TRACE") == "1":
        traceback.print_exception(error)
    stdout_trouble()
    if isinstance(error, HardspikeError):
        say(f"{name}: error: {error}")
        return 2 if isinstance(error, UsageError) else 1
    if said := _explained(error):
        say(f"{name}: error: {said}")
    else:
        from hardspike import __version__

        said = one_line(error)
        what = type(error).__name__ + ("" if said == type(error).__name__ else f": {said[:240]}")
        say(f"{name}: error: unexpected {what}; this is a fault of hardspike {__version__}: please report it with this "
            "command and what HARDSPIKE_TRACE=1 prints before it")
    return 1


def _explained(error: BaseException) -> str:
    """An error that is not ours, in one line, where it is one of the world and not of this program; else nothing."""
    said = one_line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in said \
            or "not enough memory" in said:
        detail = "" if said == type(error).__name__ else f" ({said})"
        return f"out of memory{detail}; take fewer recordings, a smaller batch or a smaller network"
    if isinstance(error, OSError) and error.strerror:
        # files of ours are written through `atomic_path`, which names them: without a name it is a stream
        return f"{error.filename}: {error.strerror}" if error.filename is not None else \
            f"output cannot be written ({error.strerror}); the command ended there"
    return ""
