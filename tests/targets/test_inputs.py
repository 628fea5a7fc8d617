"""Spikes of every type that a file can hold run alike on every target, or are refused in one line."""

import json
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import metadata
from targets.inputs import load_spikes
from targets.lava import runner
from targets.lava.netx import write_net
from targets.table import TARGETS

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64", "longdouble", ">u2", ">u8", ">f4")
ARITHMETIC = [target for target in TARGETS.values() if target.setup is None]


def graph() -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array([2])), "fc": nir.Linear(np.full((3, 2), 100.0)),
             "n": nir.IF(np.full(3, 1e4), np.full(3, 150.0), v_reset=np.zeros(3)), "output": nir.Output(np.array([3]))}
    return nir.NIRGraph(nodes, list(pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False)


@pytest.mark.parametrize("target", ARITHMETIC, ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_runs_alike(dtype, target, tmp_path):
    np.savez(tmp_path / "x.npz", spikes=np.ones((10, 4, 2), dtype))
    spikes, _ = load_spikes(tmp_path / "x.npz")
    assert target.run(graph(), spikes).spikes["n"].sum() == 10 * 4 * 3


@pytest.mark.parametrize("target", ARITHMETIC, ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.bfloat16, torch.float8_e5m2],
                         ids=str)
def test_every_type_of_tensor_runs_alike(dtype, target):
    assert target.run(graph(), torch.ones(10, 4, 2).to(dtype)).spikes["n"].sum() == 10 * 4 * 3


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_lava_looks_at_unsigned_spikes_before_it_starts(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "required", lambda folder: None)
    write_net(graph(), tmp_path / "g.net")
    with pytest.raises(HardspikeError, match="spikes go up to 2"):
        runner.run(tmp_path / "g.net", torch.from_numpy(np.full((10, 4, 2), 2, dtype)))


@pytest.mark.parametrize("target", ARITHMETIC, ids=lambda target: target.name)
def test_complex_spikes_are_refused(target):
    with pytest.raises(HardspikeError, match="spikes are complex"):
        target.run(graph(), torch.ones(10, 4, 2, dtype=torch.complex64))


@pytest.mark.parametrize("value", [2**15, 2**31, 2**63, 2**64 - 1])
def test_large_counts_keep_their_sign(value, tmp_path):
    np.savez(tmp_path / "x.npz", spikes=np.full((2, 1, 2), value, "uint64"))
    assert (load_spikes(tmp_path / "x.npz")[0].double() == float(value)).all()


@pytest.mark.parametrize(("change", "message"), [
    (dict(spikes=np.ones((2, 3, 2), "complex64")), "'spikes' is of type complex64; numbers are needed"),
    (dict(spikes=np.ones((2, 3, 2), "datetime64[s]")), "numbers are needed"),
    (dict(spikes=np.ones((2, 3, 2), [("x", "i4")])), "numbers are needed"),
    (dict(spikes=np.ones((2, 3, 2)), labels=np.full(3, 2**64 - 1, "uint64")), "label 18446744073709551615; no network"),
    (dict(spikes=np.ones((2, 3, 2)), labels=np.full(3, -1)), "label -1; classes count from 0"),
])
def test_what_is_no_number_is_refused(change, message, tmp_path):
    np.savez(tmp_path / "x.npz", **change)
    with pytest.raises(HardspikeError, match=message):
        load_spikes(tmp_path / "x.npz")


def test_axes_that_look_swapped_are_said_so(tmp_path):
    np.savez(tmp_path / "x.npz", spikes=np.ones((12, 5, 1, 4, 4)), labels=np.zeros(12, int))
    with pytest.raises(HardspikeError, match=r"the first two axes look swapped, save np.swapaxes\(spikes, 0, 1\); of "
                                             "still pictures .* leave 'labels' out"):
        load_spikes(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", spikes=np.ones((12, 5, 1, 4, 4)).swapaxes(0, 1), labels=np.zeros(12, int))
    assert len(load_spikes(tmp_path / "x.npz")[1]) == 12
    np.savez(tmp_path / "x.npz", spikes=np.ones((12, 5, 1, 4, 4)), labels=np.zeros(7, int))
    with pytest.raises(HardspikeError, match="one whole number for each of the samples"):
        load_spikes(tmp_path / "x.npz")


@pytest.mark.parametrize("target", ARITHMETIC, ids=lambda target: target.name)
def test_still_pictures_are_to_be_repeated(target):
    with pytest.raises(HardspikeError, match=r"still pictures .* spikes=np.repeat\(pictures\[None\], T, axis=0\)"):
        target.run(graph(), torch.ones(4, 2))
    pictures, steps = np.ones((4, 2)), 3
    assert len(target.run(graph(), torch.from_numpy(np.repeat(pictures[None], steps, axis=0))).output) == steps
    with pytest.raises(HardspikeError) as error:
        target.run(graph(), torch.ones(4, 7))
    assert "repeat" not in str(error.value)


@pytest.mark.parametrize(("encoding", "way"), [("count", "train with --data.encoding binary"),
                                               ("binary", "bin the events into counts")])
def test_fractions_of_counts_lead_to_training_on_spikes(encoding, way):
    said = metadata.with_key(graph(), "data", json.dumps({"name": "digits", "encoding": encoding}))
    with pytest.raises(HardspikeError, match=way):
        TARGETS["loihi2"].run(said, torch.full((4, 2, 2), 0.5))
