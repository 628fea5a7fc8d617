"""The targets `loihi1` and `loihi2`: what Intel's chips hold, computed as Lava computes it.

A chip is one instance here (or in a file of its own) and one line in `targets.chips`: its limits, each number with
where it comes from, and its arithmetic.
"""

from collections.abc import Collection
from functools import partial

import nir
from torch import Tensor

from targets.limits import NOT_PUBLIC, Limit, Limits
from targets.loihi import fixed_point, rules
from targets.loihi.layers import RESETS
from targets.recording import Recording, Transmit
from targets.target import FloorPlan, Target
from targets.violation import Violation

DAVIES = "Davies et al. 2018, Loihi"
NENGO_BLOCK = "nengo-loihi 1.1, block.py"
BRIEF = "Intel, Loihi 2 technology brief 2021 (public, coarse)"
LAVA_LIF = "lava-nc 0.10, proc/lif/models.py"
LAVA_DENSE = "lava-nc 0.10, proc/dense: 8 bits with a sign"
NETX = "lava-dl 0.6, netx"
CHUNK = 128
"""Samples that it runs at once: work for some threads, and a recording in memory that the next one takes again."""
SANA_FE = "SANA-FE 2.2, loihi.yaml and calculate_tile_coordinates; Davies et al. 2018 give 128 cores and the mesh"

_SHARED = {
    "weight_min": Limit(-128, LAVA_DENSE), "weight_max": Limit(127, LAVA_DENSE),
    "bias": Limit(4095, f"{LAVA_LIF}: 13-bit mantissa, exponent 6"), "threshold": Limit(2**17 - 1, LAVA_LIF),
    "delay": Limit(62, NETX)}


def _run(limits: Limits, graph: nir.NIRGraph, spikes: Tensor, *, dt: float | None = None, membrane: bool = False,
         transmit: Transmit | None = None) -> Recording:
    return fixed_point.run(graph, spikes, limits, dt, membrane, transmit)


def _record(limits: Limits, graph: nir.NIRGraph, spikes: Tensor, dt: float | None,
            layers: Collection[str]) -> Recording:
    return fixed_point.run(graph, spikes, limits, dt, layers=layers)


def _check(limits: Limits, graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    return rules.check(graph, limits, dt)


def loihi(name: str, description: str, limits: Limits, floor_plan: FloorPlan | None = None) -> Target:
    """A chip that computes as `targets.loihi.fixed_point` and holds what `limits` say."""
    return Target(name, description, partial(_run, limits), partial(_check, limits), integers=limits,
                  floor_plan=floor_plan, like_lava=True, membrane_parts=fixed_point.SHIFT,
                  loses_spikes=True, records=partial(_record, limits), chunk=CHUNK)


LOIHI1 = loihi("loihi1", "Loihi 1 in integers, bit for bit as Lava; reset to zero", Limits(
    chip="Loihi 1", cores=Limit(128, DAVIES), neurons=Limit(1024, DAVIES), input_axons=Limit(4096, NENGO_BLOCK),
    output_axons=Limit(4096, NENGO_BLOCK), synapse_bits=Limit(16384 * 64, NENGO_BLOCK),
    synapses=Limit(None, "no limit beside the cores'"), decay=Limit(4095, f"{NENGO_BLOCK}: 12 bits"),
    per_neuron=False, resets=("zero",), graded=False, **_SHARED), FloorPlan(tile=4, column=4, source=SANA_FE))

LOIHI2 = loihi("loihi2", "Loihi 2 in integers, bit for bit as Lava; resets as trained, a leaky one beyond Lava", Limits(
    chip="Loihi 2", cores=Limit(128, BRIEF), neurons=Limit(8192, BRIEF), input_axons=Limit(None, NOT_PUBLIC),
    output_axons=Limit(None, NOT_PUBLIC), synapse_bits=Limit(None, NOT_PUBLIC), synapses=Limit(120_000_000, BRIEF),
    decay=Limit(4096, f"{NETX}: the simulator; the chip's own is not public"),
    per_neuron=True, resets=RESETS, graded=True, **_SHARED))
