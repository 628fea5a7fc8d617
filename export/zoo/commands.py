"""`hardspike export zoo list` and `hardspike export zoo get NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardspike import OutFolder, OutText, UsageError, choice, logger, print_table, to_values

if TYPE_CHECKING:
    from export.zoo.zoo import Entry

_log = logger(__name__)


def zoo(*words: str, out: OutFolder | None = None, json: OutText | None = None) -> None:
    """Small checked networks by name: `zoo list` tells them, `zoo get NAME` makes one.

    No weights are shipped: `get` trains the network from its configuration with a fixed seed, on recordings that come
    with scikit-learn, exports it as NIR and in Loihi 2's integers (one with attention: its convolutional stages as NIR,
    the whole as ONNX), each checked spike for spike, and compares accuracy and the SHA-256 of its parameters with what
    was noted. On one machine they are the same number for number; another may round otherwise, which is said. What is
    worse than chance allows is an error.

    Args:
        words: list; or get and the name of a network
        out: folder for the run; default: zoo/NAME
        json: file for the table
    """
    what, *names = words
    choice("word", what, ("list", "get"))
    if len(names) != (what == "get"):
        raise UsageError("zoo get takes the name of one network; zoo list tells them" if what == "get" else
                         "zoo list takes no name; zoo get NAME makes one")
    from export.zoo.zoo import entries, get
    if what == "list":
        found = entries().values()
        print_table([_row(one) for one in found],
                    "zoo, scikit-learn's digits: noted on all 359 test recordings; nJ are estimates by price table",
                    json, {"networks": [to_values(one) for one in found]})
        return
    name, = names
    choice("network", name, entries())
    got = get(name, out or Path("zoo") / name)
    noted = got.entry.noted
    row = {"network": name, "on": got.entry.target, "accuracy %": got.accuracy,
           "noted %": noted and noted.accuracy, "spikes": got.spikes, "noted": noted and noted.spikes,
           "the noted weights": "yes" if got.same else "no"}
    print_table([row], f"{got.file}", json, {"file": str(got.file), "sha256": got.sha256})
    if noted and not got.same:
        _log.info(f"{got.file}: its parameters have SHA-256 {got.sha256[:12]}..., {noted.sha256[:12]}... was noted: "
                  "this machine or its libraries round otherwise; spikes were checked against the network as trained")


def _row(entry: Entry) -> dict[str, Any]:
    """A network in the list; energies without and with the memory's."""
    from export.zoo.zoo import LICENCE
    noted = entry.noted
    energy = {table.endswith("_sram"): value for table, value in noted.energy.items()} if noted else {}
    return {"network": entry.name, "layers": entry.fit["network"]["layers"], "on": entry.target,
            "accuracy %": noted and noted.accuracy, "spikes": noted and noted.spikes, "nJ": energy.get(False),
            "nJ with SRAM": energy.get(True), "licence": LICENCE, "sha256": noted and noted.sha256[:12],
            "about": entry.about}
