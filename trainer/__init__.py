"""Train spiking networks on event data: `hardspike fit`."""
