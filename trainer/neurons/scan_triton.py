"""The scan on CUDA GPUs as Triton kernels (scan_triton_kernels.py), compiled by Triton on first use.

Triton is no dependency: CUDA builds of torch bring it. Where `obstacle` finds a reason, `trainer.neurons.scan` runs its
torch code.

On an H100 with Triton 3.6.0 they pass tests/trainer/test_scan_triton.py, which runs the same tests in Triton's
interpreter where there is no GPU, and move 0.94 to 1.06 of the bytes a second that a copy moves from a million
neurons on (16 steps; `python -m benchmarks.neuron scan`, less what launching takes).
"""

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from hardspike import logger
from trainer import native
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.scan_native import dense, laid_out_as, summed, unknown
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows

_log = logger(__name__)

BLOCK, WARPS = 256, 4
"""Neurons of a program, and the warps of 32 threads that share them: the best of ten choices on an H100, by up to 6 %,
from 20,000 to 4 million neurons and 4 to 100 steps."""


def obstacle(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics | None = None) -> str | None:
    """Why the kernels cannot take these, or None."""
    if dynamics is not None and dynamics.fixed:
        return "integers: compiled for the CPU only"
    return unknown(dynamics) or native.refusal("cuda", current, beta, threshold) or _trial(current.device)


@cache
def _trial(device: torch.device) -> str | None:
    """Why the kernels do not work on this GPU, or None; found out by a scan of known values. Asked once a process."""
    try:
        import triton

        from trainer.neurons import scan_triton_kernels
    except ImportError as error:
        return f"Triton: {error}"
    if not isinstance(scan_triton_kernels.forward, triton.runtime.JITFunction):
        return "Triton's interpreter is on (TRITON_INTERPRET)"
    try:
        wrong = _trial_values(device)
    except Exception as error:  # whatever Triton, its compilers and the driver raise
        wrong = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    if wrong:
        _log.warning(f"scan on {device}: Triton {triton.__version__} does not work, torch code runs instead: {wrong}")
    return wrong and f"Triton {triton.__version__}: {wrong}"


def _trial_values(device: torch.device) -> str | None:
    """What is wrong in a scan of three steps, all of whose values are exact in binary."""
    current, beta, threshold = (torch.tensor(x, device=device) for x in ([[0.75]] * 3, 0.5, 1.0))
    box = Dynamics(Surrogate(), True, "subtract", False, Windows("box", torch.full((3,), 0.25, dtype=torch.float64)))
    spikes, membrane = forward(current, beta, threshold, box)
    found = spikes, membrane, *backward(torch.ones_like(current), None, membrane, beta, threshold, box,
                                        (True, False))[:2]
    expected = [0.0, 1.0, 0.0], [0.75, 1.125, 0.3125], [1.0, 2.0, 0.0], [1.5]
    names = "spikes", "membrane", "gradient of the current", "gradient of beta"
    wrong = [name for name, one, two in zip(names, found, expected, strict=True) if one.flatten().tolist() != two]
    return f"wrong {', '.join(wrong)} in a trial" if wrong else None


def version() -> str:
    """Triton's."""
    import triton

    return triton.__version__


def forward(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """As `trainer.neurons.scan.lif_forward`."""
    current = dense(current.detach())
    spikes, membrane = torch.empty_like(current), torch.empty_like(current)
    _launch("forward", current, (current, spikes, membrane), (beta, threshold), dynamics)
    return spikes, membrane


def backward(grad: Tensor, grad_membrane: Tensor | None, membrane: Tensor, beta: Tensor, threshold: Tensor,
             dynamics: Dynamics, learned: tuple[bool, bool]
             ) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As `lif_backward` of `scan`. Gradients of beta and threshold are summed in float64, in a fixed order."""
    grad_current, windows = torch.empty_like(membrane), dynamics.windows
    sums = [None if not needed else torch.empty_like(membrane[0], dtype=torch.float64) if value.numel() > 1 else
            torch.empty(_programs(membrane), dtype=torch.float64, device=membrane.device)
            for value, needed in zip((beta, threshold), learned, strict=True)]
    _launch("backward", membrane, (membrane, laid_out_as(membrane, grad), laid_out_as(membrane, grad_membrane),
                                   grad_current, *sums), (beta, threshold), dynamics,
            # from memory that is not pinned, a copy to the GPU has read its source when it returns
            windows and _window_constants(windows).to(membrane.dtype).to(membrane.device, non_blocking=True),
            through_reset=dynamics.through_reset, window=windows.name if windows else "")
    return grad_current, *(summed(value, found) for value, found in zip((beta, threshold), sums, strict=True))


def _programs(like: Tensor) -> int:
    return math.ceil(like[0].numel() / BLOCK)


@lru_cache(64)  # a slope may change from epoch to epoch; a copy to the GPU takes longer than the launch
def _shape_constants(name: str, slope: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2,): what z is multiplied by in phi, and what its derivative is; rounded once, from float64."""
    factors = {"arctan": (math.pi, 1), "fast_sigmoid": (2, 1), "sigmoid": (4, 4)}[name]
    return (torch.tensor(factors, dtype=torch.float64, device="cpu") * slope).to(dtype).to(device)


def _window_constants(windows: Windows) -> Tensor:
    """(T, 3) float64: half width (arc: what z is multiplied by), scale, and what asy and ramp add to z."""
    b = windows.widths.to("cpu", torch.float64)
    scale = {"tri": 1 / b**2, "ramp": 1 / (2 * b**2)}.get(windows.name, 1 / (2 * b))
    return torch.stack((math.pi / (2 * b) if windows.name == "arc" else b, scale,
                        b if windows.name == "ramp" else 2 * b * windows.height), 1)


def _launch(name: str, like: Tensor, tensors: tuple[Tensor | None, ...], parameters: tuple[Tensor, Tensor],
            dynamics: Dynamics, *tables: Tensor | None, **settings: bool | str) -> None:
    from trainer.neurons import scan_triton_kernels

    surrogate = dynamics.surrogate
    shape = _shape_constants(surrogate.name, surrogate.slope, like.dtype, like.device)
    each = [value.numel() > 1 for value in parameters]
    values = (torch.empty_like(like[0]).copy_(value) if many else value
              for value, many in zip(parameters, each, strict=True))
    with torch.cuda.device_of(like):
        # a fused multiply-add would round once where scan.py rounds twice, and move spikes
        getattr(scan_triton_kernels, name)[(_programs(like),)](
            *tensors, *values, shape, *tables, like[0].numel(), len(like), HARD=dynamics.hard, RESET=dynamics.reset,
            FUNCTION=surrogate.name, REST_AT_ZERO=surrogate.rest_at_zero, BETA_EACH=each[0], THRESHOLD_EACH=each[1],
            BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
            **{key.upper(): value for key, value in settings.items()})
