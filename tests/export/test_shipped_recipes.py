"""What the shipped recipes train has a way to a chip."""

from pathlib import Path

import pytest

from export.formats.network_onnx import beyond_nir
from export.freeze import freeze
from export.passes.lower import fold
from hardspike import read_yaml
from targets.graph import plan
from targets.loihi.layers import split
from trainer.config import from_dict
from trainer.networks import build
from trainer.networks.espikeformer import conv_stages

RECIPES = sorted((Path(__file__).parents[2] / "trainer" / "recipes").glob("*.yaml"))
SENSOR = {"digits": 34, "images": 8, "canvas": 24, "nmnist": 34, "dvs_gesture": 128, "cifar10_dvs": 128}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_folds_into_layers_of_a_chip(recipe):
    """Pooling that leaves a row of a picture over cannot go into a padded convolution: sizes have to divide."""
    config = from_dict(read_yaml(recipe), str(recipe))
    assert config.data.name in SENSOR
    size = config.data.size or SENSOR[config.data.name]
    shape = (1 if config.data.name in ("images", "canvas") else 2, size, size)
    network = build(config.network, shape, 10).eval()
    if beyond_nir(network):  # no chip multiplies spike trains
        network = conv_stages(network)
    assert not split(plan(fold(freeze(network, shape)))).problems
