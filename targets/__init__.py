"""What runs a NIR graph, and what it can hold: `python -m targets`."""

TARGETS = {
    "reference": "targets.reference",
}
"""Target -> its module, imported when asked for: NAME, DESCRIPTION, run(graph, spikes, dt, membrane) -> Recording."""
