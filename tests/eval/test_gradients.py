"""`eval gradients`: its table and figure against the run's own history."""

import json
from dataclasses import replace

import pytest
import torch

import trainer.data
import trainer.fit
from eval.__main__ import COMMANDS
from export.freeze.freeze import freeze
from hardspike import run
from targets.graph import write
from tests.networks import SHAPE, busy_network
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig, Split
from trainer.fit import fit
from trainer.methods.a2sg import A2sgConfig
from trainer.networks import NetworkConfig


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A run on 128 recordings."""
    whole = trainer.data.load

    def load(config):
        data = whole(config)
        return replace(data, **{part: Split(split.frames[:128], split.labels[:128], split.ids[:128])
                                for part in ("train", "validation") for split in [getattr(data, part)]})

    monkeypatch.setattr(trainer.fit, "load", load)
    monkeypatch.setattr(trainer.data, "load", load)

    def make(steps=4, **options):
        return fit(FitConfig(out=tmp_path / "run", epochs=2, batch_size=32, threads=1, data=DataConfig(steps=steps),
                             network=NetworkConfig(layers="4c5s4-16", batch_norm=True), **options)).folder
    return make


def gradients(*words):
    return run("eval", COMMANDS, ["gradients", *map(str, words)])


def test_a_run_that_logged_all(small, tmp_path, capsys):
    folder = small(method="a2sg", diagnose=1)
    assert gradients(folder, "--json", tmp_path / "t.json") == 0
    last = checkpoint.load(folder / "last.pt").history[-1]["layers"]
    rows = {row["layer"]: row for row in json.loads((tmp_path / "t.json").read_text())["rows"]}
    assert list(rows) == ["lif1", "lif2", "readout"]
    for name in ("lif1", "lif2"):
        row, values = rows[name], last[name]
        assert (row["SGV"], row["width T"], row["width T-1"]) == (values["sgv"], *values["widths"][:-3:-1])
        # the checkpoint anew, on the same recordings
        for key, own in (("fisher", "fisher"), ("mu", "membrane_mean"), ("RMD", "rmd"), ("L*kappa", "l_kappa")):
            assert row[key] == pytest.approx(values[own], rel=1e-4)
        assert row["CV asy/tri"] > 1 - 1e-6  # theorem 2 would have it below
    picture = (folder / "gradients.svg").read_text()
    for title in ("fig. 3a", "fig. 3b", "fig. 4", "fig. 5a", "fig. 5b", "fig. 5c", "fig. 5d", "fig. 5e", "fig. 7",
                  "table A1", "A10", "fig. A1"):
        assert title in picture
    assert "left out" not in capsys.readouterr().out


def test_runs_side_by_side(small, tmp_path, capsys):
    first = small(method="a2sg", a2sg=A2sgConfig(window="box", adapt="none")).rename(tmp_path / "box")
    second = small(method="hard").rename(tmp_path / "hard")
    capsys.readouterr()
    assert gradients(first, second, "--samples", 8, "--out", tmp_path / "x.svg", "--json", tmp_path / "t.json") == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [(row["run"], row["layer"]) for row in rows] == [
        (run, layer) for run in ("box", "hard") for layer in ("lif1", "lif2", "readout")]
    assert gradients(second, "--samples", 8, "--json", tmp_path / "alone.json") == 0
    alone = json.loads((tmp_path / "alone.json").read_text())["rows"]
    assert [{**row, "run": "hard"} for row in alone] == rows[3:]  # beside another one as by itself
    assert "hard: SGV, TGC and widths left out: hard has no windows" in capsys.readouterr().out
    picture = (tmp_path / "x.svg").read_text()
    assert picture.count("weights (fig. 7)</text>") == 2 and picture.count("window at t = T (fig. A1)</text>") == 1
    assert 'role="img"' in picture
    assert gradients(first, first) == 2 and "the same run twice" in capsys.readouterr().err


def test_a_run_that_logged_nothing_says_what_is_missing(small, tmp_path, capsys):
    folder = small(method="hard")
    assert gradients(folder / "best.pt", "--out", tmp_path / "x.svg", "--samples", 4) == 0
    out = capsys.readouterr().out
    assert "SGV, TGC and widths left out: hard has no windows" in out and "fit --diagnose 1" in out
    picture = (tmp_path / "x.svg").read_text()
    assert "fig. 5c" in picture and "fig. 5a" not in picture and "fig. 3" not in picture


def test_a_layer_that_nothing_reaches_has_a_row(small, tmp_path):
    folder = small(method="a2sg", a2sg=A2sgConfig(adapt="none"))
    stored = checkpoint.load(folder / "last.pt")
    with torch.no_grad():
        for name, values in stored.network.state_dict().items():
            if name.startswith(("layers.conv", "layers.norm", "layers.dense")) and values.is_floating_point():
                values.zero_()
    checkpoint.save(stored, folder / "dead.pt")
    assert gradients(folder / "dead.pt", "--json", tmp_path / "t.json") == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [(row["CV asy/tri"], row["silent %"]) for row in rows[:2]] == [(None, 100), (None, 100)]


def test_a_single_step_has_no_neighbour_in_time(small, tmp_path, capsys):
    folder = small(steps=1, method="a2sg")
    assert gradients(folder, "--json", tmp_path / "t.json") == 0
    out = capsys.readouterr().out
    assert "nan" not in out and "TGC and the width at T-1 left out: a single step" in out
    for row in json.loads((tmp_path / "t.json").read_text())["rows"][:2]:
        assert row["TGC"] is None and row["width T-1"] is None and row["SGV"] > 0
    picture = (folder / "gradients.svg").read_text()
    assert "fig. 5a" in picture and "fig. 5b" not in picture and "fig. 5e" not in picture


def test_bad_calls_are_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, status in (([tmp_path / "empty"], 1), ([tmp_path / "missing.pt"], 1),
                          ([tmp_path / "empty", "--samples", -1], 2),
                          ([tmp_path / "empty", "--out", tmp_path / "x.foo"], 2)):
        assert gradients(*words) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error


def test_a_graph_holds_no_gradients(tmp_path, capsys):
    write(freeze(busy_network(), SHAPE), tmp_path / "a.nir")
    assert gradients(tmp_path / "a.nir") == 2
    assert "a graph holds no surrogate" in capsys.readouterr().err


@pytest.mark.parametrize("widths", [[1.0], [1.0, 2.0, 3.0, -1.0], [1.0] * 7])
def test_logged_windows_that_fit_no_recording_are_one_line(small, widths, capsys):
    folder = small()
    content = torch.load(folder / "last.pt", weights_only=True)
    content["history"][-1]["layers"] = {"lif1": {"widths": widths, "tgc": [], "sgv": 1.0}}
    torch.save(content, folder / "last.pt")
    assert gradients(folder, "--samples", 4) == 1
    assert "lif1: was trained with windows of widths" in capsys.readouterr().err
