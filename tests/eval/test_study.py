"""A study: variants by seeds, paired, not repeated, shared by processes, refused where it cannot be what it says."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from eval import rows
from eval.commands.study import study
from eval.options import Columns, Tables, Training
from eval.study import train as training
from eval.study.compare import compare, spread
from eval.study.plan import read
from eval.study.runs import StudyRun, measured
from eval.study.train import local, train_all
from hardspike import HardspikeError, UsageError, claim
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import load
from trainer.evaluate import evaluate

SHIPPED = Path(__file__).parents[2] / "trainer" / "studies"
STUDY = """
keep: last
base: {method: hard, epochs: 2, batch_size: 128, data: {steps: 3}, network: {layers: 4c5s4-16, batch_norm: true}}
variants:
  A: {}
  wide: {network: {reset: zero}, data: {steps: 5}}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


def test_variants_are_trained_once_and_compared_in_pairs(tmp_path, file, capsys):
    kwargs = dict(training=Training(seeds=2), columns=Columns("bias", "event_drop", True), plot=tmp_path / "s.svg",
                  tables=Tables(tmp_path / "s.json", tmp_path / "s.csv"))
    found = study(file, tmp_path / "runs", **kwargs)
    assert [one.variant for one in found.variants] == ["A", "wide"] and found.keep == "last"
    wide = checkpoint.load(tmp_path / "runs" / "wide" / "1" / "last.pt").config
    assert (wide.seed, wide.network.reset, wide.network.layers, wide.data.steps) == (1, "zero", "4c5s4-16", 5)
    content = json.loads((tmp_path / "s.json").read_text())
    for row in content["runs"]:  # each on frames as it was trained on, the last epoch's weights
        stored = checkpoint.load(tmp_path / "runs" / row["variant"] / str(row["seed"]) / "last.pt")
        data = load(stored.config.data)
        smooth, hard = (evaluate(stored.network, data, data.test, mode) for mode in (False, True))
        assert row["hard"] == 100 * hard.accuracy
        assert row["spikes"] == pytest.approx(sum(hard.spikes.values()), rel=1e-14)  # summed in another order
        assert row["gap"] == pytest.approx(100 * (smooth.accuracy - hard.accuracy))
        assert (row["epoch"], row["gradients"]) == (2, stored.history[-1]["gradient_evaluations"])
        assert row["hard, event_drop"] == pytest.approx(np.mean(row["curves"]["hard, event_drop"]))
        assert row["curves"]["surrogate, event_drop"][0] == pytest.approx(row["surrogate"])
        assert 0 < row["peak GB"] < 100 and "hard, bias" in row
    assert content["columns"][1]["peak GB factor"] > 0 and content["tests"][0]["variant"] == "wide"
    assert (tmp_path / "s.svg").exists() and (tmp_path / "s-robustness.svg").exists()
    assert "epoch   1/2" in (tmp_path / "runs" / "A" / "0" / "log.txt").read_text()
    printed = capsys.readouterr().out
    assert "epoch   1/2" not in printed
    tables = rows.study_further(found.variants)  # every further column in one of them
    assert {key for table in tables.values() for key in table[1]} == set(content["columns"][1])
    assert [key in printed for key in ("costs of training", "after calibration", "event_drop: mean")] == [True] * 3
    before = (tmp_path / "runs" / "A" / "0" / "last.pt").stat().st_mtime_ns
    assert study(file, tmp_path / "runs", **kwargs).variants == found.variants
    assert (tmp_path / "runs" / "A" / "0" / "last.pt").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="epochs: 2 -> 1"):
        study(file, tmp_path / "runs", training=Training(seeds=1, epochs=1))
    # best.pt is by hard accuracy: another look at the same runs
    assert study(file, tmp_path / "runs", training=Training(seeds=1, keep="hard")).keep == "hard"


def test_folds_judge_every_recording_once(tmp_path, file):
    plan = read(file)
    config = replace(plan.first, out=tmp_path / "runs", epochs=1, threads=1)
    configs = [replace(config, out=tmp_path / f"fold{fold}", data=replace(config.data, folds=2, fold=fold))
               for fold in (1, 2)]
    train_all(configs, local(1))
    (run,), recordings = measured([("A", configs)], "test", "last", Columns())
    assert recordings == len(run.right) == 1797
    assert run.values["hard"] == pytest.approx(100 * run.right.mean())


# -------------------------------------------------------------------------------------------- many processes


def _runs(folder: Path) -> list[FitConfig]:
    return [FitConfig(out=folder / str(seed), seed=seed, threads=1) for seed in range(3)]


def _done(config: FitConfig) -> bool:
    return (config.out / "done").exists()


def _pretend(config: FitConfig) -> None:
    """A run that takes half a second and says whose it was."""
    with claim(config.out) as ours:
        if ours and not _done(config):
            time.sleep(0.5)
            (config.out / "who").write_text(str(os.getppid()))
            (config.out / "done").touch()


def _hang(config: FitConfig) -> None:
    with claim(config.out):
        (config.out / "hangs").touch()
        time.sleep(600)


