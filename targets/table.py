"""The targets: what runs a graph. One line each; a chip's line is in `targets.chips`."""

from hardspike import UsageError, nearest, words
from targets.chips import CHIPS
from targets.lava.target import LAVA
from targets.onnx.target import ONNXRUNTIME
from targets.reference import REFERENCE
from targets.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (REFERENCE, *CHIPS.values(), ONNXRUNTIME, LAVA)}


def load_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TARGETS:
        raise UsageError(f"target '{name}' is not known{nearest(name, TARGETS)} (known: {', '.join(TARGETS)})")
    return TARGETS[name]


def load_targets(names: str) -> list[Target]:
    """The targets of a comma-separated list, each once.

    Raises:
        UsageError: one is not known, or none is named.
    """
    found = [load_target(name) for name in words(names)]
    if not found:
        raise UsageError(f"targets '{names}': name at least one; known: {', '.join(TARGETS)}")
    return found
