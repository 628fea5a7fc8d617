"""Completion of the command `hardspike` in a shell: a script that shtab makes of all commands and options."""

import argparse
import importlib
from collections.abc import Mapping

from hardspike.arguments import docstring, parser
from hardspike.command_line import Command
from hardspike.errors import UsageError, choice

SHELLS = ("bash", "zsh", "tcsh")


def completion(shell: str) -> None:
    """Print the script that completes `hardspike`'s commands, options and files in a shell.

    For one session: `eval "$(hardspike completion bash)"`; for all: `hardspike completion bash >
    ~/.local/share/bash-completion/completions/hardspike`, or for zsh `hardspike completion zsh > FOLDER/_hardspike`
    with a FOLDER of $fpath. Needs shtab (pip install 'hardspike[completion]').

    Args:
        shell: bash, zsh or tcsh
    """
    choice("shell", shell, SHELLS)
    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion: shtab is not installed; pip install 'hardspike[completion]'") from error
    print(shtab.complete(tree(shtab.FILE), shell))


def tree(files: dict | None = None) -> argparse.ArgumentParser:
    """All commands and their options as argparse has them; `files` is put where a path is completed."""
    from hardspike.console import OWN, PACKAGES

    root = argparse.ArgumentParser(prog="hardspike")
    commands = root.add_subparsers()
    _add(commands, "hardspike", importlib.import_module("trainer.__main__").COMMANDS | OWN, files)
    for package, about in PACKAGES.items():
        below = commands.add_parser(package, help=about).add_subparsers()
        _add(below, f"hardspike {package}", importlib.import_module(f"{package}.__main__").COMMANDS, files)
    return root


def _add(commands: argparse._SubParsersAction, prog: str, table: Mapping[str, Command], files: dict | None) -> None:
    for name, command in table.items():
        if callable(command):
            function, about = command, docstring(command)[0]
        else:
            module, _, function_name = command[0].partition(":")
            function, about = getattr(importlib.import_module(module), function_name), command[1]
        made, paths = parser(function, f"{prog} {name}")
        for action in made._actions:
            if files and action.dest in paths:
                action.complete = files  # type: ignore[attr-defined]  # what shtab looks for
        commands.add_parser(name, help=about.replace("%", "%%"), parents=[made], add_help=False)
