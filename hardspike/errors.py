"""Errors, and text that is safe to print."""

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["HardspikeError", "UsageError", "about", "choice", "few", "nearest", "one_line", "printable", "shortened",
           "shown", "words"]


LONGEST_LINE = 480
"""Characters of an error."""


class HardspikeError(Exception):
    """What went wrong, where, which limit and what to do, in one line. Exit status 1.

    Much of what it says comes out of files: the message is made printable, and short enough to be read.
    """

    def __init__(self, said: object = ""):
        super().__init__(shortened(printable(str(said))))


class UsageError(HardspikeError):
    """The call itself is off (unknown key, impossible value, missing argument). Exit status 2."""


@contextmanager
def about(source: object) -> Iterator[None]:
    """Errors of the block are about the file `source`: where they do not name it, they begin with it. A `UsageError`
    is about the call."""
    try:
        yield
    except HardspikeError as error:
        if isinstance(error, UsageError) or printable(str(source)) in str(error):
            raise
        raise HardspikeError(f"{source}: {error}") from error


def one_line(error: BaseException) -> str:
    """What an exception of somebody else says, in one line; its class where it says nothing."""
    try:
        said = " ".join(str(error).split())
    except Exception:  # an exception whose text cannot be made is still one to report
        said = ""
    return said or type(error).__name__


def printable(text: str) -> str:
    r"""`text` with everything that steers a terminal or hides itself escaped: control characters, line breaks, marks
    that turn the direction of writing, halves of surrogate pairs (`\x1b`, `\n`, `\u202e`, `\udcff`).

    Names come out of files; what is printed of them is to be seen, not obeyed.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or unicodedata.category(char) == "Zs"  # spaces of every width
                   else char.encode("unicode_escape").decode() for char in text)


def shortened(line: str) -> str:
    """At most `LONGEST_LINE` characters: of a longer line something is left out of the middle, since what to do stands
    at its end."""
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[:LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 + 5:]}"


def shown(value: object) -> str:
    """A value as an error message quotes it: printable, short whatever it holds, `null`, `true` and `false` as in
    YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:  # more digits than Python turns into text at all
        return f"an integer of {value.bit_length()} bits"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return printable(short.repr(value))
    except Exception:  # as above: it is to be named, not to be understood
        return f"a {type(value).__name__}"


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
    """`; did you mean 'KNOWN'?` for an error message, or nothing where none is near."""
    # the search takes quadratic time, and no name of ours is that long
    found = difflib.get_close_matches(str(word)[:100], list(known), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""
