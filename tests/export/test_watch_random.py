"""Random numbers in a user's network: torch's go on as before, others are seen for what they are."""

import itertools
import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from export.nir_file import write_checked
from hardspike import HardspikeError
from tests.export.own import OWN, Two, spikes


def test_torch_s_random_numbers_go_on_as_before(tmp_path, monkeypatch):
    """Also those of GPUs that nobody has used yet: a seed for all is kept for them, and cannot be taken back."""
    torch.manual_seed(3)
    made = {name: OWN[name][0]() for name in ("rate_coded_inside", "noise_on_the_current")}
    before = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)
    for name, (network, inputs) in made.items():
        with suppress(HardspikeError):
            write_checked(network, inputs, tmp_path / "a.nir")
        assert torch.equal(torch.get_rng_state(), before) and torch.initial_seed() == 3, name


class Drawn(Two):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        mem1, mem2, out, factor = self.lif1.init_leaky(), self.lif2.init_leaky(), [], self.draw()
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(factor * self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: np.random.default_rng().random(),
                                  itertools.count(1).__next__])
def test_what_torch_does_not_draw_is_refused_as_what_it_is(draw, tmp_path):
    with pytest.raises(HardspikeError, match="a second run on the same samples gives another graph, so forward draws"):
        write_checked(Drawn(draw), spikes(20), tmp_path / "a.nir")


@pytest.mark.parametrize(("draw", "whose"), [(random.random, "Python's random"), (np.random.random, "NumPy's random")])
def test_numbers_that_decide_nothing_here_are_said(draw, whose, tmp_path):
    verdict = write_checked(Drawn(lambda: draw() < 2), spikes(20), tmp_path / "a.nir").verdict()
    assert f"forward draws of {whose}, which no file holds" in verdict
