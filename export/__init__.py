"""Freeze a trained network and write it for other tools: `python -m export nir`."""
