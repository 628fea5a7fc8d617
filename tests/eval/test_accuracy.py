"""`python -m eval accuracy`: the same numbers from the checkpoint and from the exported graph, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest

from eval.__main__ import COMMANDS
from eval.accuracy import measure
from eval.commands.accuracy import accuracy
from eval.mode import HARD, SURROGATE, words
from eval.options import Tables
from export.commands import nir
from hardspike import UsageError, run
from tests.eval.opened import subjects
from trainer import checkpoint
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
    nir(folder, samples=60)
    return folder


def test_exported_graph_has_the_hard_networks_accuracy_and_spikes(trained, tmp_path):
    files = tmp_path / "a.json", tmp_path / "a.csv"
    smooth, hard, exported = accuracy(trained, trained / "best.nir", tables=Tables(*files))
    assert (smooth.mode, hard.mode, words(exported.mode, exported=True)) == (SURROGATE, HARD, "exported")
    assert exported.accuracy == hard.accuracy > 0.2
    assert hard.gap == smooth.accuracy - hard.accuracy and smooth.gap is None is exported.gap
    # eval runs the network in float32: a spike within rounding of its threshold may differ
    assert sum(exported.spikes.values()) == pytest.approx(sum(hard.spikes.values()), rel=1e-4)
    rows = json.loads(files[0].read_text())["rows"]
    assert [row["mode"] for row in rows] == ["surrogate", "hard", "exported"]
    assert [row["accuracy %"] for row in rows] == [100 * row.right / row.count for row in (smooth, hard, exported)]
    assert len(files[1].read_text().splitlines()) == 4
    low = binomtest(hard.right, 359).proportion_ci(0.95).low
    assert (hard.low, rows[1]["low %"]) == (low, 100 * low)


def test_the_kept_epoch_stands_in_the_table(trained, tmp_path):
    stored = checkpoint.load(trained / "best.pt")
    rows = accuracy(trained, trained / "last.pt", trained / "best.nir", tables=Tables(tmp_path / "a.json"))
    assert [row.epoch for row in rows] == [stored.epoch] * 2 + [3, 3, None]
    assert [row["epoch"] for row in json.loads((tmp_path / "a.json").read_text())["rows"]] == [
        row.epoch for row in rows]


def test_a_graph_alone_knows_its_data_and_samples_are_spread(trained):
    row, = measure(subjects(trained / "best.nir", split="validation"))
    assert row.count == 143 and row.mode.target == "reference"
    row, = measure(subjects(trained / "best.nir", samples=10))
    assert row.count == 10


@pytest.mark.parametrize(("words", "message"), [
    (["nothing.pt"], "no such file or folder"), (["nothing.nir"], "no such file"), (["a.txt"], "no such file"),
    ([str(Path(__file__).parents[2] / "LICENSE")], "is no model"),
    (["--split", "tset", "x.pt"], "known: train, validation, test"), (["x.pt", "--samples", "-1"], "must be 0 (all)")])
def test_errors_are_one_line(words, message, capfd):
    assert run("eval", COMMANDS, ["accuracy", *words]) in (1, 2)
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_frames_are_refused(trained, tmp_path):
    stored = checkpoint.load(trained / "best.pt")
    odd = replace(stored, config=replace(stored.config, data=DataConfig(steps=5, size=17)))
    checkpoint.save(odd, tmp_path / "odd.pt")
    with pytest.raises(Exception, match=r"takes frames \(2, 34, 34\), digits gives .*; give --size 34"):
        subjects(tmp_path / "odd.pt")
    assert subjects(tmp_path / "odd.pt", size=34)
    with pytest.raises(UsageError):
        subjects(trained, name="digitz")


def test_models_of_other_data_are_not_mixed(trained, tmp_path):
    stored = checkpoint.load(trained / "best.pt")
    checkpoint.save(replace(stored, config=replace(stored.config, data=DataConfig(steps=20))), tmp_path / "b.pt")
    with pytest.raises(UsageError, match=r"b\.pt: was made for other data \(steps 20 instead of 5\)"):
        subjects(trained, tmp_path / "b.pt")
    assert len(subjects(trained, tmp_path / "b.pt", steps=5)) == 2 == len(subjects(trained, tmp_path / "b.pt",
                                                                                    name="digits"))
