"""`python -m eval accuracy`: the same numbers from the checkpoint and from the exported graph, and what it refuses."""

import json
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from eval.__main__ import COMMANDS
from eval.accuracy import accuracy
from export.formats import nir as nir_file
from hardspike import UsageError, run
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = FitConfig(out=folder, epochs=3, batch_size=64, method="surrogate", data=DataConfig(steps=5),
                       network=NetworkConfig(layers="8c5s3-32", batch_norm=True, reset="zero"))
    fit(config)
    nir_file.nir(folder / "best.pt", samples=60)
    return folder


def test_exported_graph_has_the_hard_networks_accuracy_and_spikes(trained, tmp_path):
    rows = accuracy(trained / "best.pt", trained / "best.nir", json=tmp_path / "a.json", csv=tmp_path / "a.csv")
    surrogate, hard, exported = rows
    assert [row["mode"] for row in rows] == ["surrogate", "hard", "exported"]
    assert exported["accuracy %"] == hard["accuracy %"] > 20
    assert hard["gap"] == pytest.approx(surrogate["accuracy %"] - hard["accuracy %"]) and surrogate["gap"] is None
    # eval runs the network in float32: a spike within rounding of its threshold may differ
    assert exported["spikes"] == pytest.approx(hard["spikes"], rel=1e-4)
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == rows
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 4
    low = binomtest(round(hard["accuracy %"] * 3.59), 359).proportion_ci(0.95).low
    assert hard["low %"] == pytest.approx(100 * low)


def test_a_graph_alone_knows_its_data(trained):
    row, = accuracy(trained / "best.nir", split="validation")
    assert row["mode"] == "exported"


@pytest.mark.parametrize(("words", "message"), [
    (["nothing.pt"], "no such checkpoint"), (["nothing.nir"], "no such file"), (["a.txt"], "neither a checkpoint"),
    (["--split", "tset", "x.pt"], "known: train, validation, test")])
def test_errors_are_one_line(words, message, capfd):
    assert run("eval", COMMANDS, ["accuracy", *words]) in (1, 2)
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_frames_are_refused(trained, tmp_path):
    from trainer import checkpoint
    stored = checkpoint.load(trained / "best.pt")
    odd = replace(stored, config=replace(stored.config, data=DataConfig(steps=5, size=17)))
    checkpoint.save(odd, tmp_path / "odd.pt")
    with pytest.raises(Exception, match=r"takes frames \(2, 34, 34\)"):
        accuracy(tmp_path / "odd.pt")
    with pytest.raises(UsageError):
        accuracy(trained / "best.pt", name="digitz")


def test_models_of_other_data_are_not_mixed(trained, tmp_path):
    from trainer import checkpoint
    stored = checkpoint.load(trained / "best.pt")
    checkpoint.save(replace(stored, config=replace(stored.config, data=DataConfig(steps=20))), tmp_path / "b.pt")
    with pytest.raises(UsageError, match=r"b\.pt: was made for other data \(steps 20 instead of 5\)"):
        accuracy(trained / "best.pt", tmp_path / "b.pt")
