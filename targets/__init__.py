"""What runs a NIR graph, and what it can hold: `hardspike targets`."""

from importlib.util import find_spec


def __getattr__(name: str):
    """A target by its name, imported when asked for: `from targets import loihi2`."""
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:  # a module of ours is imported as such
        from targets.table import TARGETS
        if name in TARGETS:
            return TARGETS[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
