"""A short round of the campaign, everything that it has found before, and that it would find what it looks for."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings

from export.passes import merge_linear
from export.passes.rewrite import conv_numbers
from hardspike import HardspikeError
from targets import loihi2, reference
from targets.loihi.c import program
from targets.nodes import neurons
from tests.conform import campaign as campaign_module
from tests.conform import corpus, grow, naive, networks, strategies
from tests.conform.bench import Bench
from tests.conform.campaign import Find, Total, campaign, differs, shrunk
from tests.conform.relations import RELATIONS
from tests.conform.rewritten import ElsewhereError

ROUND = 60
"""Graphs."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread():
    """What is small runs slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_short_round():
    total = Total()
    finds = [f"{find.number} ({find.case.kind}): {find.relation}: {find.said}"
             for find in campaign(0, range(ROUND), 0, total=total)]
    assert finds == []
    assert total.graphs == ROUND and total.silent < ROUND // 3
    assert {name for name, relation in RELATIONS.items() if relation.every in (1, 2, 3)} <= set(total.tried)


@pytest.mark.parametrize("path", sorted(corpus.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_before(path):
    """Equal, or refused by name where it ended in a traceback."""
    case, relation = corpus.from_text(path.read_text())
    with contextlib.suppress(HardspikeError):
        assert differs(relation, case) == ""


@settings(max_examples=25, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
@given(strategies.cases())
def test_hypothesis_draws_the_same_graphs(case):
    try:
        found = (loihi2 if case.integers else reference).run(case.graph, torch.from_numpy(case.frames))
    except HardspikeError:  # it may be a graph that a chip cannot hold: what is drawn depends on what is imported
        reject()
    wanted = naive.run(case.graph, case.frames, case.dt, case.integers)
    assert Bench(case).against(wanted.spikes) == "" and set(found.spikes) == set(wanted.spikes)


def test_networks_as_users_write_them():
    """snnTorch networks: what their file gives in the naive interpreter is what they give."""
    finds, refused = networks.round_of(0, 0, 10)
    assert finds == {} and len(refused) <= 3, refused


@pytest.mark.slow
def test_many_networks_as_users_write_them():
    finds, refused = networks.round_of(1, 0, 150)
    assert finds == {} and len(refused) <= 45, refused


@pytest.mark.slow
@pytest.mark.parametrize("name", ["native", "c", "evaluator"])
def test_programs_that_take_a_compiler(name):
    total = Total()
    assert [find.said for find in campaign(0, range(40), 0, [name], total)] == [] and total.tried[name] > 10


@pytest.mark.lava
@pytest.mark.slow
def test_graphs_in_intels_simulator():
    total = Total()
    assert [find.said for find in campaign(0, range(6), 0, ["lava"], total, "lava")] == [] \
        and total.tried["lava"] > 3


# ------------------------------------------------------------------------------------------- the machinery


def test_a_case_is_text_and_back():
    for number in range(20):
        case = grow.case(0, number, grow.KINDS[number % len(grow.KINDS)])
        if case.kind in ("extreme", "wide"):  # whose sums may be too large to run
            continue
        again, relation = corpus.from_text(corpus.to_text(case, "naive"))
        assert relation == "naive" and np.array_equal(again.frames, case.frames)
        assert Bench(again).against({name: spikes.numpy() for name, spikes in Bench(case).exact.spikes.items()}) == ""


def _find(relation: str, most: int = 300) -> Find:
    return next(campaign(0, range(most), 0, [relation]))


def test_a_planted_fault_is_found_shrunk_and_kept(monkeypatch, tmp_path):
    """`>=` for `>` in `reference`: a tie, with one neuron."""
    def fire(v, c):
        spikes = v >= c["threshold"]
        return spikes.to(v.dtype), v, (torch.where(spikes, c["reset"], v),)

    monkeypatch.setattr(neurons, "_fire", fire)
    find = _find("naive")
    small = shrunk(find, 20)
    assert small.said and len(small.case.graph.nodes) <= 5
    assert small.case.frames.shape[0] <= 2 and small.case.frames.shape[1] == 1  # a bias may take a step to the tie
    path = corpus.keep(small.case, small.relation, small.said, tmp_path)
    case, relation = corpus.from_text(path.read_text())
    assert differs(relation, case) and json.loads(path.read_text())["said"] == small.said
    monkeypatch.undo()
    assert differs(relation, case) == ""


def _without_dilation(label, node):
    found = conv_numbers(label, node)
    return found | {"dilation": (1,) * len(found["dilation"])}


@pytest.mark.parametrize("module, name, fault, relation, kind", [
    (program, "NARROW", (1 << 16) - 1, "native", "wide"), (merge_linear, "conv_numbers", _without_dilation, "folded",
                                                           "dyadic")])
def test_faults_that_only_rare_graphs_show_are_found(monkeypatch, module, name, fault, relation, kind):
    """Sums that just leave 16 bits; convolutions in a row."""
    monkeypatch.setattr(module, name, fault)
    assert next(campaign(0, range(200), 0, [relation], kind=kind)).said


def test_an_exception_is_a_find(monkeypatch):
    def broken(b):
        raise KeyError("x")

    monkeypatch.setitem(RELATIONS, "naive", replace(RELATIONS["naive"], differs=broken))
    find = _find("naive")
    assert "KeyError at test_conform.py" in find.said

    def run(*arguments, **options):
        raise KeyError("x")

    monkeypatch.setattr(Bench, "run", run)  # nothing runs any more
    small = shrunk(find, 10)
    assert small.said == find.said and len(small.case.graph.nodes) <= 3


def test_a_find_stays_whole_where_what_shrinks_is_broken(monkeypatch):
    def broken(graph):
        raise KeyError("x")

    monkeypatch.setattr(campaign_module, "flatten", broken)
    find = Find(0, 0, "naive", "KeyError at order.py:1: x", grow.case(0, 0, None))
    assert shrunk(find, 1) is find


def test_relations_know_what_they_are_about():
    integers, floats = grow.case(0, 0, "integers"), grow.case(0, 0, "floats")
    for name, case in (("folded", integers), ("native", floats), ("c", floats), ("lava", floats)):
        with pytest.raises(ElsewhereError):
            differs(name, case)


def test_the_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tests.conform", "naive,batch", "--seed", "2", "--count", "5",
                           "--jobs", "2", "--kind", "dyadic", "--keep", str(tmp_path)], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "seed 2, from 0: 5 graphs" in done.stdout and "naive 5, batch 5; 0 finds" in done.stdout


def test_what_does_not_end_is_a_find(monkeypatch):
    def forever(bench):
        while True:
            pass

    monkeypatch.setattr(campaign_module, "LIMIT", 0.2)
    monkeypatch.setitem(RELATIONS, "naive", replace(RELATIONS["naive"], differs=forever))
    find, = campaign(3, range(1), 0, ["naive"])
    assert find.said.startswith("TimeoutError at")


def test_a_refusal_of_what_runs_is_a_find(monkeypatch):
    """A fault that turns valid graphs away leaves nothing to compare."""
    def refuses(*_, **__):
        raise HardspikeError("a shape that is none")

    monkeypatch.setattr(reference, "run", refuses)
    find, = campaign(3, range(1), 0, ["naive"], kind="floats")
    assert find.said.startswith("RefusedError at") and "a shape that is none" in find.said
