"""What a target cannot hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from hardspike import few

QUANTISE = "quantise the graph first (`hardspike export quantise`)"
"""What to do about a graph of floats."""


@dataclass(frozen=True)
class Violation:
    """What a target cannot hold (severity "error"), or what a reader should know ("warning", "note").

    `limit` and `advice` may be empty: what does not come from a rule says all by itself. `floats`: it is so because the
    graph is not quantised yet.
    """

    layer: str
    rule: str
    value: str
    limit: str
    advice: str
    severity: str = "error"
    floats: bool = False

    def __str__(self) -> str:
        said = "; ".join(part for part in (self.value, self.limit, self.advice) if part)
        return f"{self.severity}: {self.layer}: {self.rule}: {said}"


def together(found: Sequence[Violation]) -> list[Violation]:
    """`found`, with one line for all that quantising mends, where that is more than one."""
    floats = [violation for violation in found if violation.floats]
    if len(floats) < 2:
        return list(found)
    layers = few(dict.fromkeys(violation.layer for violation in floats))
    one = Violation("graph", "integers", f"{len(floats)} values of {layers} are floats yet",
                    "integers only", f"{QUANTISE}, and check that")
    return [one, *(violation for violation in found if not violation.floats)]
