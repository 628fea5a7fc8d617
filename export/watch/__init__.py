"""Any snnTorch network as its user runs it: what a run does is noted, folded into one step, and written as a graph."""

from export.watch.called import record

__all__ = ["record"]
