"""What a target cannot hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """What a target cannot hold (severity "error"), or what a reader should know ("warning", "note").

    `limit` and `advice` may be empty: what does not come from a rule says all by itself.
    """

    layer: str
    rule: str
    value: str
    limit: str
    advice: str
    severity: str = "error"

    def __str__(self) -> str:
        said = "; ".join(part for part in (self.value, self.limit, self.advice) if part)
        return f"{self.severity}: {self.layer}: {self.rule}: {said}"
