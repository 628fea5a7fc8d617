"""Graphs: `.nir`, `.net` and `.onnx`."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import torch

from tests.fuzz import mutate, seeds

TYPES = (
    b"LIF",
    b"Input",
    b"Output",
    b"Conv2d",
    b"Conv1d",
    b"Scale",
    b"Threshold",
    b"Delay",
    b"Flatten",
    b"IF",
    b"LI",
    b"CubaLIF",
    b"SumPool2d",
    b"AvgPool2d",
    b"Affine",
    b"Linear",
    b"MaxPool2d",
    b"I",
    b"NIRGraph",
    b"x",
)
NUMPY = ("f2", "i1", "u8", "c8", "?", ">f4", ">i8", "f8")


def hdf5(suffix: str, edits: tuple[Callable, ...]) -> Callable[[random.Random, Path], Path]:
    """Bytes, or one to three `edits` of groups and datasets."""

    def make(r: random.Random, folder: Path) -> Path:
        path, data = folder / f"in{suffix}", r.choice(seeds.files(folder)[suffix])
        if r.random() < 0.35:
            path.write_bytes(mutate.mutated(r, data))
            return path
        path.write_bytes(data)
        with h5py.File(path, "a") as file:
            for _ in range(r.choice((1, 1, 2, 3))):
                names: list[str] = []
                file.visit(names.append)
                r.choice(edits)(r, file, r.choice(names), names, folder)
        return path

    return make


def edit_value(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """Another value, type or shape."""
    if not isinstance(file.get(name), h5py.Dataset):
        return
    old = np.asarray(file[name][()])
    numbers = old.dtype.kind in "biuf"
    new = r.choice(
        (
            lambda: np.full(old.shape, mutate.number(r)),
            lambda: old.astype(r.choice(NUMPY)) if numbers else b"\xff\xfe",
            lambda: np.zeros(r.choice(((0,), (1,), (1, 1), (2, 3, 4), (1,) * 6, (3,), (0, 2))), r.choice((float, int))),
            lambda: old.reshape(-1),
            lambda: old[None],
            lambda: old[..., :1] if old.ndim else old,
            lambda: h5py.Empty("f8"),
            lambda: mutate.name(r).replace("\0", ""),
            lambda: np.array([b"a", b"b"]),
            lambda: mutate.number(r),
            lambda: r.choice(TYPES),
            lambda: np.repeat(old, 50, 0) if old.ndim else old,
            lambda: np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        )
    )()
    del file[name]
    file[name] = new


def edit_storage(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """The same place, stored in a way that could read elsewhere or never end."""
    canary = str(folder.parent / "canaries" / f"{mutate.CANARY}.h5")
    if not isinstance(file.get(name), h5py.Dataset):
        return
    old = np.asarray(file[name][()])
    shape = old.shape or (1,)
    parent, _, last = name.rpartition("/")
    group = file[parent] if parent else file
    del file[name]
    match r.randrange(8):
        case 0:
            group.create_dataset(
                last,
                shape=r.choice(((10**5, 10**5), (1 << 33,), (1 << 20, 1))),
                dtype="f4",
                chunks=True,
                compression="gzip",
            )
        case 1:
            layout = h5py.VirtualLayout(shape, "f8")
            layout[...] = h5py.VirtualSource(canary, "w", shape)
            group.create_virtual_dataset(last, layout)
        case 2:
            group.create_dataset(last, shape, "f8", external=[(canary, 0, 8 * int(np.prod(shape)))])
        case 3:
            group.create_dataset(
                last,
                shape=(r.choice((10**5, 3 * 10**6)),),
                dtype="f4",
                chunks=(r.choice((1, 7, 10**5)),),
                compression=r.choice(("gzip", "lzf", None)),
                shuffle=True,
            )
        case 4:
            group.create_dataset(last, shape=(2,), maxshape=(None,), chunks=(1 << 28,), dtype="f4", compression="gzip")
        case 5:
            group.create_dataset(last, data=np.array(["a" * 2000] * 300, object), dtype=h5py.string_dtype())
        case 6:
            group.create_dataset(last, data=[np.arange(3), np.arange(2)], dtype=h5py.vlen_dtype(np.int32))
        case 7:
            group.create_dataset(last, shape=r.choice(((1 << 20,), shape)), dtype="f8", fillvalue=mutate.number(r))


def edit_name(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """Gone, or called otherwise."""
    if name not in file:
        return
    if r.random() < 0.4:
        del file[name]
        return
    parent, _, last = name.rpartition("/")
    with contextlib.suppress(ValueError, KeyError):
        file.move(name, f"{parent}/{r.choice((mutate.name(r), last + mutate.name(r)))}".replace("\0", "0"))


def edit_link(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """A link to itself, around, outside, or to what is there already."""
    canary = str(folder.parent / "canaries" / f"{mutate.CANARY}.h5")
    target = file.get(r.choice(names))
    groups = [found for found in names if isinstance(file.get(found), h5py.Group)] or ["/"]
    place = file[r.choice(groups)]
    key = r.choice((f"extra{r.randrange(9)}", "metadata", "type", "weight", "nodes"))
    if key in place:
        del place[key]
    if r.random() < 0.2:  # a tree of 2^20 to 2^40 groups
        for _ in range(r.choice((20, 40))):
            inner = place.file.create_group(f"link{r.randrange(10**9)}")
            place[f"{key}a"], place[f"{key}b"] = inner, inner
            place = inner
    elif target is not None:
        place[key] = r.choice(
            (
                lambda: h5py.SoftLink("/" + r.choice(names)),
                lambda: h5py.ExternalLink(canary, "/"),
                lambda: h5py.SoftLink(key),
                lambda: target,
                lambda: target,
            )
        )()


def edit_edges(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """Edges listed twice, missing, turned round, to nowhere, many."""
    places = [found for found in names if found.split("/")[-1] == "edges" and isinstance(file.get(found), h5py.Dataset)]
    place = r.choice(places) if places else ""
    if not place or file[place].ndim != 2 or not file[place].shape[0] or file[place].shape[1] != 2:
        return
    edges = [[end.decode() if isinstance(end, bytes) else str(end) for end in pair] for pair in file[place][()]]
    ends = sorted({end for pair in edges for end in pair})
    for _ in range(r.choice((1, 1, 2, 20))):
        pair = r.choice(edges)
        match r.randrange(6):
            case 0:
                edges.append(list(pair))
            case 1:
                edges.append([pair[0], pair[0]])
            case 2:
                edges.append(pair[::-1])
            case 3 if len(edges) > 1:
                edges.remove(pair)
            case 4:
                pair[r.randrange(2)] = mutate.name(r).replace("\0", "")
            case _:
                edges.append([r.choice(ends), r.choice(ends)])
    del file[place]
    file.create_dataset(place, data=np.array(edges, object), dtype=h5py.string_dtype())


def edit_graph(r: random.Random, file: h5py.File, name: str, names: list[str], folder: Path) -> None:
    """Nodes beside each other that come to one name; metadata that names things; delays; many nodes."""
    if "node/nodes" not in file:
        return
    nodes, metadata = file["node/nodes"], file.require_group("node/metadata")
    match r.randrange(4):
        case 0:
            key = r.choice(("a.b", "a", "b", "lif.v", "a.b.c"))
            if key not in nodes:
                node = nodes.create_group(key)
                node["type"], node["scale"] = b"Scale", np.ones(1)
        case 1:
            key = r.choice(("data", "quantised", "dt", "calibration", "checked", "x"))
            if key in metadata:
                del metadata[key]
            metadata[key] = r.choice(
                (
                    f'{{"class_path": "{mutate.CANARY}.X"}}',
                    '{"name": "nmnist", "path": "%s"}' % folder,  # noqa: UP031
                    "[" * 30_000,
                    '{"target": ["x"]}',
                    '{"target": "loihi2", "bits": "x"}',
                    "{}",
                    "1e400",
                    mutate.name(r).replace("\0", ""),
                    '{"target": "Loihi 2", "scales": 5}',
                    "null",
                )
            )
        case 2:
            key = r.choice(("dt",))
            if key in metadata:
                del metadata[key]
            metadata[key] = mutate.number(r)
        case 3:
            for place in [
                found
                for found in names
                if found.split("/")[-1]
                in ("delay", "padding", "stride", "dilation", "groups", "kernel_size", "tau", "shape")
            ]:
                if r.random() < 0.5 and place in file:
                    old = np.asarray(file[place][()])
                    del file[place]
                    file[place] = np.full(
                        old.shape, r.choice((1e-4, 0, 3, 1000, 10**5, 2**31, 1e9, 1, 2, 7e-4, 1e-300))
                    )


def use_graph(path: Path) -> None:
    """Read, plan, run everywhere, map, write."""
    from export.check.report import weights_hash
    from export.model import Model
    from hardspike import HardspikeError
    from targets import graph as graphs
    from targets import reference
    from targets.loihi.mapping import map_graph
    from targets.table import TARGETS

    graph = graphs.read(path)
    layout = graphs.plan(graph)
    shape = layout.output_shape[layout.input]
    spikes = torch.ones(3, 1, *shape) if int(np.prod(shape)) < 10**5 else None
    if spikes is not None:
        spikes[0] = 0
        reference.run(graph, spikes)
    for target in ("loihi2", "onnxruntime"):
        try:
            if not [v for v in TARGETS[target].check(graph) if v.severity == "error"] and spikes is not None:
                TARGETS[target].run(graph, spikes)
        except HardspikeError:
            pass  # the others still have to answer
    with contextlib.suppress(HardspikeError):
        map_graph(graph, TARGETS["loihi2"].integers)
    weights_hash(graph)
    model = Model(path, given=graph)
    assert len((model.chip, model.calibration, model.data)) == 3  # each is read
    graphs.write(graph, path.with_name("out.nir"))


def use_lowered(path: Path) -> None:
    """What a graph becomes on its way to a chip."""
    from export.passes.lower import lower
    from targets import graph as graphs
    from targets.loihi.chips import LOIHI2

    graph = graphs.read(path)
    shape = graphs.plan(graph).output_shape[graphs.plan(graph).input]
    if int(np.prod(shape)) < 1000:
        lower(graph, (torch.rand(3, 2, *shape) < 0.5).float(), LOIHI2, scale="max_abs")


def use_net(path: Path) -> None:
    """What is looked at before Lava gets it, and the copy that it gets."""
    from io import BytesIO

    from targets import hdf5 as reader
    from targets.lava import net_file, runner

    runner._check(path, net_file.read_net(path), seeds.spikes())
    net_file.copied(reader.read(path, "file"), BytesIO())


def make_onnx(r: random.Random, folder: Path) -> Path:
    """Bytes, or edits of operators, parameters, inputs and outputs."""
    path, data = folder / "in.onnx", r.choice(seeds.files(folder)[".onnx"])
    if r.random() < 0.4:
        path.write_bytes(mutate.mutated(r, data))
        return path
    model = onnx.load_model_from_string(data)
    for _ in range(r.choice((1, 1, 2))):
        _edit_onnx(r, model, str(folder.parent / "canaries" / mutate.CANARY))
    path.write_bytes(model.SerializeToString())
    return path


def _edit_onnx(r: random.Random, model: onnx.ModelProto, canary: str) -> None:
    graph = model.graph
    node, ends = r.choice(graph.node), [*graph.input, *graph.output]
    match r.randrange(12):
        case 0:
            graph.node.remove(node)
        case 1 if node.input:
            node.input[r.randrange(len(node.input))] = r.choice(("", "nope", graph.node[0].output[0]))
        case 2 if node.output:
            node.output[0] = r.choice(("", "x", "output", "input"))
        case 3:
            node.op_type = r.choice(
                ("Add", "Relu", "Loop", "Nope", "Conv", "Identity", "Reshape", "If", "Gemm", "Clip")
            )
        case 4:
            r.choice(graph.initializer).dims[:] = r.choice(([0], [10**9, 10**9], [-1], [3], []))
        case 5:
            parameter = r.choice(graph.initializer)
            parameter.raw_data = mutate.mutated(r, parameter.raw_data or b"abcd")
        case 6:
            parameter = r.choice(graph.initializer)
            parameter.ClearField("raw_data")
            parameter.data_location = onnx.TensorProto.EXTERNAL
            entry = parameter.external_data.add()
            entry.key, entry.value = "location", r.choice((canary, "/etc/passwd", f"../canaries/{mutate.CANARY}", "x"))
        case 7:
            dims = r.choice(ends).type.tensor_type.shape.dim
            if dims:
                r.choice(dims).dim_value = r.choice((0, 1, 10**12, 10**8, -1))
        case 8:
            r.choice(ends).name = r.choice(("", "x", "input", "output", "a.next"))
        case 9:
            r.choice(ends).type.tensor_type.elem_type = r.choice((2, 7, 11, 8, 1, 99))
        case 10:
            entry = r.choice(model.metadata_props)
            entry.key, entry.value = r.choice((entry.key, "zz")), r.choice(("", "x", "-1", "9" * 30, mutate.name(r)))
        case _ if node.attribute:
            attribute = r.choice(node.attribute)
            attribute.i = r.choice((0, -1, 10**9, 1 << 62))
            if attribute.ints:
                attribute.ints[r.randrange(len(attribute.ints))] = r.choice((0, -1, 1000, 10**6, 1 << 40))


def use_onnx(path: Path) -> None:
    """Run it."""
    from targets.onnx.runtime import run_file

    run_file(path, seeds.spikes())


EDITS = (edit_value, edit_value, edit_storage, edit_name, edit_link, edit_edges, edit_graph)
KINDS = {
    "nir": (hdf5(".nir", EDITS), use_graph),
    "lowered": (hdf5(".nir", EDITS), use_lowered),
    "net": (hdf5(".net", EDITS[:5]), use_net),
    "onnx": (make_onnx, use_onnx),
}
