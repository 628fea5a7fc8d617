"""A quantised graph as C: one readable file for any machine, and the same code around a batch for the simulator."""
