"""Leaky integrate-and-fire neurons: spikes, surrogates, windows, the scan over time."""
