"""The zoo: its entries are configurations, `get` trains, exports and checks, and holds what it got against the note."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import COMMANDS
from export.zoo import zoo
from export.zoo.zoo import Entry, Noted, digest, entries, get
from hardspike import HardspikeError, UsageError, parse_json, run
from targets.graph import read

TINY = {"method": "hard", "epochs": 1, "batch_size": 64, "data": {"steps": 2}, "network": {"layers": "8rec"}}


def test_every_entry_is_a_configuration_with_a_note(tmp_path):
    found = entries()
    assert len(found) == 10
    for entry in found.values():
        config = entry.config(tmp_path)
        assert config.data.name in ("digits", "images") and config.data.path is None  # both are scikit-learn's
        assert config.seed == 0 and config.out == tmp_path
        assert entry.noted and entry.noted.low < entry.noted.accuracy <= 100 and len(entry.noted.sha256) == 64
        assert len(entry.noted.energy) == 2


def test_a_network_is_trained_checked_and_held_against_the_note(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "entries", lambda: {"tiny": Entry("tiny", "", TINY)})
    first = get("tiny", tmp_path / "a")
    assert first.file.is_file() and (tmp_path / "a/best.nir").is_file() and not first.same and first.spikes > 0
    assert replace(first, entry=Entry("tiny", "", TINY, Noted(50.0, 40.0, 1.0, sha256=first.sha256))).same
    with pytest.raises(UsageError, match="holds a run already"):
        get("tiny", tmp_path / "a")
    better = Noted(100.0, first.accuracy + 1, first.spikes, sha256="0" * 64)
    monkeypatch.setattr(zoo, "entries", lambda: {"tiny": Entry("tiny", "", TINY, better)})
    with pytest.raises(HardspikeError, match="are to be expected"):
        get("tiny", tmp_path / "b")
    graph = read(tmp_path / "b" / first.file.name)
    assert digest(graph.nodes) == first.sha256  # the same seed, the same numbers
    changed = next(node for node in graph.nodes.values() if getattr(node, "weight", None) is not None)
    changed.weight = np.where(changed.weight == changed.weight.max(), changed.weight - 1, changed.weight)
    assert digest(graph.nodes) != first.sha256


def test_the_list_is_a_table_and_json(tmp_path, capsys):
    assert run("export", COMMANDS, ["zoo", "list", "--json", str(tmp_path / "zoo.json")]) == 0
    said, stored = capsys.readouterr().out, parse_json((tmp_path / "zoo.json").read_text(), "zoo.json")
    assert all(name in said for name in entries())
    assert [len(one["noted"]["sha256"]) for one in stored["networks"]] == [64] * len(entries())


@pytest.mark.parametrize(("words", "said"), [
    (["got"], "did you mean 'get'"), (["get"], "takes the name of one network"),
    (["get", "con"], "did you mean 'conv'"), (["list", "conv"], "takes no name")])
def test_words_that_do_not_fit_are_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("export", COMMANDS, ["zoo", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not list(Path().iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", entries())
def test_a_network_of_the_zoo_is_what_was_noted(name, tmp_path):
    got = get(name, tmp_path / name)
    assert got.entry.noted and got.accuracy >= got.entry.noted.low
