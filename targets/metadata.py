"""What a graph says of itself: the keys of its metadata, each read and written here alone.

Values of a file are data: they are taken as numbers, text or JSON, checked, and nothing that they name is opened.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import nir
import numpy as np

from hardspike import HardspikeError, from_values, one_line, parse_json

LONGEST = 1 << 16
"""Characters of a value that is read as JSON."""


@dataclass(frozen=True)
class Quantised:
    """`quantised`: a graph in integer units.

    Args:
        target: the chip whose arithmetic it is for, as `Limits.chip` calls it.
        bits: of a weight.
        scale: how scales were chosen: searched, max_abs or given.
        scales: layer -> integer units for 1.
    """

    target: str
    bits: int = 8
    scale: str = "given"
    scales: dict[str, float] = field(default_factory=dict)


def text(value: Any) -> str:
    """A value as text; HDF5 gives strings back as bytes."""
    return value.decode("utf8", "replace") if isinstance(value, bytes) else str(value)


def with_key(graph: nir.NIRGraph, key: str, value: str | float) -> nir.NIRGraph:
    """The same graph, its nodes shared, with one key set."""
    return nir.NIRGraph(graph.nodes, graph.edges, metadata={**graph.metadata, key: value}, type_check=False)


def dt(graph: nir.NIRGraph) -> float | None:
    """`dt`, seconds a step; None where the graph does not say.

    Raises:
        HardspikeError: it is no single positive number.
    """
    stored = graph.metadata.get("dt")
    if stored is None:
        return None
    try:
        step = float(np.asarray(stored).item())
    except (TypeError, ValueError) as error:
        raise HardspikeError(f"metadata dt: {one_line(error)}; it has to be one number of seconds") from error
    if not (math.isfinite(step) and step > 0):
        raise HardspikeError(f"metadata dt: {step:g} s; a step has to be a positive number of seconds")
    return step


def with_dt(graph: nir.NIRGraph, dt: float) -> nir.NIRGraph:
    """The same graph, said to be one of steps of `dt` seconds."""
    return with_key(graph, "dt", float(dt))


def quantised(graph: nir.NIRGraph) -> Quantised | None:
    """What `quantised` says; None for a float graph.

    Raises:
        HardspikeError: it is not what `hardspike export quantise` writes.
    """
    if "quantised" not in graph.metadata:
        return None
    values = _json(graph, "quantised")
    known = {key: value for key, value in values.items() if key in Quantised.__dataclass_fields__}
    if not isinstance(known.get("target"), str):
        raise HardspikeError("metadata quantised: it has to be JSON with a 'target', as `hardspike export quantise` "
                             "writes it")
    return from_values(Quantised, known, "metadata quantised")


def mark_quantised(graph: nir.NIRGraph, mark: Quantised) -> nir.NIRGraph:
    """The same graph, said to be one of integers."""
    return with_key(graph, "quantised", json.dumps(asdict(mark)))


def data(graph: nir.NIRGraph) -> dict[str, Any] | None:
    """`data`, the options of the source that a graph of ours was trained on; None where it does not say.

    Raises:
        HardspikeError: it is no JSON object.
    """
    return _json(graph, "data") if "data" in graph.metadata else None


def whole_frames(graph: nir.NIRGraph) -> str:
    """How the frames of a graph become whole numbers, for an error message."""
    if (data(graph) or {}).get("encoding") == "count":
        return ("it was trained on counts scaled to fractions: train with --data.encoding binary, whose frames are "
                "spikes")
    return "bin the events into counts"


def calibration(graph: nir.NIRGraph) -> str | None:
    """`calibration`, the kind that a network was calibrated by after training; None for one as it was trained."""
    kind = graph.metadata.get("calibration")
    return text(kind) if kind is not None and text(kind) else None


def with_calibration(graph: nir.NIRGraph, kind: str) -> nir.NIRGraph:
    """The same graph, said to be calibrated."""
    return with_key(graph, "calibration", kind)


def _json(graph: nir.NIRGraph, key: str) -> dict[str, Any]:
    stored = text(graph.metadata[key])
    if len(stored) > LONGEST:
        raise HardspikeError(f"metadata {key}: {len(stored)} characters, at most {LONGEST}; write the graph anew")
    values = parse_json(stored, f"metadata {key}")
    if not isinstance(values, dict):
        raise HardspikeError(f"metadata {key}: holds no keys and values; write the graph anew")
    return values
