"""The chips: targets whose integers are simulated here. One line each."""

import nir

from hardspike import HardspikeError, UsageError, nearest
from targets import metadata
from targets.limits import Limits
from targets.loihi.chips import LOIHI1, LOIHI2
from targets.target import Target

CHIPS: dict[str, Target] = {chip.name: chip for chip in (LOIHI1, LOIHI2)}


def chip(name: str) -> Target:
    """The chip of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in CHIPS:
        raise UsageError(f"target '{name}' takes no integers{nearest(name, CHIPS)}; known: {', '.join(CHIPS)}")
    return CHIPS[name]


def limits_of(chip: Target) -> Limits:
    """What a chip holds."""
    assert chip.integers, chip.name
    return chip.integers


def chip_of(graph: nir.NIRGraph) -> Target | None:
    """The chip that a quantised graph was made for; None for a float graph.

    Raises:
        HardspikeError: its metadata name no known chip.
    """
    mark = metadata.quantised(graph)
    if mark is None:
        return None
    found = next((chip for chip in CHIPS.values() if limits_of(chip).chip == mark.target), None)
    if found is None:
        known = ", ".join(limits_of(chip).chip for chip in CHIPS.values())
        raise HardspikeError(f"metadata quantised: target '{mark.target}' is not known; known are {known}")
    return found
