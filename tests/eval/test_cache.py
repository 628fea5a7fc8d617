"""Results of the eval commands on disk: read where nothing changed, computed anew where anything did."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import cache
from eval.cache import cached, cached_file, fingerprint
from hardspike import HardspikeError


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Computes that were made, and a cache of their own."""
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    return []


def result(calls: list) -> dict:
    calls.append(1)
    return {"accuracy": 1 / 3, "spikes": (1, 2)}


def test_same_key_is_computed_once_and_any_change_anew(calls, tmp_path, monkeypatch):
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    key = {"command": "robustness", "model": model, "frames": torch.eye(3), "options": {"seed": 0, "p": 0.1}}

    def run(**changes) -> int:
        assert cached(key | changes, lambda: result(calls)) == {"accuracy": 1 / 3, "spikes": [1, 2]}
        return len(calls)
    assert run() == 1 and run() == 1
    assert run(options={"p": 0.1, "seed": 0}) == 1
    copy = tmp_path / "copy.pt"
    copy.write_bytes(b"weights")
    assert run(model=copy) == 1
    assert run(options={"seed": 1, "p": 0.1}) == 2 and run(command="accuracy") == 3
    assert run(frames=torch.eye(3).to(torch.uint8)) == 4 and run(frames=torch.zeros(3, 3)) == 5
    model.write_bytes(b"weighty")
    assert run() == 6
    monkeypatch.setattr(cache, "program_key", lambda: "another version")
    assert run() == 7


@pytest.mark.parametrize("ending", [".json", ".json.sha256"])
@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"9\xff"])
def test_damaged_files_are_computed_anew(calls, tmp_path, ending, damage):
    def run() -> int:
        calls.append(1)
        return 1234  # `123` is JSON, too

    cached({"a": 1}, run)
    file, = (tmp_path / "cache" / "eval").glob(f"*{ending}")
    file.write_bytes(damage(file.read_bytes()))
    assert cached({"a": 1}, run) == cached({"a": 1}, run) == 1234 and len(calls) == 2
    file.unlink()
    assert cached({"a": 1}, run) == cached({"a": 1}, run) == 1234 and len(calls) == 3


def test_a_damaged_file_is_written_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    file = cached_file({"a": 1}, ".nir", lambda path: path.write_bytes(b"graph"))
    file.write_bytes(b"gra")
    assert cached_file({"a": 1}, ".nir", lambda path: path.write_bytes(b"graph")) == file
    assert file.read_bytes() == b"graph" and f"{file}: damaged; made anew" in capsys.readouterr().err


def test_an_interrupted_compute_leaves_nothing(calls, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cached({"a": 1}, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not (tmp_path / "cache").exists()


@dataclass
class Options:
    seed: int = 0


def test_fingerprints_tell_values_apart():
    values = [None, 0, 0.0, False, "0", [], [0], [[0]], {}, {"0": 0}, ["00"], ["0", "0"], Options(), Options(1),
              np.zeros(2), np.zeros(2, np.float32), np.zeros((1, 2)), np.zeros((2, 1)), np.array(0.0)]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint("a", "b") != fingerprint("ab") and fingerprint(torch.ones(2)) == fingerprint(torch.ones(2))
    frames = torch.rand(2, 3, 4)
    assert fingerprint(frames.transpose(0, 1)) == fingerprint(frames.transpose(0, 1).contiguous())


def test_what_has_no_content_is_refused(tmp_path):
    with pytest.raises(HardspikeError, match="cannot be read"):
        fingerprint(tmp_path / "missing")
    with pytest.raises(HardspikeError, match="cannot be read"):
        fingerprint(Path(tmp_path))
    with pytest.raises(TypeError, match="function"):
        fingerprint(lambda: 0)
