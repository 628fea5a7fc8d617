"""A NIR graph as the targets use it: read from a file whoever wrote it, checked, flattened, ordered."""

from nir import NIRGraph as Graph

from targets.graph.files import read, write
from targets.graph.plan import LINEAR, NEURONS, SPIKING, STATELESS, Plan, assumed_step, ends, is_row, parameters, plan

__all__ = ["LINEAR", "NEURONS", "SPIKING", "STATELESS", "Graph", "Plan", "assumed_step", "ends", "is_row",
           "parameters", "plan", "read", "write"]
