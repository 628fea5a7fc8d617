"""`eval features`: silhouettes by their definition, on spikes that a network is known to give."""

import json
from xml.etree import ElementTree

import pytest
import torch

from eval.__main__ import COMMANDS
from export.model import Model
from hardspike import run
from targets.graph import write
from tests.networks import busy_checkpoint
from trainer.data import DataConfig, load

DATA = DataConfig(steps=4)


def features(*words):
    return run("eval", COMMANDS, ["features", *map(str, words)])


def silhouette(x, labels):
    """Rousseeuw 1987, recording by recording; one that is alone in its class has 0."""
    distances, values = torch.cdist(x.double(), x.double()), []
    for index, label in enumerate(labels):
        own = (labels == label) & (torch.arange(len(labels)) != index)
        if not own.any():
            values.append(0.0)
            continue
        a = distances[index, own].mean().item()
        b = min(distances[index, labels == other].mean().item() for other in labels.unique() if other != label)
        values.append((b - a) / max(a, b) if max(a, b) else 0.0)
    return sum(values) / len(values)


@pytest.mark.parametrize("layers, readout, last", [("4c5s4-8", "spikes", -2), ("4c5s4-8rec", "linear", -1)])
def test_a_checkpoint_and_its_graph_have_the_features_that_are_counted(layers, readout, last, tmp_path, capsys):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers=layers, readout=readout)
    write(Model.open(path).graph, tmp_path / "a.nir")
    assert features(path, tmp_path / "a.nir", "--samples", 12, "--perplexity", 3, "--out", tmp_path / "x.svg",
                    "--json", tmp_path / "x.json") == 0
    content = json.loads((tmp_path / "x.json").read_text())
    data = load(DATA)
    part = data.test.spread(12)
    network, record = Model.open(path).trained.network.eval(), {}
    with torch.no_grad(), network.mode(hard=True):
        network(data.to_input(part.frames), record)
    name = list(network.neurons())[last]
    spikes = record[name].flatten(2)
    for row, step in zip(content["rows"], (1, 4, 1, 4), strict=True):
        assert row["step"] == step and row["layer"] == name
        assert row["silhouette"] == pytest.approx(silhouette(spikes[:step].mean(0), part.labels), abs=1e-5)
    picture = ElementTree.parse(tmp_path / "x.svg").getroot()
    assert picture.get("aria-label") == content["alternative"] and "up to step 4" in content["alternative"]
    assert len(content["positions"][0]) == 12


def test_a_silent_layer_is_drawn_and_said(tmp_path):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8", gain=1e-6)
    assert features(path, "--samples", 8, "--perplexity", 2, "--json", tmp_path / "x.json") == 0
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert all(row["silent %"] == 100 and row["silhouette"] == 0 for row in rows)


@pytest.mark.parametrize("words, status, says", [
    (["--perplexity", 12, "--samples", 12], 2, "below the number of recordings, 12"),
    (["--perplexity", 0], 2, "perplexity 0"), (["--samples", 2], 1, "give more --samples"),
    (["--seed", -1], 2, "seed -1"), (["--out", "x.png"], 2, ".svg")])
def test_bad_calls_are_one_line(tmp_path, capsys, words, status, says):
    path = busy_checkpoint(tmp_path / "a.pt", DATA, layers="4c5s4-8")
    assert features(path, *words) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error and not list(tmp_path.glob("*.svg"))
