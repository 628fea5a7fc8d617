"""What a target cannot hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """What a target cannot hold (severity "error"), or what a reader should know ("warning", "note")."""

    layer: str
    rule: str
    value: str
    limit: str
    advice: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.layer}: {self.rule}: {self.value}; {self.limit}; {self.advice}"
