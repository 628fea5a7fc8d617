"""What runs a NIR graph, and what it can hold: `python -m targets`."""

TARGETS = {
    "reference": "targets.reference",
    "loihi1": "targets.loihi1",
    "loihi2": "targets.loihi2",
    "onnxruntime": "targets.onnx.runtime",
    "lava": "targets.lava.runner",
}
"""Target -> its module, imported when asked for: NAME, DESCRIPTION, run(graph, spikes, dt, membrane) -> Recording

(`reference` and chips also take `transmit`) and, for chips, check(graph, dt) -> list[Violation] and LIMITS."""
