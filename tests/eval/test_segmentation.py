"""Figures of networks that label pixels: the same from every command, intervals by brute force, pictures of the report
with words for those who do not see them, and what counts recordings refused."""

import json
import re

import numpy as np
import pytest
import torch

from eval.__main__ import COMMANDS
from eval.accuracy import measure
from eval.commands.accuracy import accuracy
from eval.mode import HARD, SURROGATE
from eval.operations.measure import measure as operations
from eval.options import Columns, Tables
from eval.report import runs as report_runs
from eval.statistics import DRAWS, bootstrap
from eval.study.compare import compare
from eval.study.runs import measured
from hardspike import run
from tests.canvases import config, few
from tests.eval.opened import subjects
from tests.eval.test_report import check, report
from trainer import checkpoint
from trainer.data import load
from trainer.evaluate import evaluate
from trainer.fit import fit
from trainer.segmentation import mean_iou


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        patch.setenv("HARDSPIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(config(tmp_path_factory.mktemp("run") / "run", average=0.0)).folder


def test_the_table_has_the_trainers_figures_and_one_row_of_classes_a_mode(trained, tmp_path):
    smooth, hard = accuracy(trained, tables=Tables(tmp_path / "a.json"))
    assert (smooth.mode, hard.mode) == (SURROGATE, HARD)
    stored, data = checkpoint.load(trained / "best.pt"), load(config(trained).data)
    for found, mode in ((smooth, False), (hard, True)):
        wanted = evaluate(stored.network, data, data.test, mode)
        assert found.pixels.miou == wanted.miou and found.accuracy == pytest.approx(wanted.accuracy)
        assert found.pixels.ious == pytest.approx([None if iou != iou else iou for iou in wanted.ious])
        assert found.spikes == pytest.approx(wanted.spikes)
        assert found.low <= found.accuracy <= found.high and found.pixels.miou_low <= found.pixels.miou_high
    content = json.loads((tmp_path / "a.json").read_text())
    assert [row["mIoU %"] for row in content["rows"]] == [100 * row.pixels.miou for row in (smooth, hard)]
    assert set(content["classes"][1]) == {"model", "mode", *(f"IoU {c} %" for c in range(11))}
    assert hard.gap == pytest.approx(smooth.accuracy - hard.accuracy)


def test_intervals_are_those_of_recordings_drawn_again():
    counts = np.random.default_rng(1).integers(1, 50, (40, 3, 4))
    counts[:, 0] = np.minimum(counts[:, 0], counts[:, 1:].min(1))

    def measure_one(sums: np.ndarray) -> np.ndarray:
        return mean_iou(torch.from_numpy(sums)).numpy()

    low, high = bootstrap(counts, measure_one)
    random = np.random.default_rng(7)
    drawn = [measure_one(counts[random.integers(0, 40, 40)].sum(0)[None])[0] for _ in range(DRAWS)]
    assert (low, high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.005)
    assert low < measure_one(counts.sum(0)[None])[0] < high


def test_a_study_tests_the_mean_over_classes_and_pixels_recording_by_recording(trained):
    one, other = config(trained, average=0.0), config(trained.parent / "other", average=0.0, seed=1)
    fit(other)
    found, count = measured([("a", [one]), ("b", [other])], "test", "hard", Columns())
    table = compare(found)
    assert count == 10 and set(table[1].changes) == {"mIoU", "hard", "gap", "spikes"}
    assert table[1].changes["mIoU"].mean == pytest.approx(found[1].values["mIoU"] - found[0].values["mIoU"])
    fewer, more = ((a < b).sum() for a, b in ((found[1].right, found[0].right), (found[0].right, found[1].right)))
    assert (table[1].pooled.worse, table[1].pooled.better) == (fewer, more)
    assert found[0].values["mIoU"] == 100 * measure(subjects(trained))[1].pixels.miou


def test_operations_count_the_pyramid(trained):
    hard = operations(subjects(trained))[-1]
    layers = {layer.layer for layer in hard.counts.layers}
    assert {"convlateral1", "convpyramid2", "convhead1", "readout"} <= layers


def test_the_report_shows_input_truth_and_prediction_in_words_too(trained, tmp_path):
    report(trained, out=tmp_path / "r.html", csv=tmp_path / "csv", samples=6, corrupted=4, severities="0,0.1", bits="8",
           targets="reference,loihi2")
    text = (tmp_path / "r.html").read_text()
    page = check(text)
    assert "segments" in page.sections and "confusion" not in page.sections and "sample" not in page.sections
    labels = re.findall(r'aria-label="(Recording [^"]*)"', text)
    assert len(labels) == 9 and all(re.search(r"what goes in|class \d+ [\d.]+ %", label) for label in labels)
    content = json.loads((tmp_path / "r.json").read_text())["models"][0]
    assert [row["mode"] for row in content["segments"]["rows"]] == ["surrogate", "hard"]
    assert "pictures" not in content["segments"] and (tmp_path / "csv" / "segments.csv").exists()
    hard = measure([one.on(one.data.test.spread(6)) for one in subjects(trained)])[1]
    assert content["segments"]["rows"][1]["mIoU %"] == pytest.approx(100 * hard.pixels.miou)
    assert "mean intersection over union" in text
    truth = load(config(trained).data).test.labels[0]
    share = 100 * (truth == 10).double().mean().item()
    assert f"class 10 {share:.1f} %" in next(label for label in labels if ", truth" in label)


def test_two_reports_side_by_side_compare_recordings_by_their_pixels(trained):
    subject, = subjects(trained)
    found, _ = report_runs.all_runs(subject, [], [])
    one, other = found
    change = report_runs.compared(one, other, [])
    hits = [torch.tensor(each.pixels)[:, 0].sum(1) for each in (one, other)]
    assert (change.lost, change.won) == (int((hits[1] < hits[0]).sum()), int((hits[1] > hits[0]).sum()))


@pytest.mark.parametrize("words", [["robustness"], ["calibrate"], ["sharpness"], ["quantisation"]])
def test_what_counts_recordings_is_one_clear_line(words, trained, capfd):
    assert run("eval", COMMANDS, [*words, str(trained)]) == 1
    said = capfd.readouterr().err.strip().splitlines()
    assert "a class for every pixel" in said[-1] or "'up1'" in said[-1]


def test_a_model_of_recordings_on_canvases_is_refused(trained, tmp_path, capfd):
    assert run("eval", COMMANDS, ["accuracy", str(trained), "--name", "images", "--steps", "2"]) == 1
    assert "takes frames" in capfd.readouterr().err