def _share(folder: Path, run) -> None:
    training.finished, training.train = _done, run
    train_all(_runs(folder), local(1), pause=0.1)


def test_two_processes_share_a_folder(tmp_path):
    """Each run is trained by one of them, and both see all of them through."""
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_share, args=(tmp_path, _pretend)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
        assert process.exitcode == 0
    who = [(tmp_path / str(seed) / "who").read_text() for seed in range(3)]
    assert set(who) <= {str(process.pid) for process in both}


def test_what_a_killed_process_was_at_another_finishes(tmp_path):
    context = multiprocessing.get_context("spawn")
    killed, other = (context.Process(target=_share, args=(tmp_path, run)) for run in (_hang, _pretend))
    killed.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "0" / "hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    other.start()
    time.sleep(1)
    os.kill(killed.pid, signal.SIGKILL)
    other.join(300)
    assert other.exitcode == 0
    assert {(tmp_path / str(seed) / "who").read_text() for seed in range(3)} == {str(other.pid)}


def _die(config):
    os._exit(9)


def test_a_killed_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train", _die)
    with pytest.raises(HardspikeError, match="fewer --jobs"):
        train_all([FitConfig(out=tmp_path)], local(1))


def _interrupted(config):
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_processes(tmp_path, monkeypatch):
    """Each would take the next run otherwise, and the command end only after it."""
    monkeypatch.setattr(training, "train", _interrupted)
    with pytest.raises(HardspikeError):
        train_all([FitConfig(out=tmp_path)] * 3, local(1))


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    def launch(configs):
        for config in configs:
            if config.seed == 1:
                yield config, "1: loss became nan"
                continue
            (config.out / "done").parent.mkdir()
            (config.out / "done").touch()
            yield config, None

    with pytest.MonkeyPatch.context() as patch, pytest.raises(HardspikeError, match=r"1 of 3 runs failed: 1: loss"):
        patch.setattr(training, "finished", _done)
        train_all(_runs(tmp_path), launch)
    assert (tmp_path / "2" / "done").exists()


SBATCH = """#!/usr/bin/env python3
import os, re, subprocess, sys
from pathlib import Path
script = Path(sys.argv[-1])
tasks = int(re.search(r"--array=0-(\\d+)", script.read_text())[1]) + 1
(Path(__file__).parent / "script").write_text(script.read_text())
for task in range(tasks):
    env = {**os.environ, "SLURM_JOB_ID": str(100 + task), "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task),
           "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
           "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}
    given = script.parent / f"77_{task}_submitted.pkl"  # written once this has said the job's number
    subprocess.Popen(["bash", "-c", f"until [ -e {given} ]; do sleep 0.1; done; bash {script}"], env=env,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
print("Submitted batch job 77")
"""
SRUN = """#!/usr/bin/env python3
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[2:] if words[0] in ("--output", "--error") else words[1:]
os.execvp(words[0], words)
"""
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
for task in 0 1 2; do
    state=RUNNING
    [ -e "$JOBS/77_${task}_0_result.pkl" ] && state=COMPLETED
    echo "77_$task|$state|here"
done
"""


def test_slurm_by_a_stand_in(tmp_path, monkeypatch):
    """sbatch, srun and sacct that run jobs here and at once: submitit's own path, from the array to the results."""
    pytest.importorskip("submitit")
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(tmp_path / "slurm"))
    monkeypatch.setattr(training, "finished", _done)
    from eval.study import slurm as module
    monkeypatch.setattr(module, "train", _pretend)
    launch = module.slurm(tmp_path / "slurm", 2, "slurm_partition=cpu,timeout_min=7")
    train_all(_runs(tmp_path / "runs"), launch)
    script = (tmp_path / "script").read_text()
    assert "--partition=cpu" in script and "--time=7" in script and "--array=0-2%2" in script
    assert all(_done(config) for config in _runs(tmp_path / "runs"))
    monkeypatch.setattr(module, "train", _fails)
    with pytest.raises(HardspikeError, match=r"3 of 3 runs failed: .*diverged"):
        monkeypatch.setenv("JOBS", str(tmp_path / "again"))
        train_all(_runs(tmp_path / "other"), module.slurm(tmp_path / "again", 2, ""))
    with pytest.raises(UsageError, match="key=value"):
        module.parameters("partition")


def _fails(config):
    raise HardspikeError("diverged")


# ---------------------------------------------------------------------------------------------- comparison


def _run(variant, seed, hard, spikes=100.0, right=(True,)):
    return StudyRun(variant, seed, {"hard": hard, "gap": 1.0 * seed, "spikes": spikes}, np.array(right))


