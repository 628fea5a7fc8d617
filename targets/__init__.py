"""What runs a NIR graph, and what it can hold: `python -m targets`."""
