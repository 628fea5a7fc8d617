"""Every eval command: which models it takes, what its help imports, and how it leaves torch."""

import importlib
import json
import subprocess
import sys

import nir
import numpy as np
import pytest
import torch

from eval import accuracy, gradients, parity, quantisation
from eval.__main__ import COMMANDS
from eval.calibrate import measure as calibrate
from eval.energy import measure as energy
from eval.energy.price_tables import load_table
from eval.operations import measure as operations
from eval.options import Effort, Stress
from eval.report import measure as report
from eval.robustness import measure as robustness
from export.commands import nir as export_nir
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, arguments, run
from targets.chips import CHIPS
from targets.table import load_targets
from tests.eval.opened import subjects
from tests.networks import busy_checkpoint
from trainer.data import DataConfig

STRESS = ("--corruptions", "event_drop", "--severities", "0", "--samples", "4")
CALLS = {
    "accuracy": ("--samples", "4"), "calibrate": ("--kind", "global", "--train-samples", "4"),
    "energy": ("--samples", "4"), "operations": ("--samples", "4"),
    "parity": ("--samples", "4", "--targets", "reference,onnxruntime"),
    "quantisation": ("--samples", "4", "--train-samples", "4", "--bits", "8"), "robustness": STRESS,
    "report": ("--samples", "4", "--corrupted", "4", "--severities", "0", "--bits", "8", "--targets", "reference")}


@pytest.fixture(scope="module", autouse=True)
def _short_search():
    from eval.calibrate import network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "GRID", (1.0,))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A run's folder, its checkpoint and its graph."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    busy_checkpoint(folder / "best.pt", DataConfig(steps=3), layers="4c5s4-12", reset="zero")
    export_nir(folder, samples=4)
    return folder, folder / "best.pt", folder / "best.nir"


def evaluate(command, *words):
    return run("eval", COMMANDS, [command, *map(str, words)])


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["folder", "pt", "nir"])
def test_every_command_takes_a_folder_a_checkpoint_and_a_graph(command, kind, models, capsys):
    assert evaluate(command, models[kind], *CALLS[command]) == 0, capsys.readouterr().err


def test_gradients_take_a_folder_and_a_checkpoint(models, tmp_path):
    for model in models[:2]:
        assert evaluate("gradients", model, "--samples", 2, "--out", tmp_path / "g.svg") == 0


@pytest.mark.parametrize("command", ["accuracy", "operations", "parity", "robustness", "quantisation"])
def test_samples_0_are_all(command, models, tmp_path):
    words = {"robustness": ["--corruptions", "event_drop", "--severities", "0"],
             "quantisation": ["--bits", "8", "--train-samples", "4"]}.get(command, [])
    assert evaluate(command, models[2], *words, "--samples", 0, "--json", tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text())["samples"] == 359