def test_the_tests_against_the_first_variant_are_paired():
    hard = {"A": [90.0, 94.0, 98.0], "B": [91.0, 95.5, 98.5]}
    spikes = {"A": [100.0, 200.0, 300.0], "B": [90.0, 180.0, 270.0]}
    right = {"A": [[0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]], "B": [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]}
    first, second = compare([_run(name, seed, hard[name][seed], spikes[name][seed], right[name][seed])
                             for seed in range(3) for name in "AB"])
    assert first.changes == {} and first.pooled is None
    assert first.values["hard"] == spread([90, 94, 98])
    assert (first.values["hard"].deviation, first.values["hard"].median, first.values["hard"].low) == (4, 94, 92)
    points = second.changes["hard"]
    test = ttest_rel(hard["B"], hard["A"])
    interval = test.confidence_interval(0.95)
    assert (points.mean, points.low, points.high, points.p) == pytest.approx(
        (1, interval.low, interval.high, test.pvalue))
    assert second.changes["spikes"].mean == pytest.approx(-10) and second.changes["spikes"].p is None
    assert second.changes["gap"].p is None  # nothing differs
    assert (second.pooled.better, second.pooled.worse) == (2, 1)  # of seeds together: 1-3, 1-3, 3-1, 3-3
    assert second.pooled.p == pytest.approx(binomtest(1, 3).pvalue)
    assert (points.p_holm, second.pooled.p_holm) == pytest.approx((2 * points.p, 1.0))


def test_further_columns_have_a_correction_of_their_own():
    runs = [_run(name, seed, hard, 100.0, [1, 1]) for seed in range(3)
            for name, hard in (("A", 90.0 + seed), ("B", 91.0 + seed**2))]
    plain = compare(runs)
    stressed = {"A": {"hard, bias": [80.0, 85.0, 90.0], "hard, bin_drop": [70.0, 72.0, 75.0]},
                "B": {"hard, bias": [82.0, 86.0, 92.0], "hard, bin_drop": [70.0, 70.0, 73.0]}}
    for run in runs:
        run.values.update({key: values[run.seed] for key, values in stressed[run.variant].items()})
        run.values["surrogate, bin_drop"] = run.seed
    first, second = compare(runs)
    assert (first.further, second.changes, second.pooled) == ({}, plain[1].changes, plain[1].pooled)
    p = {key: ttest_rel(values, stressed["A"][key]).pvalue for key, values in stressed["B"].items()}
    assert {key: change.p for key, change in second.further.items()} == pytest.approx(p)
    assert second.further["hard, bias"].mean == pytest.approx(5 / 3)
    assert second.further[min(p, key=p.get)].p_holm == pytest.approx(2 * min(p.values()))


def test_one_seed_has_no_deviation_and_mcnemars_test():
    _, second = compare([_run("A", 0, 50.0, right=[1, 0] * 6), _run("B", 0, 75.0, right=[1, 1] * 6)])
    assert second.values["hard"].deviation is None and second.changes["hard"].low is None
    assert second.pooled.p == pytest.approx(2 * 0.5**6)


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize(("text", "message"), [
    ("variants: {A: {epoch: 3}}", "A"), ("base: {}", "variants"),
    ("variants: {A: {}}\nbasis: {}", "did you mean 'base'"), ("variants: [", "YAML"),
    ("variants: {A: {}, B: {data: {split_seed: 1}}}", "B: data.split_seed 1"),
    ("variants: {A: 3}", "A: 3 where options"), ("base: [method]\nvariants: {A: {}}", "base: .* where options"),
    ("base: {seed: 3}\nvariants: {A: {}}", "base: seed: set by the study"),
    ("base: {keep: last}\nvariants: {A: {}}", "base: keep: set by the study"),
    ("keep: best\nvariants: {A: {}}", "keep 'best' is unknown"), ("variants: {../A: {}}", "a folder's name"),
    ("variants: {A: {data: {name: digitz}}}", "A: data source 'digitz' is unknown; did you mean 'digits'"),
    ("variants: {A: {data: {window_ms: 5}}}", "A: window_ms 5: digits has whole recordings"),
    (f"variants: {{{'A' * 300}: {{}}}}", "at most 200 bytes"), ("keep: [1]\nvariants: {A: {}}", "keep .1. is unknown")])
def test_a_study_that_cannot_be_read_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(HardspikeError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_epochs_scale_every_variant(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("base: {epochs: 30}\nvariants: {A: {}, twice: {epochs: 60}}")
    assert [config.epochs for config in read(path, epochs=4).variants.values()] == [4, 8]
    assert {config.keep for config in read(path, keep="last").variants.values()} == {"hard"}
    assert {config.keep for config in read(path, keep="surrogate").variants.values()} == {"surrogate"}


def test_values_of_a_study_are_data(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("variants: {A: {class_path: os.system}}")
    with pytest.raises(HardspikeError, match="class_path"):
        read(path)
    path.write_text("variants: !!python/object/apply:os.system [ls]")
    with pytest.raises(HardspikeError, match="tag"):
        read(path)


@pytest.mark.parametrize(("options", "message"), [
    (dict(epochs=0), "epochs 0"), (dict(seeds=0), "seeds 0"), (dict(folds=1), "folds 1"),
    (dict(engine="slum"), "did you mean 'slurm'"), (dict(slurm="a=1"), "for --engine slurm")])
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message):
        Training(**options).checked()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_read_and_are_what_they_say(path):
    plan = read(path)
    if path.stem.endswith("_sast"):
        assert plan.keep == "last" and [round(c.sast.rho, 2) for c in list(plan.variants.values())[1:]] == [
            0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]
