"""ONNX, `.net` and `.npz` files are looked at before anything is made of them."""

import io
import zipfile

import h5py
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from hardspike import HardspikeError
from targets import recording
from targets.inputs import load_spikes
from targets.lava.net_file import copied, read_net
from targets.onnx.model import to_onnx
from targets.onnx.runtime import run_file
from tests.fuzz import seeds

# ------------------------------------------------------------------------------------------------- ONNX


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return to_onnx(seeds.graph())


def _external(m):
    parameter = m.graph.initializer[0]
    parameter.ClearField("raw_data")
    parameter.data_location = onnx.TensorProto.EXTERNAL
    entry = parameter.external_data.add()
    entry.key, entry.value = "location", "../../etc/hostname"


def _external_silent(m):
    entry = m.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def _loop(m):
    m.graph.node[0].op_type = "Loop"


def _foreign(m):
    m.graph.node[0].domain = "com.microsoft"


def _subgraph(m):
    m.graph.node[0].attribute.append(helper.make_attribute("body", m.graph))


def _tensor_attribute(m):
    m.graph.node[0].attribute.append(helper.make_attribute("value", m.graph.initializer[0]))


def _function(m):
    m.functions.append(helper.make_function("x", "F", [], [], [], m.opset_import))


def _sparse(m):
    m.graph.sparse_initializer.add()


def _padding(m):
    node = helper.make_node("Conv", ["input", "w"], ["big"], "big", pads=[100_000] * 4)
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 2, 1, 1), np.float32), "w"))
    m.graph.node.insert(0, node)


def _dims(m):
    m.graph.initializer[0].dims[:] = [1 << 31, 1 << 31]


def _cut(m):
    m.graph.initializer[0].raw_data = m.graph.initializer[0].raw_data[:-1]


def _ours(m):
    del m.metadata_props[:]


def _steps(m):
    entry = m.metadata_props.add()
    entry.key, entry.value = "steps", "x"


def _input(m):
    m.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0


def _output(m):
    m.graph.output[0].name = "result"


def _double(m):
    m.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _number(m):
    m.graph.node[0].attribute.append(helper.make_attribute("axis", 1 << 60))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_external, "lies in another file"),
        (_external_silent, "lies in another file"),
        (_loop, "is Loop"),
        (_foreign, "is com.microsoft"),
        (_subgraph, "body is no number"),
        (_tensor_attribute, "value is no number"),
        (_function, "holds functions"),
        (_sparse, "holds functions, sparse"),
        (_padding, "at most 268435456 elements"),
        (_dims, "is not held in full"),
        (_cut, "is not held in full"),
        (_ours, "not one of `hardspike export onnx`"),
        (_steps, "metadata steps 'x'"),
        (_input, "of known shape"),
        (_output, "output is missing|do not fit"),
        (_double, "no float32"),
        (_number, "axis is no number"),
    ],
)
def test_an_onnx_file_that_could_do_more_is_refused(model, tmp_path, spoil, message):
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(model)
    spoil(spoilt)
    (tmp_path / "m.onnx").write_bytes(spoilt.SerializeToString())
    with pytest.raises(HardspikeError, match=rf"m\.onnx: .*({message})") as caught:
        run_file(tmp_path / "m.onnx", seeds.spikes())
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("place", ["key", "value"])
def test_metadata_that_are_no_text_are_refused(model, tmp_path, place):
    """onnxruntime gives them as text when it is asked, long after the file was looked at."""
    model.metadata_props.add(**{"key": "key", "value": "value", place: "STRANGE"})
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString().replace(b"STRANGE", b"STR\x80NGE"))
    with pytest.raises(HardspikeError, match=r"m\.onnx: its metadata are no text"):
        run_file(tmp_path / "m.onnx", seeds.spikes())


def test_an_onnx_file_of_ours_runs(model, tmp_path):
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert run_file(tmp_path / "m.onnx", seeds.spikes()).spikes["fire"].sum() == seeds.spikes().sum()


@pytest.mark.parametrize("steps", [100_000, 10**9])
def test_an_endless_sequence_is_refused_with_the_longest(steps):
    with pytest.raises(HardspikeError, match=rf"unroll {steps}: \d+ operators a step .* unroll at most \d+"):
        to_onnx(seeds.graph(), steps=steps)


