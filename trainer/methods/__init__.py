"""Training methods: how the gradient of one step is computed. One file each; one line in METHODS.

Their files import torch in the functions that need it: the configuration of a run needs names and options alone.
"""

from trainer.methods.a2sg import A2SG
from trainer.methods.method import Measured, Method, State
from trainer.methods.plain import HARD, SURROGATE
from trainer.methods.sast import SAST

__all__ = ["METHODS", "Measured", "Method", "State"]

METHODS: dict[str, Method] = {"surrogate": SURROGATE, "hard": HARD, "sast": SAST, "a2sg": A2SG}
