"""What a check saw, on the terminal and in the file beside the model."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import nir

from export.check.parity import Parity
from export.model import report_path
from hardspike import HardspikeError, print_table, printable, versions, write_text
from targets.graph import parameters


def weights_hash(graph: nir.NIRGraph) -> str:
    """sha256 over every node's name and parameters, in float64; nodes of subgraphs as `subgraph.node`."""
    digest = hashlib.sha256()

    def update(part: nir.NIRGraph, prefix: str) -> None:
        for name, node in sorted(part.nodes.items()):
            if isinstance(node, nir.NIRGraph):
                update(node, f"{prefix}{name}.")
                continue
            for key, value in sorted(parameters(node)):
                digest.update(f"{prefix}{name}.{key}{value.shape}".encode())
                digest.update(value.astype("<f8").tobytes())

    update(graph, "")
    return digest.hexdigest()


def announce(out: Path, report: Path, parity: Parity | None, json_file: Path | None) -> None:
    """Print what a check saw, layer by layer, or that there was none; `report` is what `write_report` wrote."""
    if parity is None:
        print(printable(f"{out}: written, NOT checked ({report} says so)"))
        return
    print_table([asdict(layer) for layer in parity.layers], f"{out}", json_file, json.loads(report.read_text()))
    print(printable(parity.verdict()))


def withdraw(model: Path, *beside: Path) -> None:
    """Remove the report of the model that is about to be replaced, and files `beside` that belong to it: killed between
    a model and its report, no new model stands beside an old one's.

    Raises:
        HardspikeError: they cannot be removed.
    """
    for file in (report_path(model), *beside):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise HardspikeError(f"{file}: belongs to the model that is to be replaced, and cannot be removed "
                                 f"({error.strerror}); give --out another name") from error


def write_report(model: Path, graph: nir.NIRGraph, parity: Parity | None, packages: tuple[str, ...] = ()) -> Path:
    """`report_path` of the model: what was checked, or that nothing was (`parity` None).

    `packages`: libraries whose versions matter besides the usual ones.
    """
    path = report_path(model)
    content = {"checked": parity is not None, "model": model.name,
               "file_sha256": hashlib.sha256(model.read_bytes()).hexdigest(), "weights_sha256": weights_hash(graph),
               "versions": versions("hardspike", "torch", "snntorch", "nir", "numpy", *packages)}
    if parity:
        content |= {"mismatches": parity.mismatches, "compared": parity.compared, **asdict(parity)}
    write_text(path, json.dumps(content, indent=2))
    return path
