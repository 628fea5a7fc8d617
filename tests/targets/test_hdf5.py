"""HDF5 files that ask for more than groups, numbers and text are refused by name, before anything is read."""

import math
import zlib

import h5py
import nir
import numpy as np
import pytest

from hardspike import HardspikeError
from targets import hdf5
from targets.graph import read, write


@pytest.fixture
def path(tmp_path):
    """A good graph, to be spoilt."""
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(np.ones((2, 3))), "output": nir.Output(np.array([2]))}
    write(nir.NIRGraph(nodes, [("input", "w"), ("w", "output")], type_check=False), tmp_path / "g.nir")
    (tmp_path / "outside.h5").write_bytes((tmp_path / "g.nir").read_bytes())
    return tmp_path / "g.nir"


def _linked_twice(file):
    place = file["node"].require_group("metadata")
    for level in range(40):
        inner = file.create_group(f"g{level}")
        place["a"], place["b"] = inner, inner
        place = inner


def _circle(file):
    file["node/nodes/w/metadata"] = file["node"]


def _soft(file):
    file["node/nodes/v"] = h5py.SoftLink("/node/nodes/w")


def _external(file):
    del file["node/nodes"]
    file["node/nodes"] = h5py.ExternalLink("outside.h5", "/node/nodes")


def _virtual(file):
    del file["node/nodes/w/weight"]
    layout = h5py.VirtualLayout((2, 3), "f8")
    layout[...] = h5py.VirtualSource("outside.h5", "node/nodes/w/weight", (2, 3))
    file["node/nodes/w"].create_virtual_dataset("weight", layout)


def _raw(file):
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (2, 3), "f8", external=[("/etc/hostname", 0, 48)])


def _huge(file):
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (1 << 20, 1 << 12), "f4", chunks=True, compression="gzip")


def _many_chunks(file):
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (1 << 17,), "u1", chunks=(1,))


def _one_huge_chunk(file):
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (2,), "f4", maxshape=(None,), chunks=(1 << 29,))


def _bomb(file):
    del file["node/nodes/w/weight"]
    data = file["node/nodes/w"].create_dataset("weight", (2, 3), "f8", chunks=(2, 3), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26)))


def _plugin(file):
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", data=np.ones((2, 3)), chunks=(2, 3), compression="lzf")


def _compound(file):
    file["node/nodes/w/x"] = np.zeros(3, [("a", "i4"), ("b", "f8")])


def _pieces(file):
    file["node/nodes/w"].create_dataset("x", data=[np.arange(3), np.arange(2)], dtype=h5py.vlen_dtype("i4"))


def _reference(file):
    file["node/nodes/w/x"] = file["node"].ref


def _complex(file):
    file["node/nodes/w/x"] = np.zeros(3, complex)


def _nothing(file):
    file["node/nodes/w/x"] = h5py.Empty("f8")


def _type(file):
    file["node/nodes/w/x"] = np.dtype("f8")


def _enumeration(file):
    file["node/nodes/w"].create_dataset("x", data=[1], dtype=h5py.enum_dtype({"a": 1}))


def _deep(file):
    file.create_group("/".join(["node", *["a"] * 70]))


def _control(file):
    file.move("node/nodes/w", "node/nodes/w\x1b[31m")


def _direction(file):
    file.move("node/nodes/w", "node/nodes/w\u202e")


def _long(file):
    file.move("node/nodes/w", "node/nodes/" + "w" * 300)


def _long_text(file):
    file["node/nodes/w"].create_dataset("x", data=np.array(["a" * 100_000] * 200, object), dtype=h5py.string_dtype())


def _chunked_text(file):
    file["node/nodes/w"].create_dataset("x", data=np.array(["a"] * 3, object), dtype=h5py.string_dtype(), chunks=(2,))


def _no_text(file):
    file["node/nodes/w/x"] = np.bytes_(b"\xff\xfe")


@pytest.mark.parametrize(("spoil", "message"), [
    (_linked_twice, "is linked from two places"), (_circle, "is linked from two places"), (_soft, "is a soft link"),
    (_external, "is a link into another file"), (_virtual, "'node/nodes/w/weight' is virtual"),
    (_raw, "'node/nodes/w/weight' keeps its values in another file"), (_huge, "more than its .* MB can hold"),
    (_many_chunks, "lies in 131072 chunks"), (_one_huge_chunk, "more than its .* MB can hold"),
    (_bomb, "unpacks to more than the 48 bytes"), (_plugin, "packed with filter 32000"),
    (_compound, "holds neither numbers nor text"), (_pieces, "holds neither numbers nor text"),
    (_reference, "holds neither numbers nor text"), (_complex, "holds neither numbers nor text"),
    (_nothing, "is empty"), (_type, "neither a group nor a dataset"), (_enumeration, "neither numbers nor text"),
    (_deep, "deeper than 64 groups"), (_control, r"w\\x1b\[31m'"), (_direction, r"w\\u202e'"), (_long, "printable"),
    (_long_text, "of text"), (_chunked_text, "does not lie in one piece"), (_no_text, "is no UTF-8")])
def test_what_is_not_read_is_named(path, spoil, message, monkeypatch):
    monkeypatch.chdir(path.parent)
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(HardspikeError, match=rf"^.*g\.nir: .*{message}") as caught:
        read(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_heap_without_end_is_refused(path):
    """HDF5 itself goes round for ever."""
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL")
    for at in range(place + 16, place + 4096, 8):
        content[at:at + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(HardspikeError, match=r"g\.nir: "):
        read(path)


@pytest.mark.parametrize(("at", "value"), [(8, 9), (13, 4), (14, 16), (0, 0)])
def test_another_superblock_is_refused(path, at, value):
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content)
    with pytest.raises(HardspikeError, match=r"g\.nir: not a readable NIR file"):
        read(path)


def test_a_folder_a_pipe_and_a_name_that_cannot_be_are_named(tmp_path):
    with pytest.raises(HardspikeError, match="is a folder"):
        hdf5.read(tmp_path, "NIR file")
    with pytest.raises(HardspikeError, match="no such file"):
        hdf5.read(tmp_path / "absent", "NIR file")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(HardspikeError, match="cannot be read"):
            hdf5.read(tmp_path / name, "NIR file")


def test_what_is_read_is_what_was_written(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["text"], file["bytes"], file["number"], file["flag"] = "é" * 9, np.bytes_(b"ab"), 3.5, True
        file["edges"] = np.array([["a", "b"], ["c", ""]], object)
        file["fixed"] = np.array([b"abc", b"d"])
        file["none"] = np.zeros((0, 2), object).astype("S1")
        file["swapped"] = np.arange(5, dtype=">i4")
        packed = np.arange(3000.0).reshape(50, 60)
        file.create_dataset("g/packed", data=packed, compression="gzip", shuffle=True, fletcher32=True, chunks=(7, 60))
    found = hdf5.read(tmp_path / "x.h5", "file")
    assert (found["text"], found["bytes"], found["number"], bool(found["flag"])) == ("é" * 9, "ab", 3.5, True)
    assert found["edges"].tolist() == [[b"a", b"b"], [b"c", b""]] and found["fixed"].tolist() == [b"abc", b"d"]
    assert found["swapped"].dtype == np.int32 and found["swapped"].tolist() == [0, 1, 2, 3, 4]
    assert found["none"].shape == (0, 2) and math.prod(found["g"]["packed"].shape) == 3000
    np.testing.assert_array_equal(found["g"]["packed"], packed)
