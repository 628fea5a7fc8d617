"""Measurements of speed and memory, each a command: `make bench`."""

import time

import torch


def now(device: str = "cpu") -> float:
    """Seconds; on a GPU once all that was asked of it so far is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
