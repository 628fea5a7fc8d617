"""Cases as text, so that a find can be read, kept and reviewed: one JSON file each."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import nir
import numpy as np

from tests.conform.grow import Case

FOLDER = Path(__file__).parent / "corpus"


def to_text(case: Case, relation: str = "", said: str = "") -> str:
    """A case and what was found on it."""
    content = {"relation": relation, "said": said, "kind": case.kind, "graph": _graph(case.graph),
               "steps, samples, shape": list(case.frames.shape), "events": _events(case.frames)}
    return json.dumps(content, indent=1)


def from_text(text: str) -> tuple[Case, str]:
    """The case and the relation."""
    content = json.loads(text)
    frames = np.zeros(content["steps, samples, shape"])
    for *place, value in content["events"]:
        frames[tuple(place)] = value
    return Case(content["kind"], _from(content["graph"]), frames), content["relation"]


def keep(case: Case, relation: str, said: str, folder: Path = FOLDER) -> Path:
    """Write a case; named after what differed and its content."""
    text = to_text(case, relation, said)
    path = folder / f"{relation}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    return path


def cases(folder: Path = FOLDER) -> Iterator[tuple[Path, Case, str]]:
    """Everything that is kept: file, case, relation."""
    for path in sorted(folder.glob("*.json")):
        yield path, *from_text(path.read_text())


def _events(frames: np.ndarray) -> list:
    return [[*map(int, place), float(frames[tuple(place)])] for place in np.argwhere(frames)]


def _graph(graph: nir.NIRGraph) -> dict:
    nodes = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            nodes[name] = {"type": "NIRGraph", **_graph(node)}
            continue
        fields = {"type": type(node).__name__}
        if isinstance(node, nir.Input):
            shape = next(iter((node.input_type or {"": None}).values()))
            fields["shape"] = None if shape is None else np.asarray(shape).tolist()
        elif not isinstance(node, nir.Output):
            fields |= {key: value if isinstance(value, str) or value is None else np.asarray(value).tolist()
                       for key, value in vars(node).items()
                       if key not in ("input_type", "output_type", "metadata", "input_shape")}
        nodes[name] = fields
    return {"dt": graph.metadata.get("dt"), "nodes": nodes, "edges": [list(edge) for edge in graph.edges]}


def _from(content: dict) -> nir.NIRGraph:
    nodes = {}
    for name, fields in content["nodes"].items():
        kind = getattr(nir, fields["type"])
        values = {key: np.asarray(value) if isinstance(value, list) else value for key, value in fields.items()
                  if key != "type"}
        if kind is nir.NIRGraph:
            nodes[name] = _from(fields)
        elif kind is nir.Input:
            nodes[name] = nir.Input(values["shape"])
        elif kind is nir.Output:
            nodes[name] = nir.Output(None)
        elif kind in (nir.Conv1d, nir.Conv2d):
            nodes[name] = kind(input_shape=None, **values)
        elif kind is nir.Flatten:
            nodes[name] = nir.Flatten(None, **values)
        else:
            nodes[name] = kind(**values)
    return nir.NIRGraph(nodes, [tuple(edge) for edge in content["edges"]],
                        metadata={} if content["dt"] is None else {"dt": content["dt"]}, type_check=False)
