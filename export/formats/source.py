"""A network from a user's own code, `module.py:make_network`: the file runs, because its user asked for it."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from export.foreign import code
from export.watch.failed import user_line
from export.watch.usage import STEPS
from hardspike import HardspikeError, UsageError, nearest, one_line

PACKAGES = ("trainer", "targets", "export", "eval", "hardspike")
"""What a file beside the user's own cannot be called: these are imported first."""
_OURS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """`file.py:name`, or `file.py:name:steps`: a module, or a function without arguments that makes one."""

    file: Path
    name: str
    steps: str | None = None

    def network(self) -> nn.Module:
        """Run the file and take the network from it.

        Raises:
            HardspikeError: the file or the function fails, or what comes of it is no network; in one line.
        """
        if not self.file.is_file():
            raise HardspikeError(f"{self.file}: no such file")
        spec = importlib.util.spec_from_file_location(self.file.stem, self.file)
        module = importlib.util.module_from_spec(spec)
        with _beside(self.file):
            try:
                sys.modules.setdefault(self.file.stem, module)  # as its own classes expect it
                spec.loader.exec_module(module)
            except Exception as error:  # the user's own code
                raise HardspikeError(f"{self.file}: fails ({_said(error)}){self._hidden(error)}") from error
            if not hasattr(module, self.name):
                raise UsageError(f"{self.file}: has no '{self.name}'{nearest(self.name, vars(module))}; name a "
                                 "network, or a function that makes one")
            return self._made(getattr(module, self.name))

    def _made(self, value: Any) -> nn.Module:
        if callable(value) and not isinstance(value, nn.Module):
            try:
                value = value()
            except Exception as error:  # the user's own code
                way = self._hidden(error) or "; let it make and load the network by itself"
                raise HardspikeError(f"{self.file}:{self.name}: fails without arguments ({_said(error)}){way}"
                                     ) from error
        if not isinstance(value, nn.Module):
            raise HardspikeError(f"{self.file}:{self.name}: gives a {type(value).__name__}; a torch module is needed")
        return value


    def _hidden(self, error: Exception) -> str:
        """What to do where a file beside this one is not found, since a package of ours has its name; else nothing."""
        if not isinstance(error, ImportError | AttributeError):
            return ""
        for name in PACKAGES:
            beside = [place for place in (self.file.with_name(f"{name}.py"), self.file.with_name(name))
                      if place.exists() and place.resolve() != _OURS / name]
            if beside and (f"'{name}'" in str(error) or f"'{name}." in str(error)):
                return f"; your {beside[0].name} has the name of a package of hardspike: rename it"
        return ""


def _said(error: Exception) -> str:
    """What the user's own code raised, and on which line."""
    line = "" if isinstance(error, SyntaxError) else user_line(error)  # a syntax error says it itself
    return f"{type(error).__name__}: {one_line(error)}" + (f", {line}" if line else "")


def source_of(model: Path) -> Source | None:
    """What `file.py:name` names; None for any other path.

    Raises:
        UsageError: no name, or an unknown word behind it.
    """
    if model.suffix == ".py" and model.is_file():
        raise UsageError(code(model))
    file, colon, rest = str(model).partition(".py:")
    if not colon:
        return None
    name, _, steps = rest.partition(":")
    if not name and Path(f"{file}.py").is_file():
        raise UsageError(code(Path(f"{file}.py")))
    if steps and steps not in STEPS:
        raise UsageError(f"{model}: '{steps}' is unknown{nearest(steps, STEPS)}; known: {', '.join(STEPS)}")
    return Source(Path(f"{file}.py"), name, steps or None)


@contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Modules beside the file can be imported, as if it were run as a script; nothing else changes."""
    folder = str(file.resolve().parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
