"""`eval sharpness`: what is measured of a checkpoint, bounds beside it, and what has none."""

import json

import pytest

from eval.commands.sharpness import sharpness
from eval.options import Sample
from hardspike import HardspikeError, UsageError
from tests.networks import busy_checkpoint
from trainer.data import DataConfig
from trainer.neurons.spikes import Surrogate

DATA = DataConfig(steps=4)


def test_every_diagnostic_of_an_aligned_network(tmp_path, capsys):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8", batch_norm=False, beta=0.5, threshold=0.5,
                           surrogate=Surrogate("arctan", 0.9))
    found = sharpness(path, "0.1,0.3", "0.01", Sample(samples=6), json=tmp_path / "a.json")
    assert found.samples == 6 and [row["radius"] for row in found.radii] == [0.1, 0.3]
    assert found.held == {"surrogate": 6, "hard": 6} and all(value >= 1 for value in found.slack.values())
    assert len(found.spreads) == 8 and {one.mode for one in found.spreads} == {"surrogate", "hard"}
    assert len(found.bounds) == 3 + 2  # logits, loss, gradient; two layers of neurons
    assert all(row.measured <= row.tight <= row.loose * (1 + 1e-12) and row.factor >= 1 for row in found.bounds)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["rows"][1]["rho"] == 0.3 and content["eq50"]["of"] == 6 and len(content["norms"]) == 3
    said = capsys.readouterr().out
    assert "theory-aligned: yes" in said and "times looser" in said


def test_what_the_theory_says_nothing_of(tmp_path, capsys):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8", reset="zero", batch_norm=False)
    found = sharpness(path, "0.1", "0.01", Sample(samples=2))
    assert found.bounds == [] and "resets other than by subtraction" in capsys.readouterr().out
    path = busy_checkpoint(tmp_path / "b.pt", DATA, layers="4c5s4-8", batch_norm=True)
    found = sharpness(path, "0.1", "0.01", Sample(samples=2))
    assert [row.tight is None for row in found.bounds][:3] == [False, False, True]
    assert "BatchNorm" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["", "0.1,x", "0", "-1", "nan", "inf"])
def test_radii_are_positive_numbers(tmp_path, words):
    with pytest.raises(UsageError, match="radii"):
        sharpness(tmp_path / "none.pt", words)


def test_a_graph_has_no_smooth_spikes(tmp_path):
    from export.model import Model
    from targets.graph import write
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8")
    write(Model.open(path).graph, tmp_path / "a.nir")
    with pytest.raises(HardspikeError, match="give the checkpoint"):
        sharpness(tmp_path / "a.nir", "0.1", "0.01", Sample(samples=2))
