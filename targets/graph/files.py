"""NIR files (HDF5), read whoever wrote them and written whole or not at all."""

from pathlib import Path
from types import SimpleNamespace

import nir
import numpy as np

from hardspike import HardspikeError, one_line, printable
from targets import hdf5, metadata
from targets.graph.plan import _NAMES, _WAY_OUT, _structure
from targets.graph.shapes import array


def read(path: str | Path) -> nir.NIRGraph:
    """Read and check a `.nir` file (HDF5).

    Raises:
        HardspikeError: the file is missing, is no NIR graph, is beyond the limits of `targets.hdf5`, or holds a graph
            that `plan` refuses, or metadata that decide how it runs and do not make sense.
    """
    content = hdf5.read(path, "NIR file").get("node")
    if not isinstance(content, dict) or not isinstance(kind := content.get("type"), str) or kind != "NIRGraph":
        raise HardspikeError(f"{path}: an HDF5 file, but it holds no NIR graph (no 'node' group of type NIRGraph)")
    try:
        graph = _from_dict(content, "graph")
        _structure(graph)
        metadata.dt(graph)
        metadata.quantised(graph)
    except HardspikeError as error:
        raise HardspikeError(f"{path}: {error}") from error
    return graph


def write(graph: nir.NIRGraph, path: str | Path) -> None:
    """Write `graph` as a `.nir` file, whole or not at all, with the shapes that it left open filled in.

    Raises:
        HardspikeError: `plan` refuses the graph, the folder cannot be written, or nir cannot store a value.
    """
    structure = _structure(graph)
    shapes = {id(node): structure["input_shape"][name] for name, node in structure["nodes"].items()}
    content = _to_dict(graph, shapes)
    try:
        hdf5.write(path, lambda file: nir.write(file, SimpleNamespace(to_dict=lambda: content)))
    except (TypeError, ValueError, AttributeError) as error:
        raise HardspikeError(f"{path}: nir cannot store this graph: {one_line(error)}") from error


def _to_dict(node: nir.NIRNode, shapes: dict[int, tuple[int, ...]]) -> dict:
    """`node.to_dict()` as nir can write and read it: no None where there is a shape, no arrays without an axis."""
    content = node.to_dict()
    shape = shapes.get(id(node), ())
    if isinstance(node, nir.NIRGraph):
        content["nodes"] = {name: _to_dict(child, shapes) for name, child in node.nodes.items()}
    elif isinstance(node, nir.Conv1d | nir.Conv2d) and content["input_shape"] is None:
        content["input_shape"] = shape[1] if isinstance(node, nir.Conv1d) else np.array(shape[1:])
    elif isinstance(node, nir.Flatten) and content["input_type"] is None:
        content["input_type"] = np.array(shape)
    elif isinstance(node, nir.Output) and content["shape"] is None:
        content["shape"] = np.array(shape)
    plain = {key: array(value) if hasattr(value, "detach") else value for key, value in content.items()}
    return {key: value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
            for key, value in plain.items()}


def _from_dict(content: dict, name: str) -> nir.NIRNode:
    """Like `nir.dict2NIRNode`, but nested graphs are not type-checked either and errors name the node."""
    kind = content.get("type") if isinstance(content, dict) else None
    kind = kind if isinstance(kind, str) else "missing"
    if kind not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise HardspikeError(f"node '{name}': type {printable(kind)[:60]} is not known; "
                             f"{_WAY_OUT.get(kind, f'known are {known}')}")
    fields = dict(content)
    if kind == "NIRGraph":
        nodes, edges = fields.get("nodes"), fields.get("edges")
        if not isinstance(nodes, dict) or edges is None:
            raise HardspikeError(f"node '{name}': a graph without nodes or edges; the file is incomplete")
        built = {child: _from_dict(value, child) for child, value in nodes.items()}
        pairs = np.asarray(edges)
        if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
            raise HardspikeError(f"node '{name}': edges of shape {pairs.shape} are no pairs of names")
        return nir.NIRGraph(built, [tuple(map(_text, pair)) for pair in pairs], fields.get("metadata", {}),
                            type_check=False)
    if kind in ("Conv1d", "Conv2d"):
        fields.setdefault("input_shape", None)  # files of nir < 0.2 lack it
    try:
        return nir.dict2NIRNode(fields)
    except Exception as error:  # nir computes shapes as it builds, so foreign values fail in any way
        raise HardspikeError(f"node '{name}' ({kind}): its fields make no {kind}: "
                             f"{printable(one_line(error))[:200]}") from error


def _text(value: bytes | str) -> str:
    return value.decode("utf8", "replace") if isinstance(value, bytes) else str(value)
