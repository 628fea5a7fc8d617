"""`eval landscape`: its table, figure and refusals."""

import csv
import json
from xml.etree import ElementTree

import pytest

from eval.__main__ import COMMANDS
from eval.landscape import LEAST, Landscape, Landscapes, draw
from export.model import Model
from hardspike import run
from targets.graph import write
from tests.networks import busy_checkpoint
from trainer.analysis import sharpness
from trainer.data import DataConfig, load
from trainer.neurons.spikes import Surrogate

DATA = DataConfig(steps=4)


def landscape(*words):
    return run("eval", COMMANDS, ["landscape", *map(str, words)])


def test_two_networks_side_by_side(tmp_path, capsys):
    smooth = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8", surrogate=Surrogate("arctan", 0.9))
    other = busy_checkpoint(tmp_path / "b&<.pt", DATA, layers="4c5s4-6", gain=2.0)
    assert landscape(smooth, other, "--points", 5, "--reach", 0.5, "--samples", 6, "--out", tmp_path / "x.svg",
                     "--json", tmp_path / "x.json", "--csv", tmp_path / "x.csv") == 0
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["grid"] == [-0.5, -0.25, 0, 0.25, 0.5] and len(content["surfaces"]) == 2
    for row, surface in zip(content["rows"], content["surfaces"], strict=True):
        assert surface[2][2] == row["loss"] == row["smooth loss"] and row["spikes"] == "surrogate"
        assert row["largest"] == max(map(max, surface))
        assert abs(row["Hessian 1"]) >= abs(row["Hessian 2"])
    assert {"rise at 0.125", "rise at 0.25", "rise at 0.5"} < set(content["rows"][0])
    with open(tmp_path / "x.csv", newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == [str(smooth), str(other)]
    picture = ElementTree.parse(tmp_path / "x.svg").getroot()  # a name is no markup
    assert picture.get("role") == "img" and picture.get("aria-label") == content["alternative"]
    assert "nats in the middle" in content["alternative"] and "b&<.pt" in content["alternative"]
    assert "staircase" not in capsys.readouterr().out


def test_hard_spikes_are_drawn_and_the_hessian_is_said_to_be_anothers(tmp_path, capsys):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8", batch_norm=True)
    assert landscape(path, "--spikes", "hard", "--points", 3, "--samples", 6, "--layer", "lif1", "--json",
                     tmp_path / "x.json", "--eigenvalues", 1) == 0
    row, = json.loads((tmp_path / "x.json").read_text())["rows"]
    data = load(DATA)
    part = data.train.spread(6)
    network = sharpness.double(Model.open(path).trained.network)
    for key, hard in (("loss", True), ("smooth loss", False)):
        network.set_mode(hard=hard)
        assert row[key] == pytest.approx(sharpness.loss(network, data.to_input(part.frames).double(), part.labels))
    said = capsys.readouterr().out
    assert "hard spikes have none" in said and "weights of layer lif1" in said
    assert (tmp_path / "landscape.svg").is_file()  # beside the only model


@pytest.mark.parametrize("values", [[[0.0] * 3] * 3, [[1.0, float("inf"), 2.0]] * 3, [[float("nan")] * 3] * 3])
def test_flat_and_infinite_surfaces_are_drawn(values, tmp_path):
    one = Landscape(tmp_path, "hard", LEAST, values, {}, 1.0, [], [])
    draw(Landscapes([one], [-1.0, 0.0, 1.0], None), "flat", tmp_path / "a.svg")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().get("role") == "img"


def test_bad_calls_are_one_line_and_write_nothing(tmp_path, capsys):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8")
    write(Model.open(path).graph, tmp_path / "a.nir")
    for words, status, says in ((["--points", 2], 2, "points 2: must be 3 or more"), (["--reach", 0], 2, "reach 0"),
                                (["--spikes", "soft"], 2, "spikes 'soft'"), (["--layer", "conv9"], 1, "conv9"),
                                (["--eigenvalues", -1], 2, "0 (none)"), (["--out", tmp_path / "x.png"], 2, ".svg")):
        assert landscape(path, "--samples", 2, *words) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error
    assert landscape(tmp_path / "a.nir", "--samples", 2) == 2
    assert "in integers, has no smooth spikes" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.svg"))
