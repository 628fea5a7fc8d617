"""How this program was called, so that advice names commands as its reader calls them."""

import re

__all__ = ["as_called", "called_as"]

_COMMAND = re.compile(r"python -m (trainer|export|targets|eval)\b")
_state = {"console": False}


def called_as(console: bool) -> None:
    """Whether this process is the one program `hardspike`, and not `python -m PACKAGE`."""
    _state["console"] = console


def as_called(text: str) -> str:
    """`text` with `python -m eval accuracy` as `hardspike eval accuracy`, `python -m trainer fit` as `hardspike fit`,
    in the program `hardspike`; unchanged otherwise."""
    if not _state["console"]:
        return text
    return _COMMAND.sub(lambda found: "hardspike" if found[1] == "trainer" else f"hardspike {found[1]}", text)
