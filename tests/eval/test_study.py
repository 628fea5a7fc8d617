"""A study: variants by seeds, paired, not repeated, refused where it cannot be what it says."""

import json
import os
import signal

import numpy as np
import pytest
from scipy.stats import ttest_rel

from eval import study as module
from eval.commands.study import study
from eval.options import Tables
from eval.statistics import holm
from eval.study import StudyRun, compare, read
from hardspike import HardspikeError, UsageError
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import load
from trainer.evaluate import evaluate

STUDY = """
base: {method: a2sg, epochs: 1, batch_size: 128, data: {steps: 3}, network: {layers: 4c5s4-16, batch_norm: true}}
variants:
  BOX: {a2sg: {window: box, adapt: none}}
  wide: {a2sg: {window: box, adapt: none, width: 1.0}, network: {reset: zero}, data: {steps: 5}}
"""


def test_variants_are_trained_once_and_compared_in_pairs(tmp_path, capsys):
    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    found = study(file, tmp_path / "runs", seeds=2, jobs=2, tables=Tables(tmp_path / "s.json", tmp_path / "s.csv"))
    assert [row.variant for row in found.variants] == ["BOX", "wide"]
    assert found.variants[0].points.mean == 0 and found.variants[0].points.p is None
    wide = checkpoint.load(tmp_path / "runs" / "wide" / "1" / "best.pt").config
    assert (wide.seed, wide.a2sg.width, wide.network.reset, wide.network.layers) == (1, 1.0, "zero", "4c5s4-16")
    for row in json.loads((tmp_path / "s.json").read_text())["runs"]:  # each on frames as it was trained on
        stored = checkpoint.load(tmp_path / "runs" / row["variant"] / str(row["seed"]) / "best.pt")
        data = load(stored.config.data)
        found = evaluate(stored.network, data, data.test, hard=True)
        assert (row["accuracy %"], row["spikes"]) == (100 * found.accuracy, sum(found.spikes.values()))
    before = (tmp_path / "runs" / "BOX" / "0" / "best.pt").stat().st_mtime_ns
    assert study(file, tmp_path / "runs", seeds=2) == found
    assert "epoch   1/1" in (tmp_path / "runs" / "BOX" / "0" / "log.txt").read_text()
    assert "epoch   1/1" not in capsys.readouterr().out
    assert (tmp_path / "runs" / "BOX" / "0" / "best.pt").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        study(file, tmp_path / "runs", seeds=1, epochs=2)


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("""
base: {method: hard, epochs: 1, batch_size: 256, average: 0, data: {steps: 2}, network: {layers: 4c5s4}}
variants: {diverges: {lr: 1.0e+20, method: surrogate}, trains: {}}
""")
    with pytest.raises(HardspikeError, match=r"1 of 2 runs failed: .*diverges.0: loss became"):
        study(file, tmp_path / "runs", seeds=1, jobs=1)
    assert (tmp_path / "runs" / "trains" / "0" / "best.pt").exists()


def killed(config):
    os._exit(9)


def test_a_killed_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train", killed)
    with pytest.raises(HardspikeError, match="fewer --jobs"):
        module._train_all([FitConfig(out=tmp_path)], 1)


def interrupted(config):
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_processes(tmp_path, monkeypatch):
    """Each would take the next run otherwise, and the command end only after it."""
    monkeypatch.setattr(module, "_train", interrupted)
    with pytest.raises(HardspikeError):
        module._train_all([FitConfig(out=tmp_path)] * 3, 1)


def test_the_test_against_the_first_variant_is_paired_and_corrected_for_being_several():
    accuracy = {"A": [90.0, 94.0, 98.0], "B": [91.0, 95.5, 98.5], "C": [90.5, 94.2, 98.0]}
    spikes = {"A": [100.0, 200.0, 300.0], "B": [90.0, 180.0, 270.0], "C": [101.0, 190.0, 260.0]}
    first, second, third = compare([StudyRun(name, seed, a, s, 3, 4, 1.0) for name in "ABC"
                                    for seed, (a, s) in enumerate(zip(accuracy[name], spikes[name], strict=True))])
    assert first.accuracy_deviation == pytest.approx(4) and first.points.mean == 0 and first.epoch == 3
    assert second.points.mean == pytest.approx(1) and second.change.mean == pytest.approx(-10)
    raw = [ttest_rel(of[name], of["A"]).pvalue for name in "BC" for of in (accuracy, spikes)]
    found = [change for row in (second, third) for change in (row.points, row.change)]
    assert [change.p for change in found] == pytest.approx(raw)
    assert [change.p_holm for change in found] == pytest.approx(holm(raw))
    assert second.points.p_holm > second.points.p > 0.05 > ttest_rel(np.array([0, 1, 2.1]) + 5, [0, 1, 2]).pvalue


def test_epochs_scale_every_variants_own(tmp_path):
    """Variants that are given more epochs to cost the same compute keep doing so."""
    file = tmp_path / "a.yaml"
    file.write_text("base: {epochs: 20}\nvariants: {plain: {epochs: 40}, sast: {}, tiny: {epochs: 1}}")
    assert [variant.epochs for variant in read(file).values()] == [40, 20, 1]
    assert [variant.epochs for variant in read(file, epochs=5).values()] == [10, 5, 1]
    assert [variant.epochs for variant in read(file, epochs=40).values()] == [80, 40, 2]
    file.write_text("variants: {plain: {epochs: 36}, sast: {}}")  # the base is `trainer fit`'s own
    assert [variant.epochs for variant in read(file, epochs=FitConfig().epochs * 2).values()] == [
        72, 2 * FitConfig().epochs]


def test_values_of_a_study_are_data(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("variants: {A: {class_path: os.system}}")
    with pytest.raises(HardspikeError, match="class_path"):
        read(file)
    file.write_text("variants: !!python/object/apply:os.system [ls]")
    with pytest.raises(HardspikeError, match="tag"):
        read(file)


@pytest.mark.parametrize(("text", "message"), [
    ("variants: {A: {epoch: 3}}", "A"), ("base: {}", "variants"),
    ("variants: {A: {}}\nbasis: {}", "did you mean 'base'"), ("variants: [", "cannot be read as YAML"),
    ("variants: {A: {}, B: {data: {split_seed: 1}}}", "B: data.split_seed 1"),
    ("variants: {A: 3}", "A: 3 where options"), ("base: [method]\nvariants: {A: {}}", "base: .* where options"),
    ("base: {seed: 3}\nvariants: {A: {}}", "base: seed: set by the study"),
    ("variants: {../A: {}}", "a folder's name")])
def test_a_study_that_cannot_be_read_is_refused(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(HardspikeError, match=message):
        study(file, tmp_path / "runs")


def test_no_epochs_are_refused_rather_than_those_of_the_study(tmp_path):
    with pytest.raises(UsageError, match="epochs 0"):
        study(tmp_path / "any.yaml", epochs=0)
