"""`loihi1` on a network that somebody else trained, ships and counts: SANA-FE's gestures, 365,277 firings.

SANA-FE 2.2 (Boyle et al., IEEE TCAD 2025; GPL-3, `pip install hardspike[energy]`) ships the integers of a network for
Loihi, and its tutorial the number of firings in 1000 steps. Only the numbers are read here, no code is imported.
"""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from targets import native
from targets.chips import chip, limits_of
from targets.limits import Limit
from targets.loihi import fixed_point
from tests.targets.test_fixed_point import DT, neuron

FIRINGS = {20: 2_994, 120: 35_133, 1000: 365_277}
"""Steps -> firings of all layers, those of 1000 as SANA-FE's tutorial has them."""


def shipped() -> dict[str, np.ndarray]:
    spec = find_spec("sanafe")
    file = Path(spec.submodule_search_locations[0], "examples", "dvs_challenge.npz") if spec else None
    if file is None or not file.is_file():
        pytest.skip("SANA-FE's network is not here: pip install 'hardspike[energy]'")
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def integrate(name: str, shape: tuple[int, ...], threshold: int) -> dict[str, nir.NIRNode]:
    """Without a leak, reset to zero."""
    return neuron(name, shape, 0, threshold, False)[0]


def pixels(arrays: dict[str, np.ndarray]) -> nir.NIRGraph:
    """1024 neurons that only their biases drive; the weights hear nothing."""
    nodes = {"input": nir.Input(np.array([1])), "w": nir.Affine(np.ones((1024, 1)), arrays["inputs"]),
             **integrate("n0", (1024,), arrays["thresholds"][0]), "output": nir.Output(None)}
    return nir.NIRGraph(nodes, [("input", "w"), ("w", "n0"), ("n0", "output")], metadata={"dt": DT}, type_check=False)


def gestures(arrays: dict[str, np.ndarray]) -> nir.NIRGraph:
    """Four convolutions (3x3, the first with stride 2) and a dense layer."""
    nodes, edges, last, size = {"input": nir.Input(np.array([1, 32, 32]))}, [], "input", 32
    for i in range(1, 5):
        weight, stride = arrays[f"conv{i}"].astype(float).transpose(3, 2, 0, 1), 1 + (i == 1)
        size = (size - 3) // stride + 1
        nodes[f"c{i}"] = nir.Conv2d(None, weight, stride, 0, 1, 1, np.zeros(len(weight)))
        nodes |= integrate(f"n{i}", (len(weight), size, size), arrays["thresholds"][i])
        edges += [(last, f"c{i}"), (f"c{i}", f"n{i}")]
        last = f"n{i}"
    nodes |= {"flat": nir.Flatten(None, 0, -1), "d": nir.Linear(arrays["dense1"].astype(float).T.copy()),
              **integrate("n5", (11,), arrays["thresholds"][5]), "output": nir.Output(None)}
    edges += [(last, "flat"), ("flat", "d"), ("d", "n5"), ("n5", "output")]
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT}, type_check=False)


@pytest.mark.parametrize("kernel", ["torch", "native"])
def test_as_many_firings_as_sana_fe_says(kernel, monkeypatch):
    arrays = shipped()
    if kernel == "native" and not native.compilers():
        pytest.skip("no C compiler")
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    # SANA-FE's weights go to -289; Lava's Dense holds 8 bits, the arithmetic behind it any that 24 bits can sum
    wide = dataclasses.replace(limits_of(chip("loihi1")), weight_min=Limit(-512, "SANA-FE"),
                               weight_max=Limit(511, "SANA-FE"))
    first = fixed_point.run(pixels(arrays), torch.zeros(1000, 1, 1), wide).spikes["n0"].reshape(1000, 1, 1, 32, 32)
    layers = [first, *fixed_point.run(gestures(arrays), first, wide).spikes.values()]
    # a layer of SANA-FE's hears the one before a step late; here all of them answer within the step
    found = {steps: sum(int(fired[:steps - late].sum()) for late, fired in enumerate(layers)) for steps in FIRINGS}
    assert found == FIRINGS