# ------------------------------------------------------------------------------------------------- .net


@pytest.fixture
def net(tmp_path):
    (tmp_path / "n.net").write_bytes(seeds.files(tmp_path)[".net"][0])
    return tmp_path / "n.net"


def _set(place, value):
    def change(file):
        del file[place]
        file[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("layer/0/type", b"dense"), "its first layer is 'dense'"),
        (_set("layer/0/shape", -3), "shape"),
        (_set("layer/0/shape", np.array([10**6, 10**6])), "neurons together"),
        (_set("layer/0/shape", b"x"), "shape"),
        (_set("layer/1/shape", np.zeros((2, 2), int)), "shape"),
        (_set("layer/1", 5), "wrong or missing"),
        (_set("layer", h5py.ExternalLink("x.h5", "/layer")), "is a link into another file"),
        (_set("readout/weight", np.ones(3)), "readout"),
        (_set("readout/bias", b"x"), "wrong or missing"),
    ],
)
def test_a_net_file_that_says_odd_things_is_refused(net, change, message):
    with h5py.File(net, "a") as file:
        change(file)
    with pytest.raises(HardspikeError, match=rf"n\.net: .*{message}"):
        read_net(net)


def test_two_layers_of_one_name_are_refused(net):
    with h5py.File(net, "a") as file:
        names = [key for key in file["layer"] if "name" in file[f"layer/{key}"]]
        for key in names:
            del file[f"layer/{key}/name"]
            file[f"layer/{key}/name"] = "same"
    with pytest.raises(HardspikeError, match="two layers have one name"):
        read_net(net)


def test_lava_gets_a_copy_of_what_was_read(net, tmp_path):
    from targets import hdf5

    made = io.BytesIO()
    copied(hdf5.read(net, "file"), made)
    (tmp_path / "copy.net").write_bytes(made.getvalue())
    one, two = {}, {}
    for path, found in ((net, one), (tmp_path / "copy.net", two)):
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))  # noqa: B023
    assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


# ------------------------------------------------------------------------------------------------- .npz


def _zip(path, *members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def _header(shape, descr="|u1", data=b""):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": descr, "fortran_order": False, "shape": shape})
    return made.getvalue() + data


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("spikes.npy", _header((4, 1 << 40)))], "more than its .* MB can hold"),
        ([(f"a{i}.npy", _header((1 << 28,))) for i in range(9)], "more than its .* MB can hold"),
        ([("spikes.npy", _header((4,), "|O", b"cos\nsystem\n"))], "pickled Python objects"),
        ([("spikes.npy", _header((-4,)))], "shape"),
        ([("spikes.npy", b"not an npy")], "is no array"),
        ([("x\x1b[31m.npy", b"")], r"x\\x1b\[31m.npy' is no array"),
        ([("spikes.npy", b"\x93NUMPY\x09\x00")], "version"),
        ([("spikes.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((")], "not a readable"),
    ],
)
def test_an_npz_that_declares_what_it_does_not_hold_is_refused(tmp_path, members, message):
    _zip(tmp_path / "s.npz", *members)
    with pytest.raises(HardspikeError, match=rf"s\.npz: .*({message})") as caught:
        load_spikes(tmp_path / "s.npz")
    assert str(caught.value).isprintable()


def test_an_npz_that_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "s.npz", spikes=np.zeros((100, 10_000), np.uint8))
    monkeypatch.setattr("hardspike.memory.free_memory", lambda: 1 << 20)
    with pytest.raises(HardspikeError, match=r"s\.npz: what it holds needs about .*; take fewer samples"):
        load_spikes(tmp_path / "s.npz")


@pytest.mark.parametrize("values", [np.array(["a"]), np.zeros(2, complex), np.zeros(2, "M8[s]")])
def test_a_recording_of_something_else_is_refused(tmp_path, values):
    np.savez(tmp_path / "r.npz", output=values)
    with pytest.raises(HardspikeError, match=r"r\.npz: 'output' holds .*; numbers are needed"):
        recording.load(tmp_path / "r.npz")


def test_a_recording_in_another_byte_order_is_read(tmp_path):
    np.savez(tmp_path / "r.npz", output=np.arange(3, dtype=">f8"))
    assert torch.equal(recording.load(tmp_path / "r.npz").output, torch.arange(3).double())
