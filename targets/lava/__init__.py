"""Intel's Lava simulator as a target, in an interpreter of its own: `python -m targets setup lava`."""
