"""mkdocs hook: the page of commands is what `--help` of each prints, so that neither can say more than the other."""

import importlib

from hardspike.arguments import arguments
from hardspike.console import OWN

MARK = "<!-- commands -->"
PROGRAMS = {"trainer": "hardspike", "export": "hardspike export", "targets": "hardspike targets",
            "eval": "hardspike eval"}


def on_page_markdown(markdown: str, **_) -> str:
    """Put the commands where the mark stands."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def commands() -> str:
    """A section a command, with its help."""
    tables = {program: importlib.import_module(f"{package}.__main__").COMMANDS
              for package, program in PROGRAMS.items()}
    tables["hardspike"] = tables["hardspike"] | OWN
    return "\n\n".join(_section(program, name, what) for program, table in tables.items()
                       for name, what in table.items())


def _section(program: str, name: str, what: tuple[str, str]) -> str:
    module, _, function = what[0].partition(":")
    prog = f"{program} {name}"
    said = arguments(getattr(importlib.import_module(module), function), prog, ["--help"])
    return f"## {prog}\n\n```text\n{said}```"
