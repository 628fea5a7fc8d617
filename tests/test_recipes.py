"""The recipes of CONTRIBUTING.md for a chip, a pass, a format and a corruption, each followed with a dummy.

One line in a table is all that makes them known: what is tried here is everything else that has to follow from it.
"""

import json
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import Tensor

import hardspike
from eval.commands.robustness import robustness
from eval.options import Stress
from eval.robustness.corruptions import CORRUPTIONS, Corruption, corrupt
from export import commands as export_commands
from export.__main__ import COMMANDS
from export.check import parity
from export.check.report import announce, write_report
from export.model import Model, output_path
from export.options import Output, Quantisation
from export.passes import lower as lowering
from export.passes.lower import PASSES, fold, lower
from export.passes.rewrite import Edit
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, atomic_path
from targets import chips, commands, reference, table
from targets.graph import LINEAR, read, write
from targets.graph.shapes import array
from targets.limits import Limit, Limits
from targets.loihi import rules
from targets.loihi.chips import loihi
from targets.onnx.model import to_onnx
from targets.recording import Recording
from targets.target import Target
from targets.violation import Violation


def float_graph() -> nir.NIRGraph:
    """Two dense layers of IF neurons that fire, in floats."""
    draw, one = np.random.default_rng(0).normal, np.ones(8)
    nodes = {"input": nir.Input(np.array([6])), "fc1": nir.Linear(draw(0.2, 0.5, (8, 6))),
             "lif1": nir.IF(1e4 * one, 1.0 * one, v_reset=0 * one), "fc2": nir.Linear(draw(0.2, 0.5, (8, 8))),
             "lif2": nir.IF(1e4 * one, 0.8 * one, v_reset=0 * one), "output": nir.Output(np.array([8]))}
    return nir.NIRGraph(nodes, list(pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False)


@pytest.fixture
def files(tmp_path):
    """`m.nir`, and `x.npz` to run it on."""
    write(float_graph(), tmp_path / "m.nir")
    np.savez(tmp_path / "x.npz", spikes=(np.random.default_rng(1).random((20, 5, 6)) < 0.4).astype(np.uint8))
    return tmp_path


def spikes(files: Path) -> Tensor:
    return torch.from_numpy(np.load(files / "x.npz")["spikes"]).float()


# ------------------------------------------------------------------------------------------------ a chip

HERE = "a dummy, for this test"
TOY = Limits(chip="Toy One", cores=Limit(4, HERE), neurons=Limit(3, HERE), input_axons=Limit(None, HERE),
             output_axons=Limit(None, HERE), synapse_bits=Limit(None, HERE), synapses=Limit(None, HERE),
             weight_min=Limit(-7, HERE), weight_max=Limit(7, HERE), bias=Limit(100, HERE), threshold=Limit(500, HERE),
             decay=Limit(4096, HERE), delay=Limit(0, HERE), per_neuron=True, resets=("zero",), graded=True)


def own_check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    return rules.check(graph, TOY, dt)


def own_run(graph: nir.NIRGraph, spikes: Tensor, **options) -> Recording:
    """An arithmetic of its own: exact, and deaf to the last step."""
    return reference.run(graph, torch.cat([spikes[:-1], torch.zeros_like(spikes[:1])]), **options)


def known(monkeypatch, chip: Target) -> Target:
    """The line in `targets.chips.CHIPS`, from which `targets.table.TARGETS` takes it at import."""
    monkeypatch.setitem(chips.CHIPS, chip.name, chip)
    monkeypatch.setitem(table.TARGETS, chip.name, chip)
    return chip


@pytest.fixture(params=["like Lava", "its own"])
def toy(request, monkeypatch) -> Target:
    """A chip of 4 cores with 4-bit weights, whose arithmetic is Lava's or its own."""
    if request.param == "like Lava":
        return known(monkeypatch, loihi("toy", "a dummy of one line", TOY))
    return known(monkeypatch, Target("toy", "a dummy of one line", own_run, own_check, integers=TOY, loses_spikes=True))


def test_a_chip_is_listed_checked_quantised_for_run_and_mapped(toy, files, capsys):
    assert "toy" in commands.list_targets() and "a dummy of one line" in capsys.readouterr().out
    assert not commands.check(files / "m.nir", "toy")
    assert "integers only" in capsys.readouterr().out
    export_commands.quantise(files / "m.nir", Output(), Quantisation("toy", bits=4, train_samples=0),
                             recordings=Recordings(input=files / "x.npz"))
    integer = read(files / "m.toy-int4.nir")
    assert json.loads(integer.metadata["quantised"])["target"] == "Toy One" and chips.chip_of(integer) is toy
    assert max(abs(array(node.weight)).max() for node in integer.nodes.values() if isinstance(node, LINEAR)) <= 7
    capsys.readouterr()
    assert not commands.check(files / "m.toy-int4.nir", "toy")
    out = capsys.readouterr().out
    assert "6 (estimate); at most 4 (a dummy" in out and "1 error," in out
    assert sum(map(len, commands.map_file(files / "m.toy-int4.nir", "toy").cores.values())) == 6
    assert "about 6 of 4 cores" in " ".join(capsys.readouterr().out.split())
    found = commands.run(files / "m.toy-int4.nir", "toy", files / "x.npz")
    assert found.spikes["lif2"].sum() > 20
    assert torch.equal(found.spikes["lif2"], toy.run_in_chunks(integer, spikes(files)).spikes["lif2"])


def test_scales_are_chosen_in_the_chip_s_own_arithmetic(toy, files):
    x, graph = spikes(files), fold(float_graph())
    integer, rows = lower(graph, x, toy, bits=4)
    got, wanted = toy.run(integer, x).spikes, reference.run(graph, x).spikes
    assert [row.mismatches for row in rows] == [int((got[row.layer] != wanted[row.layer]).sum()) for row in rows]


def test_what_a_chip_computes_goes_to_onnx_exactly_or_not_at_all(toy, files):
    x = spikes(files)
    integer, _ = lower(float_graph(), x, toy, bits=4, scale="max_abs")
    if toy.like_lava:
        model = table.load_target("onnxruntime").run(integer, x).spikes
        assert all(torch.equal(model[name], fired) for name, fired in toy.run(integer, x).spikes.items())
    else:
        with pytest.raises(HardspikeError, match="Toy One has an arithmetic of its own"):
            to_onnx(integer)


def test_a_chip_s_name_is_offered_where_another_is_misspelt(toy, files):
    with pytest.raises(UsageError, match="did you mean 'toy'"):
        commands.check(files / "m.nir", "toi")
    with pytest.raises(UsageError, match=r"those that have: .*toy"):
        commands.map_file(files / "m.nir", "reference")


def test_a_chip_without_the_numbers_that_quantising_needs_is_refused():
    fields = {key: Limit(None, HERE) if key in ("neurons", "weight_max") else value for key, value in vars(TOY).items()}
    with pytest.raises(ValueError, match="Toy One: neurons, weight_max: a number is needed"):
        Limits(**fields)


# ------------------------------------------------------------------------------------------------ a pass


def double(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Weights and thresholds times two: the same spikes."""
    edit = Edit(graph)
    for name, node in graph.nodes.items():
        if isinstance(node, nir.Linear):
            edit.nodes[name] = nir.Linear(2 * array(node.weight))
        elif isinstance(node, nir.IF):
            edit.nodes[name] = nir.IF(node.r, 2 * array(node.v_threshold), v_reset=node.v_reset)
    return edit.graph()


@pytest.mark.parametrize("at", range(len(PASSES) + 1))
def test_a_pass_is_one_line_anywhere_in_the_order(at, files, monkeypatch):
    x, plain = spikes(files), fold(float_graph())
    monkeypatch.setattr(lowering, "PASSES", (*PASSES[:at], double, *PASSES[at:]))
    folded = fold(float_graph())
    assert np.array_equal(folded.nodes["fc1"].weight, 2 * plain.nodes["fc1"].weight)
    before, after = reference.run(plain, x).spikes, reference.run(folded, x).spikes
    assert all(torch.equal(before[name], after[name]) and before[name].sum() > 20 for name in before)
    _, rows = lower(float_graph(), x, chips.chip("loihi2"), scale="max_abs")
    assert [row.spikes for row in rows] == [int(fired.sum()) for fired in before.values()]


# ---------------------------------------------------------------------------------------------- a format


def write_text(model: Path, samples: int = 0, input: Path | None = None) -> None:
    """Write a graph as JSON and compare what the file says with the graph, spike for spike.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir)
        samples: recordings to check on; 0 for all
        input: .npz file to check on
    """
    opened = Model.open(model)
    out = output_path(opened, Output(), ".json")
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps({name: array(node.weight).tolist() for name, node in opened.graph.nodes.items()
                                         if isinstance(node, LINEAR)}))
        edit = Edit(opened.graph)
        edit.nodes |= {name: nir.Linear(np.array(rows)) for name, rows in json.loads(temporary.read_text()).items()}
        frames, _ = Recordings(input=input).part("test", samples, opened)
        checked = parity.compare("the graph", "the JSON", reference.run(opened.graph, frames).spikes,
                                 reference.run(edit.graph(), frames).spikes)
        parity.refuse_silence(out, checked)
        parity.require_equal(out, checked)
    announce(out, write_report(out, opened.graph, checked), checked, None)


def test_a_format_is_one_command_that_ends_in_a_check(files, monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "text", write_text)
    words = ["text", str(files / "m.nir"), "--input", str(files / "x.npz")]
    assert hardspike.run("export", {"text": COMMANDS["text"]}, words) == 0
    assert "0 mismatching spikes" in capsys.readouterr().out and (files / "m.json").is_file()
    assert json.loads((files / "m.json.parity.json").read_text())["mismatches"] == 0
    np.savez(files / "silent.npz", spikes=np.zeros((20, 5, 6)))
    (files / "m.json").unlink()
    assert hardspike.run("export", {"text": COMMANDS["text"]}, [*words[:-1], str(files / "silent.npz")]) == 1
    assert "the check says nothing" in capsys.readouterr().err and not (files / "m.json").exists()


# ------------------------------------------------------------------------------------------ a corruption


def mirror(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Every step is mirrored with probability `severity`."""
    mirrored = torch.rand(len(frames), 1, 1, 1, generator=generator) < severity
    return torch.where(mirrored, frames.flip(-1), frames)


def test_a_corruption_is_one_function(monkeypatch):
    monkeypatch.setitem(CORRUPTIONS, "mirror", Corruption(mirror, "probability of a step"))
    frames = (torch.rand(3, 40, 2, 6, 6) < 0.2).to(torch.uint8)
    found = partial(corrupt, frames, ["a", "b", "c"], "mirror", largest=1)
    assert torch.equal(found(severity=0.0), frames) and torch.equal(found(severity=1.0), frames.flip(-1))
    part = found(severity=0.5)
    assert torch.equal(part, found(severity=0.5)) and not torch.equal(part, found(severity=0.5, seed=1))
    assert 20 < (part == frames.flip(-1)).flatten(2).all(2).sum() < 100


def test_a_corruption_is_measured_by_its_name(monkeypatch, tmp_path, capsys):
    """On a graph that tells left from right, which the mirror exchanges."""
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CORRUPTIONS, "mirror", Corruption(mirror, "probability of a step"))
    sides = np.zeros((2, 2, 4, 4))
    sides[0, ..., :2] = sides[1, ..., 2:] = 1
    nodes = {"input": nir.Input(np.array([2, 4, 4])),
             "flatten": nir.Flatten(input_type={"input": np.array([2, 4, 4])}, start_dim=0, end_dim=-1),
             "fc": nir.Linear(sides.reshape(2, -1)), "lif": nir.Threshold(np.full(2, 0.5)),
             "output": nir.Output(np.array([2]))}
    write(nir.NIRGraph(nodes, list(pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False), tmp_path / "m.nir")
    spikes = np.broadcast_to(sides, (10, *sides.shape)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", spikes=spikes, labels=np.array([0, 1]))
    found = robustness(tmp_path / "m.nir", stress=Stress("mirror", "0,1"),
                       recordings=Recordings(input=tmp_path / "x.npz"))
    assert [(row.corruption, row.accuracy) for row in found.rows] == [("mirror", [100.0, 0.0])]
    assert "mirror" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- what is said


def test_the_recipes_name_what_is_there():
    """Files and tests that CONTRIBUTING.md names in backticks; of the tests, those whose names it begins, too."""
    root = Path(__file__).parents[1]
    said = re.findall(r"`([^`\n]+)`", (root / "CONTRIBUTING.md").read_text())
    paths = [one for one in said if re.fullmatch(r"[\w/]+/[\w/.]*\w\.(py|md|yaml)", one) and "NAME" not in one]
    assert len(paths) > 20 and [one for one in paths if not (root / one).exists()] == []
    tests = {name for path in root.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    named = [one.removesuffix("...") for one in said if re.fullmatch(r"test_\w+(\.\.\.)?", one)]
    assert len(named) > 6 and [one for one in named if not any(test.startswith(one) for test in tests)] == []
