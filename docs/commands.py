"""mkdocs hook: the page of commands is what `--help` of each prints, so that neither can say more than the other."""

import importlib

from hardspike.arguments import arguments
from hardspike.called import called_as

MARK = "<!-- commands -->"
PROGRAMS = {"trainer": "hardspike", "export": "hardspike export", "targets": "hardspike targets",
            "eval": "hardspike eval"}


def on_page_markdown(markdown: str, **_) -> str:
    """Put the commands where the mark stands."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def commands() -> str:
    """A section a command, with its help."""
    called_as(console=True)
    try:
        return "\n\n".join(_section(package, name, what) for package in PROGRAMS
                           for name, what in importlib.import_module(f"{package}.__main__").COMMANDS.items())
    finally:
        called_as(console=False)


def _section(package: str, name: str, what: tuple[str, str]) -> str:
    module, _, function = what[0].partition(":")
    prog = f"{PROGRAMS[package]} {name}"
    said = arguments(getattr(importlib.import_module(module), function), prog, ["--help"])
    return f"## {prog}\n\n```text\n{said}```"
