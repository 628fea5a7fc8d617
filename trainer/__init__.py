"""Train spiking networks on event data: `python -m trainer fit`."""
