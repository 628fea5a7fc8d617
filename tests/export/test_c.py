"""`python -m export c`: files that explain and test themselves, compiled and compared before they are there."""

import json
import subprocess

import numpy as np
import pytest
import torch

from export.commands import c
from export.options import Output, Quantisation
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError
from targets import graph as graphs
from targets import loihi2, native
from targets.loihi import compiled
from targets.loihi.c import selftest
from tests import lava_naive
from tests.networks import busy_checkpoint
from trainer.data import DataConfig

pytestmark = pytest.mark.skipif(not native.compilers(), reason="no C compiler")
SHAPE = (2, 9, 11)


@pytest.fixture
def model(tmp_path):
    """An integer graph, and recordings that it spikes on."""
    rng = np.random.default_rng(4)
    graphs.write(lava_naive.to_nir(lava_naive.random_layers(rng, SHAPE), SHAPE), tmp_path / "model.nir")
    np.savez(tmp_path / "spikes.npz", spikes=(rng.random((12, 5, *SHAPE)) < 0.4).astype(np.uint8))
    return tmp_path / "model.nir", Recordings(input=tmp_path / "spikes.npz")


def test_file_header_and_self_test(model, tmp_path, capsys):
    path, recordings = model
    checked = c(path, Output(out=tmp_path / "My net.c", json=tmp_path / "table.json"), samples=5,
                recordings=recordings)
    assert checked.mismatches == 0 and checked.samples == 5 and any(layer.spikes for layer in checked.layers)
    said = capsys.readouterr().out
    assert "code, bytes" in said and "additions a step" in said
    text = (tmp_path / "My net.c").read_text()
    assert text.startswith("/*\n * my_net: a spiking network in integers, Loihi 2's arithmetic.")
    assert text.count("#include") == 1 and "float" not in text and "malloc" not in text
    assert json.loads((tmp_path / "My net.c.parity.json").read_text())["mismatches"] == 0
    compiler = native.compilers()[0]
    subprocess.run([*compiler, *selftest.STRICT, "My net.c", "my_net_test.c", "-o", "test"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "12 steps, 0 values differ\n")


def test_generated_code_is_not_compared_with_itself(model, tmp_path, monkeypatch):
    """The chip may run the very functions that the file holds: the check takes the torch code."""
    path, recordings = model
    monkeypatch.setenv("HARDSPIKE_KERNEL", "native")
    monkeypatch.setattr(compiled.Simulator, "run", lambda *_: pytest.fail("compared with itself"))
    assert c(path, Output(out=tmp_path / "model.c"), samples=2, recordings=recordings).mismatches == 0


def test_a_difference_leaves_no_file(model, tmp_path, monkeypatch):
    path, recordings = model
    run = selftest.run

    def wrong(*arguments):
        seen = run(*arguments)
        next(iter(seen.spikes.values()))[0, 0, 0] ^= 1
        return seen

    monkeypatch.setattr(selftest, "run", wrong)
    before = set(tmp_path.iterdir())
    with pytest.raises(HardspikeError, match=r"model.c: not written: C \(.*\) against loihi2: 1 mismatching spikes"):
        c(path, recordings=recordings)
    assert set(tmp_path.iterdir()) == before


def test_what_does_not_compile_is_one_line(model, tmp_path, monkeypatch):
    path, recordings = model
    monkeypatch.setattr(selftest, "program_text", lambda written: "int main(void) { return nothing; }")
    with pytest.raises(HardspikeError, match=r"model.c: does not compile with .*: .*nothing.*") as error:
        c(path, recordings=recordings)
    assert "\n" not in str(error.value) and not (tmp_path / "model.c").exists()


def test_unchecked_says_so(model, tmp_path, capsys, monkeypatch):
    path, recordings = model
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(HardspikeError, match=r"no C compiler .* or give --no-check"):
        c(path, recordings=recordings)
    assert c(path, Output(no_check=True), recordings=recordings) is None
    assert "NOT checked" in capsys.readouterr().out and (tmp_path / "model.h").is_file()
    with pytest.raises(UsageError, match=r"is written as \.c"):
        c(path, Output(out=tmp_path / "model.txt"), recordings=recordings)


def test_a_checkpoint_is_quantised_first_and_counts_its_readout(tmp_path):
    busy_checkpoint(tmp_path / "best.pt", DataConfig(), layers="4c5s2-16")
    np.savez(tmp_path / "spikes.npz", spikes=(torch.rand(8, 4, 2, 34, 34) < 0.2).byte().numpy())
    checked = c(tmp_path / "best.pt", chosen=Quantisation(scale="max_abs"), samples=4,
                recordings=Recordings(input=tmp_path / "spikes.npz"))
    assert checked.mismatches == 0
    assert "int32_t out[10]" in (tmp_path / "best.c").read_text()


def test_counts_up_to_a_byte(model, tmp_path):
    path, recordings = model
    spikes = np.load(recordings.input)["spikes"] * 3
    np.savez(tmp_path / "counts.npz", spikes=spikes)
    assert c(path, recordings=Recordings(input=tmp_path / "counts.npz")).mismatches == 0
    assert "INPUT_MAX 255" in (tmp_path / "model.h").read_text()
    found = loihi2.run(graphs.read(path), torch.from_numpy(spikes)).spikes
    assert any(fired.any() for fired in found.values())
    np.savez(tmp_path / "counts.npz", spikes=spikes.astype(np.float32) / 2)
    with pytest.raises(HardspikeError, match="whole numbers from 0 to 255"):
        c(path, recordings=Recordings(input=tmp_path / "counts.npz"))
