"""Freeze a trained network and write it for other tools: `hardspike export nir`."""
