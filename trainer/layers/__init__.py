"""Layers that know what spikes are like: by events where few inputs are nonzero, BatchNorm over all processes."""
