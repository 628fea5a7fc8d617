"""`python -m export zoo list` and `python -m export zoo get NAME`."""

from __future__ import annotations

from pathlib import Path

from hardspike import OutFolder, OutText, UsageError, choice, logger, print_table

_log = logger(__name__)


def zoo(*words: str, out: OutFolder | None = None, json: OutText | None = None) -> None:
    """Small checked networks by name: `zoo list` tells them, `zoo get NAME` makes one.

    No weights are shipped: `get` trains the network from its configuration with a fixed seed, on recordings that come
    with scikit-learn, exports it as NIR and in Loihi 2's integers, both checked spike for spike, and compares accuracy
    and the SHA-256 of its parameters with what was noted. On one machine they are the same number for number; another
    may round otherwise, which is said. What is worse than chance allows is an error.

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
    from export.zoo.zoo import CHIP, LICENCE, entries, get
    if what == "list":
        rows = [{"network": one.name, "layers": one.fit["network"]["layers"],
                 f"{CHIP} %": one.noted and one.noted.accuracy, "spikes": one.noted and one.noted.spikes,
                 **{f"{table} nJ": value for table, value in (one.noted.energy if one.noted else {}).items()},
                 "licence": LICENCE, "sha256": one.noted and one.noted.sha256, "about": one.about}
                for one in entries().values()]
        print_table([{**row, "sha256": row["sha256"] and row["sha256"][:12]} for row in rows],
                    "zoo, digits: noted on all 359 test recordings; energies are estimates", json, {"networks": rows})
        return
    name, = names
    choice("network", name, entries())
    got = get(name, out or Path("zoo") / name)
    noted = got.entry.noted
    row = {"network": name, f"{CHIP} %": got.accuracy, "noted %": noted and noted.accuracy, "spikes": got.spikes,
           "noted": noted and noted.spikes, "the noted weights": "yes" if got.same else "no"}
    print_table([row], f"{got.graph}", json, {"graph": str(got.graph), "sha256": got.sha256})
    if noted and not got.same:
        _log.info(f"{got.graph}: its parameters have SHA-256 {got.sha256[:12]}..., {noted.sha256[:12]}... was noted: "
                  "this machine or its libraries round otherwise; spikes were checked against the network as trained")