def test_samples_mean_one_thing_in_every_command():
    """How many recordings a command runs on, evenly spread; what it chooses by are its training samples."""
    from export.__main__ import COMMANDS as EXPORTS
    from targets.__main__ import COMMANDS as TARGETS
    from trainer.__main__ import COMMANDS as TRAINERS

    seen = []
    for where, _ in (*COMMANDS.values(), *EXPORTS.values(), *TARGETS.values(), *TRAINERS.values()):
        module, name = where.split(":")
        for one in arguments._arguments(getattr(importlib.import_module(module), name)):
            if "samples" in one.key:
                key = one.key.rpartition(".")[2]
                assert key in ("samples", "train_samples") and "0 for all" in one.help, (where, one.key, one.help)
                assert ("training recordings to choose" in one.help or "training recordings for" in one.help) == \
                    (key == "train_samples"), (where, one.help)
                seen.append(key)
    assert seen.count("samples") >= 14 and seen.count("train_samples") >= 5


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_help_imports_no_torch(command):
    code = (f"import sys; from hardspike import run; from eval.__main__ import COMMANDS; "
            f"status = run('eval', COMMANDS, {[*([command] if command else []), '--help']}); "
            "assert status == 0 and not {'torch', 'nir', 'numpy', 'matplotlib'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m eval" in done.stdout


def test_torch_is_left_as_it_was(models, tmp_path):
    """Threads and precision of a caller who does other things besides."""
    def state():
        return (torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled,
                torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype())

    before = state()
    torch.set_num_threads(before[0] + 1)
    torch.set_float32_matmul_precision("medium")
    wanted, draws = state(), torch.get_rng_state()
    try:
        for name, measure in measures(models, tmp_path).items():
            measure()
            assert state() == wanted, name
            assert torch.equal(torch.get_rng_state(), draws), name
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def measures(models, tmp_path):
    folder, _, graph = models
    both = subjects(folder, graph, samples=4)
    one = both[:1]
    return {
        "accuracy": lambda: accuracy.measure(both), "gradients": lambda: gradients.measure(folder, 2, Recordings()),
        "parity": lambda: parity.measure(both[1], load_targets("reference,loihi2,onnxruntime")),
        "quantisation": lambda: quantisation.measure(one, CHIPS["loihi2"], [8], 4),
        "calibrate": lambda: calibrate.measure(both[0], ("global", "bias"), 4),
        "energy": lambda: energy.measure(both, [load_table("horowitz45nm")], []),
        "operations": lambda: operations.measure(both, load_targets("reference,onnxruntime")),
        "robustness": lambda: robustness.measure(both, Stress(severities="0.1")),
        "report": lambda: report.measure(one, ["run"], Effort("reference,loihi2", "8", 4, 4, "0"))}


# ------------------------------------------------------------------------------------------ graphs of others


def foreign(path, shape=(4,), tau=1e-2, classes=4, **metadata):
    """One layer that answers with the class of the input that is on."""
    size = int(np.prod(shape))
    weight = np.tile(np.eye(classes, 4, dtype=np.float32), (1, size // 4)) if len(shape) == 1 else \
        np.random.default_rng(0).normal(0, 0.1, (classes, size)).astype(np.float32)
    nodes = {"input": nir.Input(np.array(shape)), "flat": nir.Flatten({"input": np.array(shape)}, 0, -1),
             "fc": nir.Linear(weight), "output": nir.Output(np.array([classes])),
             "lif": nir.LIF(*(np.full(classes, value, np.float32) for value in (tau, 1, 0, 0.3)))}
    edges = [("input", "flat"), ("flat", "fc"), ("fc", "lif"), ("lif", "output")]
    nir.write(path, nir.NIRGraph(nodes, edges, metadata=metadata))
    return path


def spikes(path, labels=(0, 1, 2, 3), steps=32):
    np.savez(path, spikes=np.eye(4, dtype=np.uint8)[np.array(labels) % 4][None].repeat(steps, 0),
             labels=np.array(labels))
    return path


def test_a_graph_that_says_no_step_is_given_it(tmp_path):
    """tau 10 ms, written for steps of 1 ms: at the default of 0.1 ms it hardly fires."""
    graph, file = foreign(tmp_path / "a.nir"), spikes(tmp_path / "x.npz")
    slow, = accuracy.measure(subjects(graph, input=file))
    right, = accuracy.measure(subjects(graph, input=file, dt=1e-3))
    assert right.accuracy == 1 and 0 <= slow.spikes["lif"] < 0.3 * right.spikes["lif"]
    for command in ("accuracy", "operations", "energy", "parity"):
        assert evaluate(command, graph, "--input", file, "--dt", "1e-3", "--json", tmp_path / "t.json") == 0
    assert evaluate("calibrate", graph, "--input", file, "--dt", "1e-3", "--out", tmp_path / "c.nir") in (0, 1)
    with pytest.raises(HardspikeError, match=r"the graph was written for 0\.0001 s, asked is 0\.001 s"):
        subjects(foreign(tmp_path / "b.nir", dt=1e-4), input=file, dt=1e-3)


def test_a_step_is_not_for_checkpoints(models):
    with pytest.raises(UsageError, match=r"dt 0\.001: is for graphs"):
        subjects(models[0], dt=1e-3)
    assert subjects(models[0], models[2], dt=1e-4)


def test_a_graph_of_another_picture_size_is_given_it(tmp_path):
    graph = foreign(tmp_path / "a.nir", (2, 17, 17), classes=10)
    with pytest.raises(HardspikeError, match=r"takes frames \(2, 17, 17\), digits gives \(2, 34, 34\); give --size 17"):
        subjects(graph, name="digits")
    assert evaluate("accuracy", graph, "--name", "digits", "--size", 17, "--steps", 4, "--samples", 8, "--dt", "1e-3",
                    "--json", tmp_path / "t.json") == 0
    assert json.loads((tmp_path / "t.json").read_text())["samples"] == 8
    with pytest.raises(HardspikeError, match="give --input FILE"):
        subjects(foreign(tmp_path / "b.nir"), name="digits")


@pytest.mark.parametrize("command", ["accuracy", "calibrate", "robustness", "report", "parity", "quantisation"])
def test_a_class_without_an_output_is_refused_by_one_rule(command, tmp_path, capsys):
    graph, file = foreign(tmp_path / "a.nir"), spikes(tmp_path / "x.npz", (0, 1, 2, 7))
    assert evaluate(command, graph, "--input", file, "--dt", "1e-3") == 1
    error = capsys.readouterr().err
    assert "label 7, but the model gives 4 outputs" in error and error.count("\n") == 1


def test_recordings_without_classes_have_no_accuracy(tmp_path, capsys):
    graph = foreign(tmp_path / "a.nir")
    np.savez(tmp_path / "x.npz", spikes=np.ones((4, 3, 4), np.uint8))
    assert evaluate("accuracy", graph, "--input", tmp_path / "x.npz", "--dt", "1e-3") == 1
    assert "says no classes" in capsys.readouterr().err
    for command in ("operations", "parity", "energy"):
        assert evaluate(command, graph, "--input", tmp_path / "x.npz", "--dt", "1e-3") == 0


# ------------------------------------------------------------------------------------------------- one entry


def test_a_metric_is_one_function(models, monkeypatch, capsys):
    """A new measure of spikes: a function of a Subject, and one line where commands are listed."""
    def sparsity(model, samples: int = 4):
        """Share of spikes in all places of the first mode with hard spikes.

        Args:
            model: any kind
            samples: how many
        """
        from pathlib import Path

        from eval.subject import modes, runs
        subject, = subjects(Path(model), samples=samples)
        _, record = runs(subject.model, modes(subject.model)[-1])(subject.frames)
        print({layer: float((spikes != 0).double().mean()) for layer, spikes in record.items()})

    sparsity.__annotations__["model"] = str
    monkeypatch.setitem(COMMANDS, "sparsity", sparsity)
    for model in models:
        assert evaluate("sparsity", model) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and len(set(said)) == 1 and "lif1" in said[0]
