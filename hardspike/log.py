"""What the library says while it works, through `logging`: lines on a command line, silence in other people's programs
until they ask."""

import logging
import sys

from hardspike.errors import UsageError, choice, printable

__all__ = ["logger", "quiet", "show"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
ROOT = logging.getLogger("hardspike")


def logger(module: str) -> logging.Logger:
    """The logger of a module, `logger(__name__)`; all are children of "hardspike"."""
    return logging.getLogger(module if module.startswith("hardspike") else f"hardspike.{module}")


class _Lines(logging.Handler):
    """Results and progress (up to INFO) on standard output, what needs attention on standard error; a line each.

    What cannot be written is dropped, as with `print`, and the command's status says so (`hardspike.streams`).
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if stream is not None:
            lines = record.getMessage().split("\n")
            stream.write("".join(f"{printable(line)}\n" for line in lines))
            stream.flush()


_lines = _Lines()


def show(level: str = "info") -> None:
    """Show on this process's streams what is logged at `level` (debug, info, warning, error) and above.

    Raises:
        UsageError: another level.
    """
    ROOT.setLevel(LEVELS[choice("log level", level, LEVELS)])
    ROOT.propagate = True  # a program that has handlers of its own keeps getting everything
    if _lines not in ROOT.handlers:
        ROOT.addHandler(_lines)


def quiet() -> bool:
    """Whether only warnings are wanted: then no progress bar either."""
    return ROOT.level > logging.INFO


def taken_out(words: list[str]) -> tuple[list[str], str]:
    """The words of a command line without `--quiet` and `--log-level LEVEL`, and the level that they ask for.

    Raises:
        UsageError: no level behind `--log-level`.
    """
    rest: list[str] = []
    level, words = "info", list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.replace("_", "-").partition("=")
        if word == "--":
            return [*rest, word, *words], level
        if word == "--quiet":
            level = "warning"
        elif name == "--log-level":
            if not equals and not words:
                raise UsageError(f"argument --log-level: expected one of {', '.join(LEVELS)}")
            level = choice("--log-level", value if equals else words.pop(0), LEVELS)
        else:
            rest.append(word)
    return rest, level
