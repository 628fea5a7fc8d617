"""A forward that does one step, called once a step: which of what it returns goes back to it, into which argument.

That is seen from names where it can be: a returned dict's keys, a named tuple's fields, the names behind forward's
`return`; else from the order, where forward returns as many things after its output as it takes states.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hardspike import UsageError

_NESTS = (Tensor, list, tuple, dict)


@dataclass
class Handed:
    """The arguments after a step's input.

    Args:
        network: whose forward it is.
        names: of the arguments.
        values: what they get in the next step.
        states: the names of those that forward gives back; the others are options, the same in every step.
        returned: the names behind `return`, where the source shows them.
        went: the states that went back so far.
    """

    network: nn.Module
    names: list[str]
    values: list[Any]
    states: list[str]
    returned: list[str] = field(default_factory=list)
    went: dict[str, None] = field(default_factory=dict)

    @staticmethod
    def of(network: nn.Module, given: tuple, named: Mapping[str, Any]) -> "Handed":
        """What forward takes after its input; `given`: first values, `named`: those that stay as they are."""
        _, *parameters = inspect.signature(network.forward).parameters.values()
        taken = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in named]
        values = [None if p.default is p.empty else p.default for p in taken]
        values[:len(given)] = given
        states = [p.name for p, value in zip(taken, values, strict=False) if value is None or isinstance(value, _NESTS)]
        return Handed(network, [p.name for p in taken], values, states, _behind_return(network))

    def back(self, result: Any) -> None:
        """Hand back what a step gave.

        Raises:
            UsageError: it cannot be seen what goes where.
        """
        for name, value in self._found(result).items():
            self.values[self.names.index(name)] = value
            self.went[name] = None

    def _found(self, result: Any) -> dict[str, Any]:
        if isinstance(result, Mapping):
            return {name: result[name] for name in self.states if name in result}
        if not isinstance(result, tuple | list) or not self.states:
            return {}
        names = list(getattr(result, "_fields", ())) or self.returned
        if len(names) == len(result) and set(self.states) & set(names):
            return {name: result[names.index(name)] for name in self.states if name in names}
        _, *rest = result
        if len(rest) == len(self.states):
            return dict(zip(self.states, rest, strict=True))
        if not rest:
            return {}
        raise UsageError(f"{type(self.network).__name__}: forward takes {', '.join(self.states)} after its input and "
                         f"returns {len(rest)} things after its output, so which go back cannot be seen; show how you "
                         "call it: `with export.watch.record() as run:` your loop, then write_checked(run, path=...)")


def _behind_return(network: nn.Module) -> list[str]:
    """The names behind forward's `return`; none where there are several, or anything else is there."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(network).forward)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return []
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if len(found) != 1 or not isinstance(found[0], ast.Tuple):
        return []
    names = [ast.unparse(element) for element in found[0].elts]
    return names if len(set(names)) == len(names) else []
