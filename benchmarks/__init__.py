"""Measurements of speed and memory, each a command: `make bench`."""

import time
from typing import Literal

import torch

Device = Literal["cpu", "cuda"]


def now(device: str = "cpu") -> float:
    """Seconds; on a GPU once all that was asked of it so far is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def where(device: str, threads: int) -> str:
    """What was measured on, in words."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{threads} threads"
